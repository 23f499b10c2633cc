"""Knowledge: what the loop remembers between cycles.

Everything is in memory, so phases read it without waiting; a `store` keeps it on disk. Writing is
the runtime's business at the end of a cycle (`save`): when the disk refuses, what was learned stays
in memory and is tried again, so nothing is lost while the process lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mapek_runtime.errors import KnowledgeError

from .model import Value

__all__ = ["Incident", "Knowledge", "KnowledgeStore", "Record"]

_KEPT_INCIDENTS = 1000
_KEPT_REPAIRS = 64
_MOST_PENDING = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One problem of one target, from the first finding to its end.

    Times are Unix seconds; `repair_seconds` runs until the metric recovered, not until the action
    returned. `trace_id` is the cycle that found it (32 hex digits).
    """

    target: str
    problem: str
    opened: float
    action: str = ""
    closed: float | None = None
    repair_seconds: float | None = None
    success: bool | None = None
    trace_id: str = ""


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


@dataclass(slots=True)
class _Experience:
    successes: int = 0
    failures: int = 0


class Knowledge:
    """Facts, incidents and the experience with each action, for one node."""

    def __init__(self, store: KnowledgeStore | None = None) -> None:
        self._store = store
        self._facts: dict[str, Value] = {}
        self._incidents: deque[Incident] = deque(maxlen=_KEPT_INCIDENTS)
        self._experience: dict[tuple[str, str | None], _Experience] = {}
        self._repairs: dict[str, deque[float]] = {}
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

    # Experience

    def success_rate(self, action: str, target: str | None = None) -> float | None:
        """The share of verified repairs by that action, in 0..1; None without experience.

        With `target`, only those on it.
        """
        seen = self._experience.get((action, target))
        if seen is None or not seen.successes + seen.failures:
            return None
        return seen.successes / (seen.successes + seen.failures)

    def repair_seconds(self, action: str) -> float | None:
        """The median time until the metric recovered after that action; None without experience."""
        times = self._repairs.get(action)
        if not times:
            return None
        ordered = sorted(times)
        return ordered[len(ordered) // 2]

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

    def _learn(self, incident: Incident) -> None:
        self._incidents.append(incident)
        if not incident.action or incident.success is None:
            return
        for key in ((incident.action, None), (incident.action, incident.target)):
            seen = self._experience.setdefault(key, _Experience())
            if incident.success:
                seen.successes += 1
            else:
                seen.failures += 1
        if incident.success and incident.repair_seconds is not None:
            self._repairs.setdefault(incident.action, deque(maxlen=_KEPT_REPAIRS)).append(
                incident.repair_seconds
            )

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
