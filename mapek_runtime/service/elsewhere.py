"""Cycles of nodes in other processes, which send their traces here: read from the store.

A cycle is shown when its root is stored. What its phases found and did stands in the events of their
spans, as `loop.explain` writes them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from mapek_runtime.export.notice import Notices
from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.query.syntax import All, Compare, Field, Filter, Kind, Literal, Not, Query, Scope
from mapek_runtime.store.query.syntax import Any as AnyOf
from mapek_runtime.web.state import ActionShown, CycleShown, FindingShown, PhaseShown, RejectionShown

from .cycle_shapes import LONGEST, MOST, PHASES
from .sentences import describe_cycle, describe_evidence, shortened

if TYPE_CHECKING:
    from mapek_runtime.store import TraceStore

__all__ = ["Elsewhere", "cycles_of_others", "read_cycle"]

logger = logging.getLogger(__name__)

_MOST = 50
"""Cycles that are read at once; of more only the newest are shown, and their numbers show the gap."""
_GAP = 5.0
"""Seconds after which it is not asked what has arrived since, but what is new at all."""
_RECENT = 60 * 10**9
_REMEMBERED = 10_000
_AHEAD = 60 * 10**9
"""Nanoseconds by which a sender's clock may be ahead: what is of tomorrow would stay the newest for a day."""
_LONGEST_NAME = 100
"""Of a node; a name is whatever a sender calls itself."""
_EXACT = 1 << 53
_ERROR = 2


class Elsewhere:
    """What is new of the cycles of other nodes, each once. Of this run's own nodes nothing is told.

    `since` is when the run began: what is older belongs to an earlier run, and is there to be searched.
    """

    def __init__(self, store: TraceStore, service: str, nodes: Sequence[str], since: int) -> None:
        self._store = store
        self._own = frozenset(nodes)
        self._service = service
        self._query = cycles_of_others(service, nodes)
        self._since = since
        self._row = -1
        self._asked = float("-inf")
        self._told: dict[str, None] = {}
        self._notices = Notices(logger)

    async def news(self) -> list[CycleShown]:
        """The cycles that were stored since the last call, the oldest first."""
        now = time.monotonic()
        latest = time.time_ns() + _AHEAD
        if now - self._asked > _GAP:
            self._row, _ = await self._store.newest(-1)
            start = max(self._since, time.time_ns() - _RECENT)
            chosen = await self._store.durations(self._query, start=start, end=latest, limit=10 * _MOST)
            found = chosen.spans
        else:
            self._row, found = await self._store.newest(self._row, query=self._query)
        self._asked = now
        ahead = sum(each.start > latest for each in found)
        if ahead:
            self._notices.warn(
                "ahead",
                "a cycle of another node begins more than a minute from now by this clock, and the page "
                "leaves it out; the clocks must agree",
                count=ahead,
            )
        new = [
            each for each in found if self._since <= each.start <= latest and each.trace_id not in self._told
        ]
        new.sort(key=lambda each: each.start)
        shown: list[CycleShown] = []
        for span in new[-_MOST:]:
            self._told[span.trace_id] = None
            stored = await self._store.trace(span.trace_id, limit=1000)
            if stored is None:
                continue
            cycle = await asyncio.to_thread(read_cycle, stored.data)
            if cycle is not None:
                shown.append(self._named(cycle, span.service))
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return shown

    def _named(self, cycle: CycleShown, service: str) -> CycleShown:
        """The same; where one of our nodes has the name, with the service behind it."""
        if cycle.node not in self._own:
            return cycle
        return msgspec.structs.replace(cycle, node=f"{cycle.node} ({shortened(service, _LONGEST_NAME)})")


def cycles_of_others(service: str, nodes: Iterable[str]) -> Query:
    """Every `mape_k.cycle` but those of these nodes of this service."""

    def equal(field: Field, value: str) -> Compare:
        return Compare(field, "=", Literal(Kind.STRING, value))

    cycle = equal(Field(Scope.INTRINSIC, "span:name"), "mape_k.cycle")
    of_nodes = [equal(Field(Scope.SPAN, "node_id"), node) for node in nodes]
    if not of_nodes:
        return Query(Filter(cycle))
    of_us = of_nodes[0] if len(of_nodes) == 1 else AnyOf(tuple(of_nodes))
    own = All((equal(Field(Scope.RESOURCE, "service.name"), service), of_us))
    return Query(Filter(All((cycle, Not(own)))))


def read_cycle(data: bytes) -> CycleShown | None:
    """The cycle of a trace (bytes of TracesData); None where it has none."""
    spans = [
        span
        for group in TracesData.FromString(data).resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]
    root = next((span for span in spans if span.name == "mape_k.cycle"), None)
    if root is None:
        return None
    mine = {span.name: span for span in spans if span.parent_span_id == root.span_id}
    by_phase = {phase: mine[name] for phase in PHASES if (name := f"mape_k.{phase}") in mine}
    attributes = as_dict(root.attributes)
    dry_run = any(as_dict(span.attributes).get("dry_run") is True for span in by_phase.values())
    phases = tuple(_phase(phase, by_phase.get(phase)) for phase in PHASES)
    found = _events(by_phase.get("analyze"), "finding")
    chosen = _events(by_phase.get("plan"), "option.chosen")
    refused = _events(by_phase.get("plan"), "option.rejected")
    findings = tuple(_finding(event) for event in found[:MOST])
    actions = _actions(chosen[:MOST], _events(by_phase.get("execute"), "action"))
    rejected = tuple(
        RejectionShown(
            action=_text(event, "action"),
            target=_text(event, "target"),
            rule=_text(event, "rule"),
            reason=_text(event, "reason"),
        )
        for event in refused[:MOST]
    )
    learned = [
        _text(event, "message") or f"{_text(event, 'insight')} {_text(event, 'target')}"
        for event in _events(by_phase.get("knowledge"), "insight")
        if "action.span_id" in event
    ]
    return CycleShown(
        node=shortened(str(attributes.get("node_id") or "unknown node"), _LONGEST_NAME),
        cycle=_count(attributes.get("cycle")),
        trace_id=root.trace_id.hex(),
        start=str(root.start_time_unix_nano),
        duration_ms=_milliseconds(root),
        trigger=_text(attributes, "trigger"),
        success=attributes.get("success") is not False and root.status.code != _ERROR,
        phases=phases,
        findings=findings,
        actions=actions,
        rejected=rejected,
        line=describe_cycle(
            findings,
            actions,
            rejected,
            learned,
            phases,
            dry_run=dry_run,
            found=len(found),
            acted=len(chosen),
            refused=len(refused),
        ),
        dry_run=dry_run,
        more=sum(max(len(each) - MOST, 0) for each in (found, chosen, refused)),
    )


def _phase(phase: str, span: Span | None) -> PhaseShown:
    if span is None:
        return PhaseShown(phase=phase, ms=0.0, state="skipped", reason="its span is not stored")
    attributes = as_dict(span.attributes)
    if attributes.get("skipped") is True:
        return PhaseShown(phase=phase, ms=0.0, state="skipped", reason=_text(attributes, "reason"))
    if span.status.code == _ERROR:
        reason = shortened(span.status.message, LONGEST)
        return PhaseShown(phase=phase, ms=_milliseconds(span), state="failed", reason=reason)
    return PhaseShown(phase=phase, ms=_milliseconds(span), state="ok")


def _finding(event: dict[str, Any]) -> FindingShown:
    lists = [event.get(f"evidence.{key}") for key in ("metric", "value", "threshold")]
    evidence: list[tuple[str, float, float]] = []
    if all(isinstance(each, list) for each in lists):
        evidence = [
            (str(metric), float(value), float(threshold))
            for metric, value, threshold in zip(*lists, strict=False)
            if isinstance(value, int | float) and isinstance(threshold, int | float)
        ]
    confidence = event.get("confidence")
    if not (isinstance(confidence, int | float) and math.isfinite(confidence)):
        # JSON has no word for what is no number.
        confidence = 1.0
    return FindingShown(
        problem=_text(event, "problem"),
        target=_text(event, "target"),
        confidence=round(confidence, 4),
        message=shortened(describe_evidence(_text(event, "message"), evidence), LONGEST),
    )


def _actions(chosen: Iterable[dict[str, Any]], outcomes: Iterable[dict[str, Any]]) -> tuple[ActionShown, ...]:
    done = {(_text(event, "action"), _text(event, "target")): event for event in outcomes}
    shown: list[ActionShown] = []
    for event in chosen:
        what = (_text(event, "action"), _text(event, "target"))
        outcome = done.get(what)
        success = None if outcome is None else outcome.get("success") is True
        error = "" if outcome is None else _text(outcome, "error")
        shown.append(ActionShown(action=what[0], target=what[1], success=success, error=error))
    return tuple(shown)


def _events(span: Span | None, name: str) -> list[dict[str, Any]]:
    if span is None:
        return []
    return [as_dict(event.attributes) for event in span.events if event.name == name]


def _text(event: dict[str, Any], key: str) -> str:
    value = event.get(key)
    return "" if value is None else shortened(str(value), LONGEST)


def _count(value: Any) -> int:  # an attribute, which may be anything
    return value if type(value) is int and 0 <= value < _EXACT else 0


def _milliseconds(span: Span) -> float:
    return round(max(span.end_time_unix_nano - span.start_time_unix_nano, 0) / 1e6, 3)
