"""Probes of one link: what arrived, what did not, in each direction, and how long it took.

Both ends send a `Probe` every interval. A probe says which of the other end's probes its sender has
heard (the newest, and a bitmap of the 64 up to it), so each end knows the fate of every probe in
both directions, exactly and without a clock in common. It echoes the time of the newest probe heard
with how long it was held, so the round trip is known from one frame (RFC 9616 does the same).

A verdict is given when it is certain: a probe is lost when later ones have arrived (with room for
reordering), never because time has passed. Time gives only `missed_in`, the probes that should have
arrived since the last, which is taken back when the next one shows that the peer was merely late.
What a node missed while it slept itself proves nothing, and is forgiven.

Knows no clock, no socket and no threshold: times are passed in, `detect` judges.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

__all__ = ["DEFAULT_INTERVAL", "LinkProbe", "Probe"]

DEFAULT_INTERVAL = 0.05
"""Seconds between probes."""

_WINDOW = 64
_REORDER = 2
_MASK = (1 << _WINDOW) - 1
_U32 = 0xFFFF_FFFF

_Unsigned32 = Annotated[int, msgspec.Meta(ge=0, le=_U32)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]


class Probe(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One probe as it travels; times in microseconds of the clock of the node named."""

    epoch: _Unsigned32
    """Random, new at each start of the sender: tells a restart from a gap."""
    seq: _Unsigned32
    """Counts from 1."""
    sent_us: _Time
    interval_us: _Unsigned32
    overslept: bool = False
    """The sender has just been asleep: what it reports as not heard proves nothing."""
    heard_epoch: _Unsigned32 = 0
    """The receiver's epoch, as last heard by the sender; 0 when nothing was heard yet."""
    heard_seq: _Unsigned32 = 0
    heard_bitmap: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bit i stands for the probe `heard_seq - i`."""
    echo_us: _Time = 0
    hold_us: _Time = 0


class LinkProbe:
    """One end of a probed link.

    Call `next_probe` once an interval and send what it returns, `heard` for each probe that came,
    `tick` before reading, and `overslept` when this node's own timer came late. Verdicts (True:
    arrived, False: lost) gather in `verdicts_in` and `verdicts_out`, oldest first, for the reader
    to take and clear; `rtts` holds the newest round trips, in seconds.
    """

    __slots__ = (
        "_anchor",
        "_bitmap",
        "_created",
        "_deviation",
        "_epoch",
        "_forgive_until",
        "_gap_forgiven",
        "_hold_from",
        "_interval",
        "_newest",
        "_newest_at",
        "_newest_sent_us",
        "_out_newest",
        "_out_settled",
        "_peer_epoch",
        "_peer_interval",
        "_sent",
        "_seq",
        "_settled",
        "_unheard_out",
        "duplicates",
        "good_in",
        "good_out",
        "restarts",
        "rtt",
        "rtts",
        "rtts_seen",
        "verdicts_in",
        "verdicts_out",
    )

    def __init__(self, epoch: int, now: float, *, interval: float = DEFAULT_INTERVAL) -> None:
        if not 0 < epoch <= _U32:
            raise ValueError(f"the epoch is {epoch!r}; it must lie in 1..{_U32}")
        self._epoch = epoch
        self._interval = interval
        self._created = now
        self._seq = 0
        # (seq, sent) of this end's newest probes, oldest first.
        self._sent: deque[tuple[int, float]] = deque(maxlen=_WINDOW)
        self._peer_epoch = 0
        self._peer_interval = interval
        self._newest = 0
        self._newest_at = now
        self._newest_sent_us = 0
        self._hold_from = now
        self._bitmap = 0
        self._settled = 0
        self._anchor = now
        self._deviation = 0.0
        self._gap_forgiven = False
        self._forgive_until = now
        self._out_newest = 0
        self._out_settled = 0
        self._unheard_out = 0
        self.rtt: float | None = None
        self.rtts: deque[float] = deque(maxlen=_WINDOW)
        self.rtts_seen = 0
        self.good_in = 0
        self.good_out = 0
        self.duplicates = 0
        self.restarts = 0
        self.verdicts_in: list[bool] = []
        self.verdicts_out: list[bool] = []

    @property
    def seen(self) -> bool:
        """Whether the peer was ever heard."""
        return self._peer_epoch != 0

    @property
    def grace(self) -> float:
        """How late a probe may be before it counts as missed: half an interval, and the jitter seen."""
        return min(0.5 * self._peer_interval + 4.0 * self._deviation, 2.0 * self._peer_interval)

    def silence(self, now: float) -> float:
        """Seconds since a probe was last heard, or since the link was opened."""
        return max(0.0, now - (self._newest_at if self.seen else self._created))

    def missed_in(self, now: float) -> int:
        """Probes that should have arrived since the last one, sleep of one's own not counted."""
        if not self.seen:
            return 0
        late = now - self._anchor - self.grace
        return int(late / self._peer_interval) if late > 0 else 0

    @property
    def missed_out(self) -> int:
        """This end's newest probes in a row that the peer, by its latest report, has not heard."""
        return self._unheard_out

    def next_probe(self, now: float) -> Probe:
        """The probe to send now."""
        self._seq += 1
        self._sent.append((self._seq, now))
        return Probe(
            epoch=self._epoch,
            seq=self._seq,
            sent_us=int(now * 1e6),
            interval_us=int(self._interval * 1e6),
            overslept=now < self._forgive_until,
            heard_epoch=self._peer_epoch,
            heard_seq=self._newest,
            heard_bitmap=self._bitmap,
            echo_us=self._newest_sent_us,
            hold_us=max(0, int((now - self._hold_from) * 1e6)) if self.seen else 0,
        )

    def heard(self, frame: Probe, now: float) -> None:
        """A probe of the peer arrived."""
        if frame.epoch == 0 or frame.seq == 0:
            return
        if frame.epoch != self._peer_epoch:
            self._peer_started(frame, now)
        elif not self._received(frame, now):
            return
        if frame.heard_epoch == self._epoch:
            self._reported(frame, now)

    def tick(self, now: float) -> None:
        """Settle what has become certain by now."""
        self._settle_in(now)

    def overslept(self, now: float) -> None:
        """This node slept past its timer: what it missed meanwhile proves nothing."""
        self._anchor = now
        self._gap_forgiven = True
        self._forgive_until = now + 2 * self._interval
        self._unheard_out = 0
        # Forgiven is not good: what was missed may have been lost all the same.
        self.good_in = self.good_out = 0

    # -- inbound ------------------------------------------------------------------------------

    def _peer_started(self, frame: Probe, now: float) -> None:
        if self._peer_epoch:
            self.restarts += 1
        self._peer_epoch = frame.epoch
        self._peer_interval = max(frame.interval_us / 1e6, 1e-3)
        self._newest = self._settled = frame.seq
        self._bitmap = 1
        self._take_newest(frame, now)
        # Nothing that was sent before it started could have been heard by it.
        self._out_settled = self._out_newest = self._seq
        self._unheard_out = 0
        self.good_in = self.good_out = 0

    def _received(self, frame: Probe, now: float) -> bool:
        """Note an arrival; False for one that adds nothing (a duplicate, or too old)."""
        ahead = frame.seq - self._newest
        if ahead <= 0:
            bit = 1 << -ahead
            if -ahead >= _WINDOW or self._bitmap & bit:
                self.duplicates += 1
                return False
            self._bitmap |= bit
            self._settle_in(now)
            return False
        if ahead > 1 and self._gap_forgiven:
            # The socket may have overflowed while this node slept.
            self._settle_to(self._newest)
            self._settled = frame.seq - 1
        self._gap_forgiven = False
        self._bitmap = ((self._bitmap << ahead) | 1) & _MASK if ahead < _WINDOW else 1
        if ahead == 1 and now >= self._forgive_until:
            late = abs((now - self._newest_at) - self._peer_interval)
            self._deviation += (min(late, self._peer_interval) - self._deviation) / 16
        self._newest = frame.seq
        self._peer_interval = max(frame.interval_us / 1e6, 1e-3)
        self._take_newest(frame, now)
        self._settle_in(now)
        return True

    def _take_newest(self, frame: Probe, now: float) -> None:
        self._newest_at = self._anchor = self._hold_from = now
        self._newest_sent_us = frame.sent_us

    def _settle_in(self, now: float) -> None:
        if self._settled >= self._newest:
            return
        if now - self._newest_at >= self.grace:
            self._settle_to(self._newest)
            return
        self._settle_to(self._newest - _REORDER)
        # In order so far: certain at once.
        while self._settled < self._newest and (self._bitmap >> (self._newest - self._settled - 1)) & 1:
            self._settled += 1
            self._judge_in(True)

    def _settle_to(self, seq: int) -> None:
        # A gap of thousands is one fact; the detector has forgotten such a time anyway.
        if seq - self._settled > 4 * _WINDOW:
            self._settled = seq - 4 * _WINDOW
        while self._settled < seq:
            self._settled += 1
            age = self._newest - self._settled
            self._judge_in(age < _WINDOW and bool((self._bitmap >> age) & 1))

    def _judge_in(self, arrived: bool) -> None:
        self.verdicts_in.append(arrived)
        self.good_in = self.good_in + 1 if arrived else 0

    # -- outbound -----------------------------------------------------------------------------

    def _reported(self, frame: Probe, now: float) -> None:
        newest = min(frame.heard_seq, self._seq)
        if newest < self._out_newest:
            return
        self._out_newest = newest
        forgiven = frame.overslept or now < self._forgive_until
        if frame.echo_us and not forgiven:
            sample = now - frame.echo_us / 1e6 - frame.hold_us / 1e6
            if 0.0 <= sample < 60.0:
                self.rtt = sample if self.rtt is None else self.rtt + (sample - self.rtt) / 8
                self.rtts.append(sample)
                self.rtts_seen += 1
        overdue = now - (self.rtt if self.rtt is not None else self._interval) - self.grace
        self._settle_out(newest, frame.heard_bitmap, overdue)
        if forgiven:
            self._unheard_out = 0
            return
        unheard = 0
        for seq, sent in reversed(self._sent):
            if seq <= newest:
                break
            unheard += sent <= overdue
        self._unheard_out = unheard

    def _settle_out(self, newest: int, bitmap: int, overdue: float) -> None:
        if newest - self._out_settled > 4 * _WINDOW:
            self._out_settled = newest - 4 * _WINDOW
        oldest = self._sent[0][0] if self._sent else 0
        while self._out_settled < newest:
            seq = self._out_settled + 1
            age = newest - seq
            heard = age < _WINDOW and bool((bitmap >> age) & 1)
            if not heard and age < _REORDER and seq >= oldest and self._sent[seq - oldest][1] > overdue:
                return
            self._out_settled = seq
            self.verdicts_out.append(heard)
            self.good_out = self.good_out + 1 if heard else 0
