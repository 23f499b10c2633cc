"""What babeld says on its control socket, as values: a parser and the tables it fills.

Pure: no socket, no clock. A line is `{add|change|flush} {interface|neighbour|route|xroute} HANDLE
(KEY VALUE)*`; whatever else comes is counted and never raises, because the program at the other end
may be newer than this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

__all__ = ["INFINITY", "BabelState", "Change", "Interface", "Neighbour", "Route", "parse_change"]

INFINITY = 65535
"""Babel's metric of what cannot be reached."""

Verb = Literal["add", "change", "flush"]
Kind = Literal["interface", "neighbour", "route", "xroute"]
Row = TypeVar("Row")

_VERBS: Mapping[str, Verb] = {"add": "add", "change": "change", "flush": "flush"}
_KINDS: Mapping[str, Kind] = {
    "interface": "interface",
    "neighbour": "neighbour",
    "route": "route",
    "xroute": "xroute",
}
_ROWS_MAX = 10_000
_LINE_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the stream. `handle` is an address inside babeld (an interface: its name)."""

    verb: Verb
    kind: Kind
    handle: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface babeld speaks on; `up` is what `link-detect` sees, when it is on."""

    name: str
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A neighbour on one interface.

    `reach` is the history of the last sixteen hellos, `rxcost` the cost we ask of the others for
    sending to us, `txcost` the cost the neighbour asks of us, `cost` what routes over it pay.
    """

    handle: str
    address: str
    interface: str
    reach: int
    rxcost: int
    txcost: int
    cost: int

    @property
    def usable(self) -> bool:
        """Whether a route may lead over this neighbour."""
        return self.cost < INFINITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route to `prefix` that was learned; the one in force is `installed`."""

    handle: str
    prefix: str
    source: str
    installed: bool
    metric: int
    refmetric: int
    via: str
    interface: str


def parse_change(line: str) -> Change | None:
    """Read one line; None when it is no change that this program knows."""
    if len(line) > _LINE_MAX:
        return None
    words = line.split()
    if len(words) < 3 or len(words) % 2 == 0:
        return None
    verb, kind = _VERBS.get(words[0]), _KINDS.get(words[1])
    if verb is None or kind is None:
        return None
    return Change(
        verb=verb, kind=kind, handle=words[2], values=dict(zip(words[3::2], words[4::2], strict=True))
    )


@dataclass(slots=True)
class BabelState:
    """The tables of one babeld, kept up by `apply`.

    Handles are addresses inside babeld, not identities: after a flush and an add the old neighbour
    lingers beside the new one. Questions are answered by (address, interface), and the newest wins.
    """

    interfaces: dict[str, Interface] = field(default_factory=dict)
    refused: int = 0
    """Lines that could not be read, or for which there was no room."""
    _neighbours: dict[str, Neighbour] = field(default_factory=dict)
    _routes: dict[str, Route] = field(default_factory=dict)
    _xroutes: dict[str, str] = field(default_factory=dict)

    def feed(self, lines: Iterable[str]) -> None:
        """Read and apply lines."""
        for line in lines:
            change = parse_change(line)
            if change is None or not self.apply(change):
                self.refused += 1

    def apply(self, change: Change) -> bool:
        """Bring the tables up to date; False when the change lacks what it must say."""
        try:
            match change.kind:
                case "interface":
                    return _keep(self.interfaces, change, _interface)
                case "neighbour":
                    return _keep(self._neighbours, change, _neighbour)
                case "route":
                    return _keep(self._routes, change, _route)
                case "xroute":
                    return _keep(self._xroutes, change, _xroute)
        except (KeyError, ValueError):
            return False

    def neighbours(self) -> dict[tuple[str, str], Neighbour]:
        """The neighbours by (address, interface), the newest of each."""
        # A row that changes moves to the end of its table, so that the last one seen is the newest.
        return {(row.address, row.interface): row for row in self._neighbours.values()}

    def neighbour_on(self, interface: str) -> Neighbour | None:
        """The newest neighbour on a link with two ends."""
        found = None
        for row in self._neighbours.values():
            if row.interface == interface:
                found = row
        return found

    def routes(self) -> tuple[Route, ...]:
        """Every route, installed or not."""
        return tuple(self._routes.values())

    def installed(self) -> dict[str, Route]:
        """The routes in force that can be used, by prefix."""
        return {row.prefix: row for row in self._routes.values() if row.installed and row.metric < INFINITY}

    def own_prefixes(self) -> tuple[str, ...]:
        """The prefixes this babeld announces as its own."""
        return tuple(self._xroutes.values())


def _keep(table: dict[str, Row], change: Change, read: Callable[[Change], Row]) -> bool:
    if change.verb == "flush":
        table.pop(change.handle, None)
        return True
    row = read(change)
    if change.handle not in table and len(table) >= _ROWS_MAX:
        return False
    # Re-inserted rather than replaced: the order of the table is the order of what was seen last.
    table.pop(change.handle, None)
    table[change.handle] = row
    return True


def _interface(change: Change) -> Interface:
    return Interface(name=change.handle, up=change.values["up"] == "true")


def _neighbour(change: Change) -> Neighbour:
    values = change.values
    return Neighbour(
        handle=change.handle,
        address=values["address"],
        interface=values["if"],
        reach=int(values["reach"], 16),
        rxcost=int(values["rxcost"]),
        txcost=int(values["txcost"]),
        cost=int(values["cost"]),
    )


def _route(change: Change) -> Route:
    values = change.values
    return Route(
        handle=change.handle,
        prefix=values["prefix"],
        source=values["from"],
        installed=values["installed"] == "yes",
        metric=int(values["metric"]),
        refmetric=int(values["refmetric"]),
        via=values["via"],
        interface=values["if"],
    )


def _xroute(change: Change) -> str:
    return change.values["prefix"]
