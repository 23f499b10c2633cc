"""The probed links of one Babel node: one timer sends on all of them, notices its own oversleeping,
and raises the alarm when a link begins to look bad.

Knows sockets and the clock, not babeld.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mapek_domains.mesh.detect import Normal
from mapek_domains.mesh.engine import LinkReading, link_id
from mapek_domains.mesh.meter import LinkMeter
from mapek_domains.mesh.probe import Probe

from .advert import Advert, encode
from .sockets import LinkSockets

__all__ = ["BabelLink", "ProbedLinks"]

_STALL_INTERVALS = 1.5
_STALL_MEMORY = 1.0
_REMIND = 0.1
"""Seconds after which a link that is still bad and still in use raises the alarm again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BabelLink:
    """One link of a node."""

    peer: str
    interface: str
    peer_address: str


class ProbedLinks:
    """Probes from the moment it is made; call `tick` in a loop with `due`, and `close` at the end.

    `advert` is called with each advert and the peer it came over, `stalled` with the seconds this
    node overslept, `alarm` with the name of a link that is bad while `in_use` says that it carries
    traffic.
    """

    def __init__(
        self,
        node_id: str,
        links: Sequence[BabelLink],
        sockets: Mapping[str, socket.socket],
        *,
        interval: float,
        normals: Mapping[str, tuple[Normal, Normal]],
        advert: Callable[[str, Advert], None],
        stalled: Callable[[float], None],
        in_use: Callable[[str], bool],
        alarm: Callable[[str], None],
    ) -> None:
        now = time.monotonic()
        self._names = {link.peer: link_id(node_id, link.peer) for link in links}
        self._interval = interval
        self._advert = advert
        self._stalled = stalled
        self._in_use = in_use
        self._alarm = alarm
        self._alarmed_at: dict[str, float] = {}
        self._stalls: list[tuple[float, float]] = []
        self._ticked_at = self._due = now
        self._meters = {
            name: LinkMeter(
                name,
                peer,
                epoch=secrets.randbelow(0xFFFF_FFFE) + 1,
                now=now,
                interval=interval,
                normal=normals.get(name),
            )
            for peer, name in self._names.items()
        }
        addresses = {link.peer: link.peer_address for link in links}
        self.sockets = LinkSockets(
            {peer: (made, addresses[peer]) for peer, made in sockets.items()}, self._heard
        )

    @property
    def normals(self) -> dict[str, tuple[Normal, Normal]]:
        """What is usual on each link."""
        return {name: meter.normal for name, meter in self._meters.items()}

    def readings(self, *, drained_here: set[str], peers_alive: Mapping[str, bool]) -> tuple[LinkReading, ...]:
        """Every link as it stands."""
        now = time.monotonic()
        self._notice_stall(now)
        return tuple(
            meter.reading(
                now,
                drained=not self._in_use(name),
                drained_here=name in drained_here,
                peer_alive=peers_alive.get(meter.peer, False),
            )
            for name, meter in self._meters.items()
        )

    def overslept(self) -> float:
        """The longest oversleep of the last second."""
        now = time.monotonic()
        self._notice_stall(now)
        self._stalls = [(at, late) for at, late in self._stalls if now - at < _STALL_MEMORY]
        return max((late for _, late in self._stalls), default=0.0)

    def send_all(self, datagram: bytes, *, but: str = "") -> None:
        """Send over every link, except to one peer."""
        for peer in self._names:
            if peer != but:
                self.sockets.send(peer, datagram)

    async def tick(self) -> None:
        """Wait for the next interval, then probe every link."""
        await asyncio.sleep(self._due - time.monotonic())
        now = time.monotonic()
        self._notice_stall(now)
        self._ticked_at = now
        # What was slept through is not made up for: a burst of probes would measure itself.
        self._due = max(self._due + self._interval, now)
        for name, meter in self._meters.items():
            self.sockets.send(meter.peer, encode(meter.next_probe(now)))
            self._watch(name, meter, now)

    def close(self) -> None:
        """Close the sockets."""
        self.sockets.close()

    def _heard(self, peer: str, frame: Probe | Advert) -> None:
        if isinstance(frame, Advert):
            self._advert(peer, frame)
            return
        now = time.monotonic()
        # Before the probes that waited in the socket are judged.
        self._notice_stall(now)
        name = self._names[peer]
        self._meters[name].heard(frame, now)
        self._watch(name, self._meters[name], now)

    def _notice_stall(self, now: float) -> None:
        """When this node slept past its timer, nothing it missed meanwhile is a link's fault."""
        late = now - self._ticked_at - self._interval
        if late <= _STALL_INTERVALS * self._interval:
            return
        for meter in self._meters.values():
            meter.overslept(now)
        self._stalls.append((now, late))
        # Counted once: the next look measures from here.
        self._ticked_at = now
        self._stalled(late)

    def _watch(self, name: str, meter: LinkMeter, now: float) -> None:
        if not meter.alarmed(now):
            self._alarmed_at.pop(name, None)
            return
        if now - self._alarmed_at.get(name, -_REMIND) < _REMIND or not self._in_use(name):
            return
        # The rules that Analyze will apply, or the cycle would find nothing.
        if meter.alarming(now):
            self._alarmed_at[name] = now
            self._alarm(name)
