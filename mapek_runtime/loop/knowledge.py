"""Knowledge: what the loop remembers between cycles.

Everything is in memory, so phases read it without waiting; a `store` keeps it on disk. Writing is
the runtime's business at the end of a cycle (`save`): when the disk refuses, what was learned stays
in memory and is tried again, so nothing is lost while the process lives.

What this node learns others may hear (`listen`), and what others have learned is taken in (`absorb`, `told`,
`hear_fact`, `hear_goal`). That is not written to this node's store: whoever brings it keeps it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from opentelemetry.trace import SpanContext

from mapek_runtime.errors import KnowledgeError

from .experience import Experience
from .learned import Change, Fact, Goal, Incident
from .model import Value

__all__ = ["Change", "Fact", "Goal", "Incident", "Knowledge", "KnowledgeStore", "Record"]

_KEPT_INCIDENTS = 1000
_KEPT_IDENTITIES = 10_000
_MOST_PENDING = 10_000
_NOWHERE: Mapping[str, Value] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """One change on its way to disk: the kind of row and its values."""

    kind: str
    values: tuple[Value | None, ...]


class KnowledgeStore(Protocol):
    """Where knowledge is kept over restarts."""

    async def load(self) -> Sequence[Record]:
        """Everything that was kept, oldest first. Raises `KnowledgeError` when it cannot be read."""

    async def write(self, records: Sequence[Record]) -> None:
        """Keep all of it or none. Raises `KnowledgeError` when the disk refuses."""

    async def aclose(self) -> None:
        """Let go of the file."""


class Knowledge:
    """Facts, incidents and the experience with each action, for one node."""

    def __init__(self, store: KnowledgeStore | None = None, *, node: str = "") -> None:
        self.node = node
        """What the others call this node; empty while nobody has said so."""
        self._store = store
        self._facts: dict[str, Value] = {}
        self._elsewhere: dict[str, dict[str, Value]] = {}
        self._goals: dict[str, Goal] = {}
        self._incidents: deque[Incident] = deque(maxlen=_KEPT_INCIDENTS)
        self._identities: dict[tuple[object, ...], None] = {}
        self._experience = Experience()
        self._listeners: list[Callable[[Change], None]] = []
        self._pending: deque[Record] = deque()
        self._dirty_facts: set[str] = set()
        self._loaded = False
        self.dropped = 0
        """Changes that were never written because the disk refused for too long."""

    # Facts

    def fact(self, key: str, default: Value | None = None) -> Value | None:
        """What was remembered under `key`."""
        return self._facts.get(key, default)

    def facts(self, prefix: str = "") -> dict[str, Value]:
        """Every fact whose key begins with `prefix`."""
        return {key: value for key, value in self._facts.items() if key.startswith(prefix)}

    def remember(self, key: str, value: Value) -> None:
        """Keep a fact; the last value wins. Raises TypeError for a value that cannot be written."""
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"fact {key!r} is {value!r}; it must be a bool, int, float or str")
        if self._facts.get(key) != value:
            self._facts[key] = value
            self._dirty_facts.add(key)
            self._tell(Fact(key, value))

    def facts_elsewhere(self, key: str) -> Mapping[str, Value]:
        """What the other nodes remember under `key`, by node."""
        found = self._elsewhere.get(key)
        return _NOWHERE if found is None else MappingProxyType(found)

    def keys_elsewhere(self) -> Sequence[str]:
        """Every key under which other nodes remember something."""
        return tuple(self._elsewhere)

    def hear_fact(self, key: str, value: Value | None, origin: str) -> None:
        """What `origin` remembers under `key`; None: nothing any more.

        Where that is this node in an earlier life, it fills what this life does not know yet.
        """
        if self._is_mine(origin):
            if value is not None and key not in self._facts:
                self._facts[key] = value
                self._dirty_facts.add(key)
        elif value is not None:
            self._elsewhere.setdefault(key, {})[origin] = value
        elif key in self._elsewhere:
            self._elsewhere[key].pop(origin, None)
            if not self._elsewhere[key]:
                del self._elsewhere[key]

    # Goals

    def goal(self, name: str) -> Value | None:
        """What is to be reached under that name; None where nobody has set it."""
        found = self._goals.get(name)
        return None if found is None else found.value

    def goals(self) -> Mapping[str, Goal]:
        """Every goal in force by its name, with who set it and in which span."""
        return MappingProxyType(self._goals)

    def set_goal(self, name: str, value: Value, *, span_context: SpanContext | None = None) -> Goal:
        """Set a goal for every node that shares its knowledge with this one; the last to set it wins.

        `span_context` is the span in which it was decided. Raises TypeError for a value that cannot be
        written.
        """
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"goal {name!r} is {value!r}; it must be a bool, int, float or str")
        before = self._goals.get(name)
        number = 1 if before is None else before.number + 1
        goal = Goal(name=name, value=value, author=self.node, number=number, span_context=span_context)
        self._goals[name] = goal
        self._tell(goal)
        return goal

    def hear_goal(self, name: str, goal: Goal | None) -> None:
        """The goal that holds among all nodes; None: there is none any more."""
        mine = self._goals.get(name)
        if goal is None:
            self._goals.pop(name, None)
        elif mine is None or (goal.number, goal.author) >= (mine.number, mine.author):
            self._goals[name] = goal

    # Experience

    def success_rate(self, action: str, target: str | None = None) -> float | None:
        """The share of verified repairs by that action, in 0..1; None without experience.

        With `target`, only those on it.
        """
        return self._experience.success_rate(action, target)

    def repair_seconds(self, action: str) -> float | None:
        """The median time until the metric recovered after that action; None without experience."""
        return self._experience.repair_seconds(action)

    def incidents(self, target: str | None = None) -> Sequence[Incident]:
        """Closed incidents, oldest first."""
        return tuple(i for i in self._incidents if target is None or i.target == target)

    def close(self, incident: Incident) -> None:
        """Keep a closed incident and what it says of its action."""
        self._learn(incident)
        self._push(
            Record(
                "incident",
                (
                    incident.target, incident.problem, incident.opened, incident.action, incident.closed,
                    incident.repair_seconds, incident.success, incident.trace_id,
                ),
            )
        )  # fmt: skip
        self._tell(incident)

    def absorb(self, incident: Incident, origin: str) -> bool:
        """Take in what `origin` has closed; False for what is known already, however often it comes.

        An incident of this node itself, from an earlier life, is counted as its own.
        """
        incident = replace(incident, node=origin)
        if self._identity(incident) in self._identities:
            return False
        self._learn(incident)
        return True

    def told(self, origin: str, action: str, target: str, *, successes: int, failures: int) -> None:
        """What `origin` says of how often an action of it on `target` has worked, in all its lives."""
        node = "" if self._is_mine(origin) else origin
        self._experience.told(node, action, target, successes=successes, failures=failures)

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with each own change, at once: it must not wait or raise. Returns its end."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _tell(self, change: Change) -> None:
        for listener in tuple(self._listeners):
            listener(change)

    def _is_mine(self, origin: str) -> bool:
        return origin in {"", self.node}

    def _identity(self, incident: Incident) -> tuple[object, ...]:
        node = "" if self._is_mine(incident.node) else incident.node
        return node, incident.target, incident.problem, float(incident.opened), incident.action

    def _learn(self, incident: Incident) -> None:
        self._keep(incident)
        identity = self._identity(incident)
        self._identities[identity] = None
        if len(self._identities) > _KEPT_IDENTITIES:
            del self._identities[next(iter(self._identities))]
        if not incident.action or incident.success is None:
            return
        self._experience.count(
            str(identity[0]),
            incident.action,
            incident.target,
            success=incident.success,
            repair_seconds=incident.repair_seconds,
        )

    def _keep(self, incident: Incident) -> None:
        if not incident.node:
            self._incidents.append(incident)
            return
        # What comes from others may be older than what is there.
        place = len(self._incidents)
        while place and self._incidents[place - 1].opened > incident.opened:
            place -= 1
        if len(self._incidents) == _KEPT_INCIDENTS:
            if not place:
                return
            self._incidents.popleft()
            place -= 1
        self._incidents.insert(place, incident)

    # Disk

    @property
    def unsaved(self) -> int:
        """Changes that are not on disk; 0 without a store."""
        return len(self._pending) + len(self._dirty_facts) if self._store is not None else 0

    def _push(self, record: Record) -> None:
        if self._store is None:
            return
        if len(self._pending) >= _MOST_PENDING:
            self._pending.popleft()
            self.dropped += 1
        self._pending.append(record)

    async def load(self) -> None:
        """Read what was kept by an earlier process; once, however often the runtime is entered."""
        if self._store is None or self._loaded:
            return
        readers: dict[str, Callable[..., None]] = {"fact": self._load_fact, "incident": self._load_incident}
        try:
            records = await self._store.load()
        except KnowledgeError:
            await self._store.aclose()
            raise
        for record in records:
            readers[record.kind](*record.values)
        self._loaded = True

    def _load_fact(self, key: str, value: Value) -> None:
        self._facts[key] = value

    def _load_incident(self, *values: object) -> None:
        names = ("target", "problem", "opened", "action", "closed", "repair_seconds", "success", "trace_id")
        incident = Incident(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
        if incident.success is not None:
            incident = replace(incident, success=bool(incident.success))
        self._learn(incident)

    async def save(self) -> int:
        """Write what changed; returns how many changes. Raises `KnowledgeError`, and keeps them."""
        if self._store is None or not self.unsaved:
            return 0
        facts = {key: self._facts[key] for key in self._dirty_facts}
        events = list(self._pending)
        dropped = self.dropped
        self._dirty_facts.clear()
        written = False
        try:
            await self._store.write(
                [*events, *(Record("fact", (key, value)) for key, value in facts.items())]
            )
            written = True
        finally:
            # Also when the phase ran out of time: what may not be on disk is written again.
            if not written:
                self._dirty_facts |= facts.keys()
        # What the queue lost to an overflow meanwhile is not there to be taken out.
        for _ in range(len(events) - (self.dropped - dropped)):
            self._pending.popleft()
        return len(events) + len(facts)

    async def aclose(self) -> None:
        """Write what is left and let go of the file. Raises `KnowledgeError` when the disk refuses."""
        if self._store is None:
            return
        try:
            await self.save()
        finally:
            await self._store.aclose()
