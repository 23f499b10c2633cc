"""What one life of a node writes into the document: onto its own shelves, and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from mapek_runtime.loop.knowledge import Goal, Incident

from .clearing import ended, oldest, trim_facts, trim_incidents
from .entries import (
    KINDS,
    Counts,
    Entry,
    FactEntry,
    GoalEntry,
    IncidentEntry,
    Kind,
    decode,
    encode,
    incident_id,
    outcome_key,
    shelf_of,
)
from .shelves import SEGMENT, OwnShelf, Roots
from .view import Standing, View

__all__ = ["Author", "Batch"]

_MOST_OUTCOMES = 2000
_MOST_LIVES = 4
"""Earlier lives of a node whose shelves are left as they are."""
_CONTESTS = 3
_WRITTEN_OVER: tuple[Kind, ...] = ("outcomes", "facts", "goals")
Plain = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a node has learned since it last wrote; incidents of an `earlier` life are not counted again."""

    closed: Sequence[Incident] = ()
    earlier: Sequence[Incident] = ()
    facts: Mapping[str, Plain] = field(default_factory=dict)
    goals: Mapping[str, Goal] = field(default_factory=dict)


class Author:
    """Writes for one life of `node`; at most `incidents` and `facts` of all nodes are kept."""

    def __init__(self, node: str, life: str, view: View, *, incidents: int, facts: int) -> None:
        self.node = node
        self.life = life
        self.left_out: Counter[Kind] = Counter()
        """What was not written, by kind: it does not fit, or there are too many."""
        self._view = view
        self._most_incidents = incidents
        self._most_facts = facts
        self._shelves = {kind: OwnShelf(kind, life, node) for kind in KINDS}
        self._outcomes: dict[str, Counts] = {}
        self._lost: set[Kind] = set()
        self._spoilt: set[tuple[Kind, str]] = set()
        self._others: set[str] = set()
        self._contests: Counter[str] = Counter()

    @property
    def is_restless(self) -> bool:
        """Whether something is to be written although nothing was learned."""
        return bool(self._lost or self._spoilt or self._others)

    @property
    def twins(self) -> int:
        """Other lives of this node that go on writing: processes that have its name."""
        return sum(count > _CONTESTS for count in self._contests.values())

    # What others have done to the document

    def moved(self, kind: Kind, name: str, *, is_there: bool) -> None:
        """A shelf came or went."""
        if name == self._shelves[kind].name:
            self._lost.add(kind)
        elif is_there:
            self._heard_of(kind, name)

    def rewritten(self, kind: Kind, name: str, key: str, value: object) -> None:
        """An entry of a shelf was written or deleted."""
        shelf = self._shelves[kind]
        if name != shelf.name:
            self._heard_of(kind, name)
        elif value is None:
            # It was beyond a cap.
            shelf.entries.pop(key, None)
        elif value != shelf.entries.get(key):
            self._spoilt.add((kind, key))

    # Writing

    def write(self, roots: Roots, batch: Batch, *, adopt: bool) -> None:
        """Write a batch, mend what others have spoilt, and clear away; inside a transaction."""
        self._mend(roots)
        for incident in batch.earlier:
            self._write_incident(roots, incident, counted=False)
        for incident in batch.closed:
            self._write_incident(roots, incident, counted=True)
        behind = self._outnumbered()
        for key, value in {**behind, **batch.facts}.items():
            if key in behind or not self._stands(key, value):
                self._write_fact(roots, key, value)
        for name, goal in batch.goals.items():
            self._write_goal(roots, name, goal)
        if adopt:
            self._adopt(roots)
        self._trim(roots)
        for kind in _WRITTEN_OVER:
            self._shelves[kind].sweep(roots[kind])

    def _put(self, roots: Roots, kind: Kind, key: str, entry: Entry) -> bool:
        # What the others would pass over is not sent to them.
        if decode(kind, self.node, key, encode(entry)) is None:
            self.left_out[kind] += 1
            return False
        self._shelves[kind].put(roots[kind], key, entry)
        return True

    def _write_incident(self, roots: Roots, incident: Incident, *, counted: bool) -> None:
        key = incident_id(self.node, incident)
        shelf = self._shelves["incidents"]
        if ("incidents", self.node, key) in self._view.values or key in shelf.entries:
            return
        if len(shelf.entries) >= SEGMENT:
            shelf.leave()
        entry = IncidentEntry(
            target=incident.target,
            problem=incident.problem,
            opened=float(incident.opened),
            action=incident.action,
            closed=incident.closed,
            repair_seconds=incident.repair_seconds,
            success=incident.success,
            trace_id=incident.trace_id,
        )
        if self._put(roots, "incidents", key, entry) and counted and incident.action:
            self._count(roots, incident)

    def _count(self, roots: Roots, incident: Incident) -> None:
        if incident.success is None:
            return
        key = outcome_key(incident.action, incident.target)
        if "|" in incident.action or len({*self._outcomes, key}) > _MOST_OUTCOMES:
            self.left_out["outcomes"] += 1
            return
        before = self._outcomes.get(key, Counts(0, 0))
        failed = not incident.success
        self._add(roots, key, Counts(before.successes + (not failed), before.failures + failed))

    def _add(self, roots: Roots, key: str, counts: Counts) -> None:
        if self._put(roots, "outcomes", key, counts):
            self._outcomes[key] = counts

    def _write_fact(self, roots: Roots, key: str, value: Plain) -> None:
        is_new = ("facts", self.node, key) not in self._view.values
        if is_new and self._view.sizes["facts"] >= self._most_facts:
            self.left_out["facts"] += 1
            return
        self._put(roots, "facts", key, FactEntry(1 + self._highest("facts", key), value))

    def _stands(self, key: str, value: Plain) -> bool:
        mine = self._own("facts", key)
        # True is not 1, and 1 is not 1.0.
        return isinstance(mine, FactEntry) and type(mine.value) is type(value) and mine.value == value

    def _write_goal(self, roots: Roots, name: str, goal: Goal) -> None:
        before = self._view.goal(name)
        number = max(goal.number, 1 if before is None else before.number + 1)
        self._put(roots, "goals", name, GoalEntry(number, goal.value, _traceparent(goal.span_context)))

    def _highest(self, kind: Kind, key: str) -> int:
        standings = self._view.shelves(kind, self.node)
        return max((_number(standing.entries.get(key)) for standing in standings), default=0)

    def _trim(self, roots: Roots) -> None:
        incidents, facts = self._shelves["incidents"], self._shelves["facts"]
        if incidents.name in trim_incidents(roots, self._view, self._most_incidents):
            incidents.leave()
        for name, key in trim_facts(roots, self._view, self._most_facts):
            if name == facts.name:
                facts.entries.pop(key, None)

    # What others have done to it

    def _mend(self, roots: Roots) -> None:
        for kind in sorted(self._lost):
            shelf = self._shelves[kind]
            kept = shelf.entries
            if kind == "incidents" and self._view.sizes["incidents"] >= self._most_incidents:
                # Most of them were beyond the cap; one that was just written may not have been.
                first = oldest(self._view)
                kept = {
                    key: text
                    for key, text in kept.items()
                    if ended(decode("incidents", self.node, key, text)) > first
                }
            shelf.mend(roots[kind], kept)
        self._lost.clear()
        for kind, key in sorted(self._spoilt):
            self._shelves[kind].again(roots[kind], key)
        self._spoilt.clear()

    def _heard_of(self, kind: Kind, name: str) -> None:
        shelf = shelf_of(name)
        if kind == "facts" and shelf is not None and shelf.node == self.node and shelf.life != self.life:
            self._others.add(shelf.life)

    def _outnumbered(self) -> dict[str, Plain]:
        """Facts of this life that stand behind those of an earlier one, which was heard of only now."""
        if not self._others:
            return {}
        self._contests.update(self._others)
        # A life that goes on writing is none of the past; with it nobody can keep up, nor should.
        past = {life for life in self._others if self._contests[life] <= _CONTESTS}
        self._others.clear()
        behind: dict[str, Plain] = {}
        for standing in self._view.shelves("facts", self.node):
            if standing.shelf.life not in past:
                continue
            for key, entry in standing.entries.items():
                mine = self._own("facts", key)
                if isinstance(mine, FactEntry) and mine.number <= _number(entry):
                    behind[key] = mine.value
        return behind

    def _own(self, kind: Kind, key: str) -> Entry | None:
        """What this life has written under a key, in this transaction or before it."""
        text = self._shelves[kind].entries.get(key)
        return None if text is None else decode(kind, self.node, key, text)

    def _adopt(self, roots: Roots) -> None:
        """Take over what earlier lives have left, where there are many; their incidents stay."""
        earlier = [
            (kind, standing)
            for kind in _WRITTEN_OVER
            for standing in self._view.shelves(kind, self.node)
            if standing.shelf.life != self.life
        ]
        if len({standing.shelf.life for _, standing in earlier}) <= _MOST_LIVES:
            return
        for kind, standing in earlier:
            self._take_over(roots, kind, standing)
            if standing.name in roots[kind]:
                del roots[kind][standing.name]

    def _take_over(self, roots: Roots, kind: Kind, standing: Standing) -> None:
        for key, entry in standing.entries.items():
            if isinstance(entry, Counts):
                before = self._outcomes.get(key, Counts(0, 0))
                total = Counts(before.successes + entry.successes, before.failures + entry.failures)
                self._add(roots, key, total)
            elif _number(self._own(kind, key)) < _number(entry) == self._highest(kind, key):
                self._put(roots, kind, key, entry)


def _number(entry: Entry | None) -> int:
    return entry.number if isinstance(entry, FactEntry | GoalEntry) else 0


def _traceparent(context: SpanContext | None) -> str:
    if context is None or not context.is_valid:
        return ""
    ids = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return f"00-{ids[0]}-{ids[1]}-{int(context.trace_flags):02x}"
