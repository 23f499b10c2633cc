"""What is beyond the caps, and its deletion.

The same for every replica in the same state, so that it does not matter who deletes, nor how many do.
"""

from __future__ import annotations

from collections.abc import Iterable

from pycrdt import Map

from .entries import Entry, IncidentEntry
from .shelves import SEGMENT, Roots
from .view import Standing, View

__all__ = ["ended", "oldest", "trim_facts", "trim_incidents"]

_SLACK = 64


def ended(entry: Entry | None) -> float:
    """When an incident was closed, in Unix seconds; 0 for what is none."""
    if not isinstance(entry, IncidentEntry):
        return 0.0
    return entry.opened if entry.closed is None else entry.closed


def oldest(view: View) -> float:
    """When the first incident of all was closed; 0 where there is none."""
    return min((_first(standing) for standing in view.shelves("incidents")), default=0.0)


def trim_incidents(roots: Roots, view: View, most: int) -> set[str]:
    """Delete the shelves whose last incident is the oldest, as long as `most` incidents are left.

    Returns the names of those that are deleted.
    """
    total = view.sizes["incidents"]
    deleted: set[str] = set()
    if total < most + SEGMENT:
        return deleted
    for standing in sorted(view.shelves("incidents"), key=lambda each: (_last(each), each.name)):
        if total - len(standing.entries) < most:
            break
        total -= len(standing.entries)
        deleted.add(standing.name)
        if standing.name in roots["incidents"]:
            del roots["incidents"][standing.name]
    return deleted


def trim_facts(roots: Roots, view: View, most: int) -> set[tuple[str, str]]:
    """Delete the facts that come last by their names; returns (shelf, key) of those that are deleted."""
    deleted: set[tuple[str, str]] = set()
    if view.sizes["facts"] <= most + _SLACK:
        return deleted
    for _, node, key in sorted(_facts(view), key=lambda each: (each[2], each[1]))[most:]:
        for standing in view.shelves("facts", node):
            shelf = roots["facts"].get(standing.name)
            if isinstance(shelf, Map) and key in standing.entries and key in shelf:
                del shelf[key]
                deleted.add((standing.name, key))
    return deleted


def _facts(view: View) -> Iterable[tuple[str, str, str]]:
    return [key for key in view.values if key[0] == "facts"]


def _first(standing: Standing) -> float:
    return min((ended(entry) for entry in standing.entries.values()), default=0.0)


def _last(standing: Standing) -> float:
    return max((ended(entry) for entry in standing.entries.values()), default=0.0)
