"""One trial of `benchmarks.mesh`: a fresh lab, one fault on the path in use, and a ping that tells."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

from mapek_domains.mesh.babel.control import BabelControl
from mapek_domains.mesh.babel.loops import BabelLoops
from mapek_domains.mesh.babel.protocol import BabelState
from mapek_domains.mesh.engine import link_id
from mapek_domains.mesh.lab import BabelSettings, Lab
from mapek_domains.mesh.lab.namespace import command

__all__ = ["FAULTS", "PING_INTERVAL", "Trial", "run_trial"]

FAULTS = ("silent", "carrier", "loss")
PING_INTERVAL = 0.02
PROBE_INTERVAL = 0.02
LOSS = 0.6
_SOURCE, _DESTINATION = "n1", "n6"
_WATCH_LEAST, _WATCH_MOST = 2.5, 15.0
_CALM = 1.0
_ANSWER = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .* icmp_seq=(\d+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one trial measured; seconds.

    `outage` is the longest gap between two answers, `disturbed` the time from the fault to the last
    ping that was lost, `restored` whether pings were answered without loss again in the end.
    """

    fault: str
    link: str
    outage: float
    disturbed: float
    restored: bool
    drains: tuple[str, ...]
    wrong_drains: int
    bytes_per_link: float
    """A second, both directions, before the fault and without the ping."""


class _Ping:
    """The system's own ping from the first node to the last, read as it answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.answers: list[tuple[float, int]] = []
        self._answered = asyncio.Event()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            found = _ANSWER.match(line.decode())
            if found:
                self.answers.append((float(found[1]), int(found[2])))
                self._answered.set()

    async def settle(self, *, least: float, most: float) -> None:
        """Wait until answers come without loss, for at least and at most so long."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < least or (waited < most and not self.calm()):
            self._answered.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._answered.wait()

    def gaps(self, since: float) -> list[float]:
        """The gaps between answers, from the last answer before `since`; the open one included."""
        before = [at for at, _ in self.answers if at < since][-1:]
        times = [*before, *(at for at, _ in self.answers if at >= since), time.time()]
        return [b - a for a, b in pairwise(times)]

    def last_lost(self) -> float | None:
        """When the first answer after the last lost ping came."""
        pairs = pairwise(self.answers)
        return max((at for (_, n), (at, m) in pairs if m != n + 1), default=None)

    def calm(self) -> bool:
        """Whether the last second was answered without a loss."""
        now = time.time()
        recent = [answer for answer in self.answers if answer[0] > now - _CALM]
        whole = bool(recent) and recent[-1][1] - recent[0][1] == len(recent) - 1
        return whole and recent[0][0] < now - _CALM + 0.1 and recent[-1][0] > now - 0.1


async def run_trial(settings: BabelSettings, fault: str, *, loop: bool, number: int) -> Trial:
    """Build a lab, wait until it has converged, break a link of the path in use, and watch."""
    async with Lab(settings=settings) as lab, _maybe(lab, loop) as loops, _states(lab) as states:
        await _converged(lab, states)
        before, began = await asyncio.to_thread(_bytes, lab), time.monotonic()
        # A full update more, so that every node knows the alternatives as well.
        await asyncio.sleep(settings.update + 1.0)
        idle = (await asyncio.to_thread(_bytes, lab) - before) / (time.monotonic() - began)
        async with _ping(lab) as ping:
            await ping.settle(least=_CALM, most=_WATCH_MOST)
            # Requests and answers may take different ways; every hop of both has its turn.
            ends = (_SOURCE, _DESTINATION) if number % 2 == 0 else (_DESTINATION, _SOURCE)
            path = _path(lab, states, *ends)
            hop = number % (len(path) - 1)
            near, far = path[hop], path[hop + 1]
            link = link_id(near, far)
            await _break(lab, fault, link, far)
            injected = time.time()
            await ping.settle(least=_WATCH_LEAST, most=_WATCH_MOST)
            outage = max(ping.gaps(injected - 0.05))
            lost = ping.last_lost()
            drains = loops.carried_out("drain") if loops is not None else ()
            return Trial(
                fault=fault,
                link=link,
                outage=outage,
                disturbed=max(0.0, lost - injected) if lost is not None else 0.0,
                restored=ping.calm(),
                drains=tuple(f"{drained} by {node}" for node, drained in drains),
                wrong_drains=sum(drained != link for _, drained in drains),
                bytes_per_link=idle / len(lab.topology.links),
            )


async def _break(lab: Lab, fault: str, link: str, end: str) -> None:
    if fault == "silent":
        await lab.drop(link, towards=end)
    elif fault == "loss":
        await lab.drop(link, towards=end, share=LOSS)
    else:
        await lab.cut(link, at=end)


@asynccontextmanager
async def _maybe(lab: Lab, loop: bool) -> AsyncIterator[BabelLoops | None]:
    if not loop:
        yield None
        return
    async with BabelLoops(lab, probe_interval=PROBE_INTERVAL) as loops:
        yield loops


@asynccontextmanager
async def _states(lab: Lab) -> AsyncIterator[dict[str, BabelControl]]:
    controls = {node: BabelControl(daemon.socket) for node, daemon in lab.daemons.items()}
    async with asyncio.TaskGroup() as group:
        follows = []
        try:
            for control in controls.values():
                await control.open()
                follows.append(group.create_task(control.follow()))
            yield controls
        finally:
            for follow in follows:
                follow.cancel()
            for control in controls.values():
                await control.aclose()


async def _converged(lab: Lab, states: dict[str, BabelControl]) -> None:
    others = len(lab.topology.nodes) - 1

    def whole(tables: BabelState) -> bool:
        return sum(lab.topology.node_of(prefix) is not None for prefix in tables.installed()) == others

    async with asyncio.timeout(30):
        for control in states.values():
            await control.until(whole)


def _path(lab: Lab, states: dict[str, BabelControl], source: str, destination: str) -> list[str]:
    path = [source]
    prefix = f"{lab.topology.identity(destination)}/32"
    while path[-1] != destination:
        path.append(states[path[-1]].state.installed()[prefix].interface.removeprefix("to-"))
    return path


@asynccontextmanager
async def _ping(lab: Lab) -> AsyncIterator[_Ping]:
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", lab.namespace(_SOURCE), "ping", "-n", "-D", "-i", str(PING_INTERVAL)),
        *("-I", lab.topology.identity(_SOURCE), lab.topology.identity(_DESTINATION)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    ping = _Ping(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(ping.read())
        try:
            yield ping
        finally:
            process.send_signal(signal.SIGINT)
            await process.wait()


def _bytes(lab: Lab) -> int:
    """What all interfaces of the lab have sent so far."""
    total = 0
    for node in lab.topology.nodes:
        for interface in json.loads(command("ip", "-n", lab.namespace(node), "-s", "-j", "link")):
            if interface["ifname"] != "lo":
                total += int(interface["stats64"]["tx"]["bytes"])
    return total
