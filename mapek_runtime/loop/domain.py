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
from typing import Any, Protocol, runtime_checkable

import msgspec

__all__ = [
    "Domain",
    "DomainContext",
    "DomainSession",
    "Fault",
    "FaultInjector",
    "FaultReport",
    "LinkView",
    "Messenger",
    "NamesNodes",
    "NamesTargets",
    "Supervisor",
    "Topology",
]


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
    """Control messages over the mesh's links. They carry the trace context of the sender."""

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """Send one message; delivery is not promised."""

    def subscribe(
        self, node_id: str, topic: str
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """(source, payload) of each message for `node_id` on `topic`, in the sender's trace context."""
