"""Nodes that ask a table of claims and a configuration, in simulated time: right, or broken on purpose.

Whoever judges histories is judged by these: a right table must never be blamed, and each way of being
broken must be found. Nothing of the engines is used here.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from mapek_runtime.loop.domain import Grant
from tests.raft_history import Operation

__all__ = ["FAULTS", "simulate"]

FAULTS = (
    "ends too early",
    "grants what is taken",
    "releases by an old fence",
    "keeps what was released",
    "does it once more, late",
    "repeats a fence",
    "loses a change",
    "ignores what is expected",
    "refuses what fits",
    "reads what was before",
    "reads without its own",
)

_Change = tuple[float, Any]


@dataclass(slots=True)
class _Node:
    name: str
    grants: list[Grant] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    seen: float = 0.0
    """The time up to which it knows all changes."""


class _Table:
    """Claims and configuration, and each change with its time."""

    def __init__(self, rng: random.Random, fault: str) -> None:
        self.rng = rng
        self.fault = fault
        self.fence = 0
        self.claims: dict[str, tuple[str, int, float]] = {}
        self.values: dict[str, tuple[str, int]] = {}
        self.changes: dict[tuple[str, str], list[_Change]] = {}

    def broken(self, fault: str, share: float = 1.0) -> bool:
        return self.fault == fault and self.rng.random() < share

    def apply(self, now: float, node: str, kind: str, key: str, argument: Any, invoked: float) -> Any:
        match kind:
            case "claim":
                return self._claim(now, node, key, argument[0], invoked)
            case "release":
                return self._release(now, node, key, argument)
            case _:
                return self._configure(now, key, *argument)

    def _claim(self, now: float, node: str, key: str, hold: float, invoked: float) -> Grant:
        owner, _, ends = self.claims.get(key, ("", 0, 0.0))
        taken = owner not in {"", node} and now < ends
        if taken and not self.broken("grants what is taken", 0.05):
            return Grant(key=key, granted=False, owner=owner, term=1)
        self.fence += not self.broken("repeats a fence", 0.1)
        ends = max(now + hold, ends if owner == node else 0.0)
        self._own(now, key, node, self.fence, now + hold / 4 if self.broken("ends too early") else ends)
        return Grant(key=key, granted=True, owner=node, fence=self.fence, term=1, until=invoked + hold)

    def _release(self, now: float, node: str, key: str, fence: int) -> None:
        owner, held, _ = self.claims.get(key, ("", 0, 0.0))
        fits = held == fence or self.broken("releases by an old fence")
        if owner == node and fits and not self.broken("keeps what was released", 0.5):
            self._own(now, key, "", 0, 0.0)

    def _own(self, now: float, key: str, owner: str, fence: int, ends: float) -> None:
        self.claims[key] = (owner, fence, ends)
        self.changes.setdefault(("claim", key), []).append((now, (owner, ends)))

    def _configure(self, now: float, key: str, value: str, expected: int | None) -> int | None:
        now_is, epoch = self.values.get(key, ("", 0))
        fits = expected in {None, epoch} or self.broken("ignores what is expected", 0.3)
        if not fits or self.broken("refuses what fits", 0.3):
            return None
        if epoch and value == now_is:
            return epoch
        if not self.broken("loses a change", 0.3):
            self.values[key] = (value, epoch + 1)
            self.changes.setdefault(("configured", key), []).append((now, self.values[key]))
        return epoch + 1

    def at(self, what: str, key: str, seen: float, now: float) -> Any:
        """What a node reads that knows the changes up to `seen`."""
        state = next((s for at, s in reversed(self.changes.get((what, key), [])) if at <= seen), None)
        if what == "configured":
            return state or ("", 0)
        owner, ends = state or ("", 0.0)
        return owner if now < ends else ""


def simulate(
    seed: int, *, operations: int = 500, keys: int = 10, nodes: int = 5, lost: float = 0.05, fault: str = ""
) -> list[Operation]:
    """A history of about so many operations; of `lost` the answer never comes, and half of them happen."""
    return _Simulation(seed, keys, nodes, lost, fault).run(operations)


class _Simulation:
    def __init__(self, seed: int, keys: int, nodes: int, lost: float, fault: str) -> None:
        self.rng = random.Random(seed)
        self.table = _Table(self.rng, fault)
        self.keys, self.lost = keys, lost
        self.nodes = [_Node(f"node-{number}") for number in range(1, nodes + 1)]
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.numbers = count()
        self.history: list[Operation] = []

    def run(self, operations: int) -> list[Operation]:
        for node in self.nodes:
            self.later(self.rng.random() * 0.1, partial(self.ask, node=node))
        while len(self.history) < operations:
            now, _, event = heapq.heappop(self.events)
            event(now)
        return self.history

    def later(self, at: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), event))

    def ask(self, now: float, node: _Node) -> None:
        kind, key, argument = self.choose(node)
        if kind == "read":
            self.read(now, node, key, argument)
            self.later(now + 0.01, lambda then: self.ask(then, node))
            return
        happens = now + self.rng.expovariate(30)
        if self.rng.random() < self.lost:
            self.note(node, kind, key, argument, None, now, None)
            if self.rng.random() < 0.5:
                late = happens + self.rng.random() * 3
                self.later(late, lambda at: self.table.apply(at, node.name, kind, key, argument, now))
            self.later(now + 1.0, lambda then: self.ask(then, node))
            return

        def happen(at: float) -> None:
            result = self.table.apply(at, node.name, kind, key, argument, now)
            self.later(at + self.rng.expovariate(60), lambda then: answer(then, at, result))
            if kind == "claim" and self.table.broken("does it once more, late", 0.2):
                self.later(at + 0.5, lambda then: self.table.apply(then, node.name, kind, key, argument, now))

        def answer(then: float, at: float, result: Any) -> None:
            self.note(node, kind, key, argument, result, now, then)
            if not self.table.broken("reads without its own"):
                node.seen = max(node.seen, at)
            if kind == "claim" and result.granted:
                node.grants.append(result)
            if kind == "configure" and result:
                node.epochs[key] = result
            self.later(then + self.rng.expovariate(20), lambda later: self.ask(later, node))

        self.later(happens, happen)

    def choose(self, node: _Node) -> tuple[Any, str, Any]:
        rng = self.rng
        match rng.choices(("claim", "release", "configure", "read"), (4, 2, 2, 2))[0]:
            case "release" if node.grants:
                grant = rng.choice(node.grants)
                if rng.random() < 0.8:
                    node.grants.remove(grant)
                return "release", grant.key, grant.fence
            case "configure":
                name = f"name-{rng.randrange(max(1, self.keys // 4))}"
                expected = rng.choice([None, node.epochs.get(name, 0)])
                return "configure", name, (f"value-{rng.randrange(20)}", expected)
            case "read":
                if rng.random() < 0.3:
                    return "read", f"name-{rng.randrange(max(1, self.keys // 4))}", "configured"
                return "read", f"key-{rng.randrange(self.keys)}", "claim"
            case _:
                return "claim", f"key-{rng.randrange(self.keys)}", (rng.choice([0.1, 0.5, 2.0, 10.0]), False)

    def read(self, now: float, node: _Node, key: str, what: str) -> None:
        view = now - self.rng.random() * 0.3
        if not self.table.broken("reads what was before"):
            view = node.seen = max(node.seen, view)
        self.note(node, "read", key, what, self.table.at(what, key, view, now), now, now)

    def note(
        self,
        node: _Node,
        kind: Any,
        key: str,
        argument: Any,
        result: Any,
        invoked: float,
        answered: float | None,
    ) -> None:
        self.history.append(
            Operation(
                process=node.name,
                kind=kind,
                key=key,
                argument=argument,
                result=result,
                invoked=invoked,
                answered=answered,
            )
        )
