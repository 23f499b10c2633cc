"""The live view: links, routes, nodes, faults and repairs on a terminal.

The picture is gathered on the loop, where everything it reads lives, and drawn in a thread, at most
four times a second: drawing takes milliseconds, and a terminal may not read at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mapek_runtime.loop import FaultInjector, FaultReport, LinkView, RuntimeStatistics, Topology

from .output import describe_event
from .summary import Summary, percentile

__all__ = ["LiveView", "Picture", "Watched", "draw", "look"]

_REFRESH = 0.25
_EVENTS = 12
_MOST_ROUTED = 8
_STYLES = {"up": "green", "drained": "yellow", "down": "red"}


class Watched(Protocol):
    """What the view needs of a run."""

    page: str
    """The address of the page; empty where nothing is served."""

    def elapsed(self) -> float:
        """Seconds since the run began."""

    def topologies(self) -> Sequence[Topology]:
        """Who is connected to whom."""

    def injectors(self) -> Sequence[FaultInjector]:
        """Who makes faults."""

    def statistics(self) -> Mapping[str, RuntimeStatistics]:
        """The counts of each node's loop."""

    def leader(self) -> str:
        """The node that leads; empty while none does."""

    def loop_lag_ms(self) -> Mapping[str, float]:
        """How late the event loop was: median, p99 and max."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is true at one moment; values only, so that any thread may draw it."""

    elapsed: float
    title: str
    page: str = ""
    links: tuple[LinkView, ...] = ()
    nodes: Mapping[str, tuple[bool, RuntimeStatistics]]
    routes: Mapping[tuple[str, str], tuple[str, ...]]
    reports: tuple[FaultReport, ...] = ()
    events: tuple[str, ...] = ()
    leader: str = ""
    lag_ms: float = 0.0


class LiveView:
    """Draws a run until it ends; an `Output`."""

    def __init__(self, watched: Watched, console: Console, title: str) -> None:
        self._watched = watched
        self._title = title
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Show one line among the newest."""
        self._events.append(f"{self._watched.elapsed():8.2f}  {describe_event(name, fields)}")

    async def run(self) -> None:
        """Draw until cancelled, or until the terminal is gone: the loops run with or without one."""
        with suppress(OSError):
            await self._run()

    async def _run(self) -> None:
        self._live.start()
        try:
            while True:
                picture = look(self._watched, self._title, tuple(self._events))
                await asyncio.to_thread(self._draw, picture)
                await asyncio.sleep(_REFRESH)
        finally:
            self._live.stop()

    async def finish(self, summary: Summary) -> None:
        """Leave the last events and the summary on the terminal."""
        with suppress(OSError):
            for line in (*self._events, *summary.lines()):
                self._console.print(line, markup=False, highlight=False)

    def _draw(self, picture: Picture) -> None:
        self._live.update(draw(picture), refresh=True)


def look(watched: Watched, title: str, events: tuple[str, ...]) -> Picture:
    """Gather what is true now; only on the loop's own thread."""
    statistics = watched.statistics()
    topologies = watched.topologies()
    alive: dict[str, bool] = {}
    for topology in topologies:
        alive |= topology.alive()
    shown = sorted(alive)[:_MOST_ROUTED]
    routes = {
        (source, destination): tuple(topology.route(source, destination))
        for topology in topologies
        for source in shown
        if alive[source] and source in statistics
        for destination in shown
        if source != destination
    }
    zero = RuntimeStatistics(*[0] * len(RuntimeStatistics._fields))
    return Picture(
        elapsed=watched.elapsed(),
        title=title,
        page=watched.page,
        links=tuple(link for topology in topologies for link in topology.links()),
        nodes={
            name: (alive.get(name, True), statistics.get(name, zero))
            for name in sorted({*alive, *statistics})
        },
        routes=routes,
        reports=tuple(injector.report() for injector in watched.injectors()),
        events=events,
        leader=watched.leader(),
        lag_ms=watched.loop_lag_ms()["p99"],
    )


def draw(picture: Picture) -> RenderableType:
    """The picture as a terminal shows it."""
    parts: list[RenderableType] = [_headline(picture)]
    columns = Table.grid(padding=(0, 2))
    columns.add_row(
        _links(picture.links), Group(_nodes(picture.nodes, picture.leader), _routes(picture.routes))
    )
    parts.append(columns)
    parts.append(
        Panel(Text("\n".join(picture.events) or "nothing yet"), title="what happened", title_align="left")
    )
    if picture.page:
        parts.append(Text.assemble("page  ", (picture.page, f"link {picture.page}")))
    return Group(*parts)


def _headline(picture: Picture) -> Text:
    cycles = sum(statistics.cycles for _, statistics in picture.nodes.values())
    actions = sum(statistics.actions for _, statistics in picture.nodes.values())
    words = [picture.title, f"{picture.elapsed:.0f} s", f"{cycles} cycles", f"{actions} actions"]
    injected = sum(report.injected for report in picture.reports)
    if injected:
        repairs = [s * 1000 for report in picture.reports for s in report.repair_seconds]
        median = percentile(repairs, 0.5)
        words.append(f"{injected} faults, {sum(report.healed for report in picture.reports)} healed")
        if median is not None:
            words.append(f"repaired in {median:.0f} ms (median)")
        words.append(f"{sum(report.wrong_actions for report in picture.reports)} wrong actions")
    sent = sum(report.sent for report in picture.reports)
    if sent:
        delivered = sum(report.delivered for report in picture.reports)
        words.append(f"{delivered / sent:.2%} of {sent} messages delivered")
    words.append(f"loop lag {picture.lag_ms:.1f} ms (p99)")
    return Text("  ·  ".join(words), style="bold")


def _links(links: tuple[LinkView, ...]) -> Table:
    table = Table("link", "state", "loss", "rtt", "fault", title="links", title_justify="left")
    for link in links:
        table.add_row(
            f"{link.a} - {link.b}",
            Text(link.state, style=_STYLES.get(link.state, "")),
            f"{link.loss:.0%}" if link.loss else "",
            f"{link.rtt * 1000:.2f} ms" if link.rtt else "",
            Text(link.fault, style="red"),
        )
    return table


def _nodes(nodes: Mapping[str, tuple[bool, RuntimeStatistics]], leader: str) -> Table:
    table = Table("node", "", "cycles", "failed", "actions", "refused", title="loops", title_justify="left")
    for name, (alive, statistics) in nodes.items():
        table.add_row(
            name,
            Text("leads" if name == leader else "runs", style="green")
            if alive
            else Text("crashed", style="red"),
            str(statistics.cycles),
            str(statistics.failed),
            str(statistics.actions),
            str(statistics.rejected),
        )
    return table


def _routes(routes: Mapping[tuple[str, str], tuple[str, ...]]) -> Table:
    names = sorted({name for pair in routes for name in pair})
    table = Table("from", *[_short(name) for name in names], title="routes", title_justify="left")
    for source in names:
        cells: list[str] = []
        for destination in names:
            path = routes.get((source, destination))
            if source == destination or path is None:
                cells.append("")
            elif not path:
                cells.append("none")
            else:
                cells.append("direct" if len(path) == 2 else "via " + ",".join(_short(n) for n in path[1:-1]))
        table.add_row(source, *cells)
    return table


def _short(name: str) -> str:
    return name.removeprefix("node-")
