"""What a domain gives the service, and what domains ask of one another.

Domains never import each other. What one needs of another goes through Knowledge or through one of
the protocols here. The service finds a `Domain` by its entry point (`mapek.domains`), opens it for
the nodes that live in this process, and gives each node's plugins to that node's runtime.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan

from .learned import Goal
from .model import Value

__all__ = [
    "Consensus",
    "Domain",
    "DomainContext",
    "DomainSession",
    "Fault",
    "FaultInjector",
    "FaultReport",
    "Find",
    "FollowsNodes",
    "Goal",
    "Goals",
    "Grant",
    "Judgement",
    "LinkView",
    "Messenger",
    "NamesNodes",
    "NamesTargets",
    "Normality",
    "Supervisor",
    "Topology",
]


_P = TypeVar("_P")


class Find(Protocol):
    """Finds what other domains offer."""

    def __call__(self, protocol: type[_P], /) -> _P | None:
        """The session that implements `protocol`, one of the runtime-checkable protocols here."""


def _nobody(_protocol: type[_P], /) -> _P | None:
    return None


class Supervisor(Protocol):
    """Starts and stops the autonomic loop of a node in this process (the service implements it)."""

    async def crashed(self, node_id: str) -> None:
        """The node is gone at once: its loop ends without a farewell."""

    async def restarted(self, node_id: str) -> None:
        """The node is back: its loop starts again."""


@dataclass(frozen=True, kw_only=True)
class DomainContext:
    """What a domain is opened with."""

    nodes: tuple[str, ...]
    """The nodes that live in this process; one in a real deployment, several on a demonstration."""
    supervisor: Supervisor
    rng: random.Random
    state: Path | None = None
    heal: bool = True
    emit: Callable[[str, Mapping[str, Any]], None] = lambda _name, _fields: None
    """Tell the service what happened (`fault.injected`, `link.drained`): it is logged, shown live,
    and written as a JSON line."""
    trigger: Callable[[str, str], None] = lambda _node, _reason: None
    """(node, reason): ask for a cycle of that node's loop now, instead of at its next interval."""
    find: Find = field(default_factory=lambda: _nobody)
    """`find(Messenger)`: the session of this run that implements a protocol of this module; None while
    there is none. Ask when it is needed, not when opened: domains open one after another."""

    def follow(self, node: str, goal: Goal) -> None:
        """Ask for a cycle of `node` now that follows `goal`, linked to the span in which it was set."""
        setter = goal.span_context
        span = trace.INVALID_SPAN if setter is None else NonRecordingSpan(setter)
        token = context_api.attach(trace.set_span_in_context(span))
        try:
            self.trigger(node, goal.reason)
        finally:
            context_api.detach(token)


class DomainSession(Protocol):
    """A domain while it is open."""

    def plugins(self, node_id: str) -> Sequence[object]:
        """The phase plugins of one node."""


class Domain(Protocol):
    """Found by the entry point `mapek.domains`."""

    name: str
    settings: type[msgspec.Struct]
    """Its section of the configuration, decoded by the runtime."""

    def open(self, settings: Any, context: DomainContext) -> AbstractAsyncContextManager[DomainSession]:
        """Start sockets and tasks; everything ends when the block is left."""


@runtime_checkable
class FollowsNodes(Protocol):
    """A session that keeps something in memory for each node, which a crash of the node takes with it."""

    def crashed(self, node_id: str) -> None:
        """A node of this process is gone at once; what is in memory for it is gone too."""

    def restarted(self, node_id: str) -> None:
        """The node is back: with what was kept on disk, or with nothing."""


@runtime_checkable
class NamesNodes(Protocol):
    """A domain that may make the nodes it runs itself, and so knows what they are called."""

    def nodes(self, settings: Any) -> Sequence[str] | None:
        """The nodes of this process under these settings; None when the runtime is to name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """A link as the page and the terminal draw it; `state` is a word such as `up` or `drained`."""

    a: str
    b: str
    state: str
    loss: float = 0.0
    rtt: float = 0.0
    fault: str = ""


@runtime_checkable
class Topology(Protocol):
    """Who is connected to whom."""

    def links(self) -> Sequence[LinkView]:
        """Every link once."""

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs."""

    def route(self, source: str, destination: str) -> Sequence[str]:
        """The nodes on the path in force, both ends included; empty when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a schedule: `at` and `duration` in seconds from the start."""

    number: int
    kind: str
    target: str
    at: float
    duration: float
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultReport:
    """What became of the faults, measured outside the loop.

    Of the `injected` faults, those under which nothing was ever lost are `harmless`: there was
    nothing to heal, and they are not counted as healed. `repair_seconds`: for each healed fault,
    from its injection until the metric it hurt recovered.
    """

    injected: int
    healed: int
    repair_seconds: tuple[float, ...]
    wrong_actions: int
    sent: int
    delivered: int
    harmless: int = 0


@runtime_checkable
class FaultInjector(Protocol):
    """Makes faults on purpose, and judges from outside whether they were healed."""

    def kinds(self) -> Sequence[str]:
        """The kinds of fault this domain can make."""

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        """A reproducible schedule: the same seed and duration give the same faults."""

    async def inject(self, fault: Fault) -> None:
        """Make it so."""

    async def clear(self, fault: Fault) -> None:
        """Take the fault away again; not an error when it is gone already."""

    def report(self) -> FaultReport:
        """What happened so far."""


@runtime_checkable
class NamesTargets(Protocol):
    """A `FaultInjector` that says what each kind of fault can be done to, so that a page can offer it."""

    def targets(self, kind: str) -> Sequence[str]:
        """The targets of a kind of fault; empty for one that there is not."""


@runtime_checkable
class Messenger(Protocol):
    """Control messages over the mesh's links. They carry the trace context of the sender, if it has one."""

    most: int
    """Bytes that the payload of one message may have."""

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """Send one message; delivery is not promised, nor order, nor that it comes once.

        Raises ValueError for a payload of more than `most` bytes.
        """

    def reachable(self, node_id: str) -> Sequence[str]:
        """The other nodes to which `node_id` knows a way now."""

    def subscribe(
        self, node_id: str, topic: str
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """(source, payload) of each message for `node_id` on `topic`, in the sender's trace context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The answer to a claim.

    `owner` has the key: the node that asked when `granted`, else the one that was first (empty where the
    answer is no for another `reason`). `fence` grows with every grant of any key, so that whoever is acted
    upon can tell a late owner from the present one; `term` is the leader's. Of a grant nothing may be done
    after `until`, on the clock of the event loop (`loop.time()`): others may have it from then on.
    """

    key: str
    granted: bool
    owner: str = ""
    reason: str = ""
    fence: int = 0
    term: int = 0
    until: float = 0.0


@runtime_checkable
class Consensus(Protocol):
    """What the nodes agree upon, so that nothing is decided twice. Every answer holds for all nodes.

    All methods that wait raise `NoConsensus` when no majority answered in time: what was asked for may
    still come to pass, and asking again is safe.
    """

    def leader(self, node_id: str) -> str | None:
        """Who leads, as far as that node knows; None while nobody does."""

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant:
        """Ask that `node_id` alone has `key` (such as `drain node-1~node-2`) for `hold` seconds.

        The first to ask has it until it is released or the time is over; its owner may claim it again,
        which extends the time. With `leader_only` it is given to the leader of the present term alone.
        """

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """Give a claim back; without effect when the grant of that `fence` is not in force any more."""

    def claims(self, node_id: str, prefix: str = "") -> Mapping[str, str]:
        """The claims in force as that node knows them, key → owner. After a grant, at least up to it."""

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None = None) -> int:
        """Agree on a value for all nodes, and return its epoch, which grows by one with each change of it.

        With `expected` only where that is the epoch now (0: never set). Raises `MapekError` where it is not.
        """

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """What was agreed upon under that name, and its epoch; empty and 0 when nothing was."""


@runtime_checkable
class Goals(Protocol):
    """Goals that loops set for one another, the same on all nodes in the end. Never waits."""

    def set_goal(self, node_id: str, name: str, value: Value) -> None:
        """Set a goal for all nodes, in the name of `node_id`; the newest value wins."""

    def goals(self, node_id: str) -> Mapping[str, Goal]:
        """The goals in force, as that node knows them, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How far a reading is from what is normal: `score` in 0..1, too far from `threshold` on."""

    score: float
    threshold: float
    version: int
    """Of the model that judged; it grows."""


@runtime_checkable
class Normality(Protocol):
    """What is normal, learned from the readings of many nodes. Never waits."""

    def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        """Judge a reading; None while there is no model for readings of that kind.

        `kind` names what the features are (`mesh.link`), always the same ones in the same order.
        """

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        """Take a reading to learn from; None where nobody knows whether it was normal."""
