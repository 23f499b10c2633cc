"""The document as values: what stands on the shelves of all lives of a node, taken together.

Pure: it is told what stands where, and says which values that changed. Outcomes are added up over the lives
of a node, of facts and goals the highest number holds, and an incident that stands twice is there once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mapek_runtime.loop.knowledge import Goal, Incident

from .entries import (
    Counts,
    Entry,
    FactEntry,
    GoalEntry,
    IncidentEntry,
    Key,
    Kind,
    Shelf,
    decode,
    goal_of,
    incident_of,
    shelf_of,
)

__all__ = ["Standing", "Value", "View"]

Value = Incident | tuple[int, int] | Goal | bool | int | float | str
"""An incident, (successes, failures), a goal, or the value of a fact, by the kind of its key."""

_MOST_NODES = 1000


@dataclass(slots=True)
class Standing:
    """One shelf and the entries on it."""

    shelf: Shelf
    name: str
    entries: dict[str, Entry] = field(default_factory=dict)


class View:
    """Every value by its key; whoever changes the document tells it what was touched, then calls `settle`."""

    def __init__(self) -> None:
        self.values: dict[Key, Value] = {}
        self.sizes: Counter[Kind] = Counter()
        """How many values there are of each kind."""
        self.ignored: Counter[str] = Counter()
        """What was passed over, by reason: `shelf`, `nodes`, or the kind of an entry that is not one."""
        self._shelves: dict[tuple[Kind, str], Standing] = {}
        self._of_node: dict[tuple[Kind, str], dict[str, Standing]] = {}
        self._nodes: Counter[str] = Counter()
        self._touched: dict[Key, None] = {}

    def shelves(self, kind: Kind, node: str | None = None) -> Iterable[Standing]:
        """The shelves of a kind, all of them or those of one node."""
        if node is not None:
            return tuple(self._of_node.get((kind, node), {}).values())
        return tuple(standing for (each, _), standing in self._shelves.items() if each == kind)

    def nodes(self) -> Iterable[str]:
        """The nodes that have a shelf."""
        return tuple(self._nodes)

    def goal(self, name: str) -> Goal | None:
        """The goal that holds among all nodes."""
        goals = (self.values.get(("goals", node, name)) for node in self._nodes)
        found = [goal for goal in goals if isinstance(goal, Goal)]
        return max(found, key=lambda goal: (goal.number, goal.author), default=None)

    def set_shelf(self, kind: Kind, name: str, entries: Iterable[tuple[str, object]] | None) -> None:
        """What stands on a shelf now; None: there is no such shelf any more."""
        before = self._shelves.pop((kind, name), None)
        if before is not None:
            node = before.shelf.node
            self._touched.update(((kind, node, key), None) for key in before.entries)
            of_node = self._of_node[kind, node]
            del of_node[name]
            if not of_node:
                del self._of_node[kind, node]
            self._nodes[node] -= 1
            if not self._nodes[node]:
                del self._nodes[node]
        if entries is None:
            return
        shelf = shelf_of(name)
        if shelf is None or (shelf.node not in self._nodes and len(self._nodes) >= _MOST_NODES):
            self.ignored["shelf" if shelf is None else "nodes"] += 1
            return
        standing = Standing(shelf, name)
        self._shelves[kind, name] = standing
        self._of_node.setdefault((kind, shelf.node), {})[name] = standing
        self._nodes[shelf.node] += 1
        for key, value in entries:
            self._set(standing, key, kind, value)

    def set_entry(self, kind: Kind, name: str, key: str, value: object) -> None:
        """What stands under a key of a shelf now; None: nothing."""
        standing = self._shelves.get((kind, name))
        if standing is not None:
            self._set(standing, key, kind, value)

    def settle(self) -> dict[Key, Value | None]:
        """The values that really are others than before; None for those that are gone."""
        changes: dict[Key, Value | None] = {}
        for key in self._touched:
            before, now = self.values.get(key), self._value(key)
            if _is_same(before, now):
                continue
            changes[key] = now
            if now is None:
                del self.values[key]
            else:
                self.values[key] = now
            self.sizes[key[0]] += (now is not None) - (before is not None)
        self._touched.clear()
        return changes

    def _set(self, standing: Standing, key: str, kind: Kind, value: object) -> None:
        node = standing.shelf.node
        entry = None if value is None else decode(kind, node, key, value)
        if entry is not None:
            standing.entries[key] = entry
        else:
            self.ignored[kind] += value is not None
            standing.entries.pop(key, None)
        self._touched[kind, node, key] = None

    def _value(self, key: Key) -> Value | None:
        kind, node, name = key
        standings = self._of_node.get((kind, node), {}).values()
        found = [(each.name, entry) for each in standings if (entry := each.entries.get(name)) is not None]
        if not found:
            return None
        if kind == "outcomes":
            counts = [entry for _, entry in found if isinstance(entry, Counts)]
            return sum(each.successes for each in counts), sum(each.failures for each in counts)
        _, entry = found[0] if len(found) == 1 else max(found, key=_rank)
        match entry:
            case IncidentEntry():
                return incident_of(entry, node)
            case FactEntry():
                return entry.value
            case GoalEntry():
                return goal_of(name, entry, node)
        return None


def _rank(found: tuple[str, Entry]) -> tuple[int, str]:
    """The higher number holds; of equal ones, and of incidents, any, but everywhere the same."""
    name, entry = found
    return entry.number if isinstance(entry, FactEntry | GoalEntry) else 0, name


def _is_same(a: Value | None, b: Value | None) -> bool:
    if isinstance(a, Goal) and isinstance(b, Goal):
        return a == b and type(a.value) is type(b.value)
    # True is not 1, and 1 is not 1.0.
    return type(a) is type(b) and a == b
