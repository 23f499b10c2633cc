"""What the page is given: the shapes of its JSON, who fills them, and who does what its buttons ask.

Moments and durations in nanoseconds are decimal strings, because a double, which is what a browser has,
cannot hold them. This module knows no loop and no HTTP; the service implements its protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from mapek_runtime.errors import MapekError

from .live import LiveEvents

__all__ = [
    "ActionShown",
    "ControlRefused",
    "Controls",
    "CycleShown",
    "EventShown",
    "FaultShown",
    "FindingShown",
    "Health",
    "LinkShown",
    "Mesh",
    "NodeShown",
    "Offered",
    "PhaseShown",
    "RejectionShown",
    "RepairTimes",
    "Report",
    "State",
    "StateSource",
]


class NodeShown(msgspec.Struct, frozen=True, kw_only=True):
    """A node and the counts of its loop."""

    id: str
    alive: bool
    leads: bool = False
    """Whether the nodes have agreed that it leads them."""
    cycles: int = 0
    failed: int = 0
    actions: int = 0
    refused: int = 0


class LinkShown(msgspec.Struct, frozen=True, kw_only=True):
    """A link: `loss` is a share, `rtt` is in seconds, `fault` the kind of what was done to it on purpose."""

    a: str
    b: str
    state: str
    loss: float
    rtt: float
    fault: str


class FaultShown(msgspec.Struct, frozen=True, kw_only=True):
    """A fault in force; `seconds` is how long it is to last, None: until it is cleared."""

    number: int
    kind: str
    target: str
    since: str
    seconds: float | None
    by: Literal["chaos", "page"]


class PhaseShown(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of a cycle; `reason` says why it was skipped or how it failed."""

    phase: str
    ms: float
    state: Literal["ok", "skipped", "failed"]
    reason: str = ""


class FindingShown(msgspec.Struct, frozen=True, kw_only=True):
    """What Analyze found."""

    problem: str
    target: str
    confidence: float
    message: str


class ActionShown(msgspec.Struct, frozen=True, kw_only=True):
    """What Plan chose; `success` is None where it was not carried out."""

    action: str
    target: str
    success: bool | None
    error: str = ""


class RejectionShown(msgspec.Struct, frozen=True, kw_only=True):
    """An option that was not chosen."""

    action: str
    target: str
    rule: str
    reason: str


class CycleShown(msgspec.Struct, frozen=True, kw_only=True):
    """A cycle that ended: always five phases, and in `line` what was found and done.

    `more`: findings, actions and rejections that are not here, because there are too many; the trace has
    all of them.
    """

    node: str
    cycle: int
    trace_id: str
    start: str
    duration_ms: float
    trigger: str
    success: bool
    phases: tuple[PhaseShown, ...]
    findings: tuple[FindingShown, ...]
    actions: tuple[ActionShown, ...]
    rejected: tuple[RejectionShown, ...]
    line: str
    dry_run: bool
    more: int = 0


class EventShown(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened beside the cycles, such as `fault.injected`."""

    id: int
    time: str
    name: str
    fields: Mapping[str, Any]
    line: str


class Mesh(msgspec.Struct, frozen=True, kw_only=True):
    """Who is connected to whom, and what is wrong there."""

    nodes: tuple[NodeShown, ...]
    links: tuple[LinkShown, ...]
    faults: tuple[FaultShown, ...]
    halted: str | None


class RepairTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from a fault until what it hurt had recovered."""

    median: float
    p95: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the faults so far, as the domain measured it outside the loop."""

    injected: int
    healed: int
    wrong_actions: int
    repair_ms: RepairTimes | None
    sent: int
    delivered: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the process is: `status` is ok, failing or stopping, `cpu` the share of a core it uses."""

    status: str
    faults: Mapping[str, str]
    loop_lag_ms: Mapping[str, float]
    spans: Mapping[str, Any]
    sinks: Mapping[str, Mapping[str, Any]]
    store: Mapping[str, Any] | None
    cpu: float
    report: Report | None


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """Which buttons there are: `targets` has for each kind of fault what it can be done to."""

    faults: bool
    halt: bool
    kinds: tuple[str, ...] = ()
    targets: Mapping[str, tuple[str, ...]] = {}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page shows when it is opened; `last_event_id` is where the live events go on."""

    service: str
    version: str
    started: str
    now: str
    nodes: tuple[NodeShown, ...]
    links: tuple[LinkShown, ...]
    faults: tuple[FaultShown, ...]
    recent: tuple[EventShown, ...]
    cycles: Mapping[str, tuple[CycleShown, ...]]
    halted: str | None
    controls: Offered
    report: Report | None
    jaeger: str
    health: Health
    domains: tuple[str, ...]
    heal: bool
    dry_run: bool
    last_event_id: str


class StateSource(Protocol):
    """Who knows the run."""

    live: LiveEvents

    async def state(self) -> State:
        """Everything that the page shows when it is opened."""


class ControlRefused(MapekError):
    """What a button asked for is not done: `status` is that of the answer, the message says why."""

    def __init__(self, message: str, *, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


class Controls(Protocol):
    """What the page may do to the run; each raises `ControlRefused` when it does not."""

    def offered(self) -> Offered:
        """Which buttons there are."""

    async def inject(self, kind: str, target: str, seconds: float | None) -> int:
        """Make a fault that clears itself after `seconds`, and give its number."""

    async def clear(self, number: int) -> None:
        """Take a fault of the page away."""

    async def halt(self, reason: str) -> None:
        """From the next cycle on no loop acts."""

    async def resume(self) -> None:
        """Let the loops act again."""
