"""When links have failed, by what all nodes have done about it.

Pure: incidents and times go in. Both ends of a link may have acted on one failure, and what happened to a
node happens to all of its links.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mapek_runtime.loop.knowledge import Incident

__all__ = ["ONE_FAILURE", "Failures"]

ONE_FAILURE = 2.5
"""Seconds within which what two nodes have opened is one failure of their link: less than any cool-down."""
_OF_A_NODE = 5.0
"""Seconds around the death of a node within which its links are silent because of it."""


class Failures:
    """When each link has failed, by what the incidents of all nodes say of the recent past.

    A link has failed when a node drained it, whatever was found, and not because the node at its other end
    had died. An incident counts from when it was first seen here, because clocks of hosts differ; what was
    opened long before counts not at all, such as what a node tells that was cut off. Both ends of a link
    may have acted on one failure.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._seen: dict[tuple[str, str, float], float] = {}
        self.links: dict[str, tuple[float, ...]] = {}
        """When each link has failed within `longest` seconds, in Unix time."""
        self.last: dict[str, float] = {}
        """When a failure of each link was last heard of, on the clock of the loop."""

    def look(self, incidents: Iterable[Incident], *, now: float, unix: float) -> None:
        """Take in what is known now; `now` is the loop's clock, `unix` the Unix time."""
        known = tuple(incidents)
        deaths: dict[str, list[float]] = {}
        for each in known:
            if each.action == "restart":
                deaths.setdefault(each.target, []).append(each.opened)
        seen: dict[tuple[str, str, float], float] = {}
        opened: dict[str, list[float]] = {}
        for each in known:
            if each.action != "drain":
                continue
            key = (each.node, each.target, each.opened)
            first = seen[key] = self._seen.get(key, now)
            if now - first >= self._longest or unix - each.opened >= 2 * self._longest:
                continue
            ends = (at for end in each.target.split("~") for at in deaths.get(end, ()))
            if all(abs(each.opened - at) > _OF_A_NODE for at in ends):
                opened.setdefault(each.target, []).append(each.opened)
                self.last[each.target] = max(first, self.last.get(each.target, first))
        self._seen = seen
        self.last = {link: at for link, at in self.last.items() if now - at < 2 * self._longest}
        self.links = {link: _apart(sorted(times)) for link, times in sorted(opened.items())}

    def newest(self, link: str) -> float:
        """When the link last failed, in Unix time."""
        times = self.links.get(link)
        return times[-1] if times else -math.inf

    def since(self, link: str, unix: float) -> int:
        """How often the link has failed since."""
        return sum(at >= unix for at in self.links.get(link, ()))


def _apart(times: Sequence[float]) -> tuple[float, ...]:
    """Of these times in order, those that are not of the same failure as the one before."""
    kept: list[float] = []
    for at in times:
        if not kept or at - kept[-1] >= ONE_FAILURE:
            kept.append(at)
    return tuple(kept)
