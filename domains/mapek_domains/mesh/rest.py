"""How long a drained link shall rest: what a loop above the mesh's own wants, and what other nodes saw.

Pure. By itself a link rests as `LinkState` says; the goal `mesh.cool_down LINK` can only lengthen that, and
so can drains of other links of its ends: where one node's links fail one after another, it is the node that
is sick. Its neighbours can see that only where they share what they know: each has but one of its links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .engine import link_id

__all__ = [
    "COOL_DOWN",
    "DRAINED_AT",
    "LONGEST",
    "USUAL",
    "goal_of",
    "least_rest",
    "link_of",
    "rest_of_the_sick",
    "seconds",
]

DRAINED_AT = "mesh.drained_at."
"""The fact, followed by the link: when it was drained last, in Unix seconds of whoever drained it."""

COOL_DOWN = "mesh.cool_down"
"""The goal, followed by a blank and the link: seconds that it rests at least when it is drained."""
USUAL = 5.0
"""What a link rests at first where nobody wants otherwise, as `LinkState` has it."""
LONGEST = 300.0
"""What a link rests at most, whatever is wanted."""

_LATELY = 60.0
_ASKEW = 5.0
"""Seconds by which the clocks of two nodes may differ."""
_LONGEST_SICK = 60.0
_SPARE = 2
"""Other ways that each end of a link has while the link rests longer than by itself."""


def goal_of(link: str) -> str:
    """The name of the goal for a link."""
    return f"{COOL_DOWN} {link}"


def link_of(goal: str) -> str:
    """The link that a goal is for; empty for another goal."""
    kind, _, link = goal.partition(" ")
    return link if kind == COOL_DOWN else ""


def seconds(value: object) -> float:
    """The rest that is wanted; 0 for what is no such number. Whoever can send to a node can set a goal."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0.0
    return min(float(value), LONGEST)


def least_rest(wanted: object, link: str, edges: Iterable[tuple[str, str]]) -> float:
    """Seconds that a link rests at least when it is drained; `edges` are the links in use.

    What is wanted does not count while an end of the link has fewer than two other ways: the next fault
    would cut it off.
    """
    rest = seconds(wanted)
    if not rest:
        return 0.0
    ways = Counter(end for edge in edges if link_id(*edge) != link for end in edge)
    return rest if min(ways[end] for end in link.split("~")) >= _SPARE else 0.0


def rest_of_the_sick(link: str, drained_at: Mapping[str, object], now: float) -> float:
    """Seconds that a link rests at least, by when other links were drained, in Unix seconds; 0 without any.

    Doubled for each other link of its sicker end that was drained within the last minute. What is no time
    does not count: it came from other nodes.
    """
    lately = [
        other
        for other, at in drained_at.items()
        if other != link
        and isinstance(at, int | float)
        and not isinstance(at, bool)
        and -_ASKEW <= now - at <= _LATELY
    ]
    most = max(sum(end in other.split("~") for other in lately) for end in link.split("~"))
    return min(USUAL * 2.0 ** min(most, 8), _LONGEST_SICK) if most else 0.0
