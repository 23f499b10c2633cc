"""The meter of one link: its probes and the two detectors that judge them, read in one go.

Engines hold one a link. Knows no socket and no clock.
"""

from __future__ import annotations

from .detect import THRESHOLD, Detector, Normal, run_limit
from .engine import LinkReading
from .probe import DEFAULT_INTERVAL, LinkProbe, Probe
from .window import MOST_VERDICTS, Window

__all__ = ["LinkMeter", "alarming"]

_SILENT_RUN = 10
_MASK = (1 << MOST_VERDICTS) - 1


class LinkMeter:
    """Measures one link from one of its ends.

    Once an interval: `next_probe(now)`, and send it. For each probe that came: `heard(frame, now)`.
    When the node's own timer came late: `overslept(now)`. Read with `reading(...)`.
    """

    __slots__ = (
        "_came_in",
        "_came_out",
        "_incoming",
        "_outgoing",
        "_seen_in",
        "_seen_out",
        "link",
        "peer",
        "probe",
    )

    def __init__(
        self,
        link: str,
        peer: str,
        *,
        epoch: int,
        now: float,
        interval: float = DEFAULT_INTERVAL,
        normal: tuple[Normal, Normal] | None = None,
    ) -> None:
        self.link = link
        self.peer = peer
        self.probe = LinkProbe(epoch, now, interval=interval)
        usual_in, usual_out = normal or (None, None)
        self._incoming = Detector(usual_in)
        self._outgoing = Detector(usual_out)
        # The newest verdicts as bits, for the learned model.
        self._came_in = self._came_out = 0
        self._seen_in = self._seen_out = 0

    @property
    def normal(self) -> tuple[Normal, Normal]:
        """What is usual here, in and out; give it to the next meter of this link."""
        return self._incoming.normal, self._outgoing.normal

    def restore(self, normal: tuple[Normal, Normal]) -> None:
        """Start from what was learned earlier; does nothing once a second of probes was judged."""
        if self._incoming.probes < 40 and self._outgoing.probes < 40:
            self._incoming, self._outgoing = Detector(normal[0]), Detector(normal[1])

    def next_probe(self, now: float) -> Probe:
        """The probe to send now."""
        return self.probe.next_probe(now)

    def heard(self, frame: Probe, now: float) -> None:
        """A probe of the peer arrived."""
        self.probe.heard(frame, now)
        self._feed()

    def overslept(self, now: float) -> None:
        """This node slept past its timer: what it missed meanwhile proves nothing."""
        self.probe.overslept(now)

    def alarmed(self, now: float) -> bool:
        """Whether either direction is bad now."""
        self.probe.tick(now)
        self._feed()
        return self._incoming.alarmed(self.probe.missed_in(now)) or self._outgoing.alarmed(
            self.probe.missed_out
        )

    def alarming(self, now: float) -> bool:
        """Whether Analyze would find something now; cheap while nothing is wrong."""
        return self.alarmed(now) and bool(
            alarming(self.reading(now, drained=False, drained_here=False, peer_alive=True))
        )

    def silent(self, now: float) -> bool:
        """Whether nothing is heard of the peer: never, or for a run that its normal loss does not explain.

        On a link that was bad lately half a second is enough: to say so is not yet to act.
        """
        probe = self.probe
        limit = min(run_limit(self._incoming.baseline), _SILENT_RUN)
        return not probe.seen or probe.missed_in(now) >= limit

    def reading(self, now: float, *, drained: bool, drained_here: bool, peer_alive: bool) -> LinkReading:
        """The link as it stands."""
        probe, incoming, outgoing = self.probe, self._incoming, self._outgoing
        probe.tick(now)
        self._feed()
        missed_in = probe.missed_in(now)
        return LinkReading(
            link=self.link,
            peer=self.peer,
            loss_in=incoming.loss,
            loss_out=outgoing.loss,
            rtt=probe.rtt,
            silence=probe.silence(now),
            missed_in=missed_in + incoming.run,
            missed_out=probe.missed_out + outgoing.run,
            score_in=incoming.score,
            score_out=outgoing.score,
            baseline_loss=max(incoming.baseline, outgoing.baseline),
            probes=incoming.probes + outgoing.probes,
            good=0 if missed_in or probe.missed_out else min(probe.good_in, probe.good_out),
            drained=drained,
            drained_here=drained_here,
            peer_alive=peer_alive,
            window=Window(
                self._came_in,
                self._seen_in,
                self._came_out,
                self._seen_out,
                tuple(probe.rtts),
                probe.rtts_seen,
            ),
        )

    def _feed(self) -> None:
        probe = self.probe
        if probe.verdicts_in:
            came = self._came_in
            for arrived in probe.verdicts_in:
                self._incoming.feed(arrived)
                came = came << 1 | arrived
            self._came_in = came & _MASK
            self._seen_in += len(probe.verdicts_in)
            probe.verdicts_in.clear()
        if probe.verdicts_out:
            came = self._came_out
            for arrived in probe.verdicts_out:
                self._outgoing.feed(arrived)
                came = came << 1 | arrived
            self._came_out = came & _MASK
            self._seen_out += len(probe.verdicts_out)
            probe.verdicts_out.clear()


def alarming(reading: LinkReading) -> tuple[str, ...]:
    """Which rules a reading breaks: `dead.in`, `dead.out`, `lossy.in`, `lossy.out`."""
    limit = run_limit(reading.baseline_loss)
    rules = (
        ("dead.in", reading.missed_in >= limit),
        ("dead.out", reading.missed_out >= limit),
        ("lossy.in", reading.score_in >= THRESHOLD),
        ("lossy.out", reading.score_out >= THRESHOLD),
    )
    return tuple(name for name, broken in rules if broken)
