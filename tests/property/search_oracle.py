"""What a query means, said once more, as plainly as possible: on lists of protobuf spans, with no index."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from mapek_runtime.store.query.syntax import (
    Aggregate,
    All,
    AllSpans,
    By,
    Compare,
    Condition,
    Field,
    Kind,
    Literal,
    Not,
    Query,
    Relation,
    Scope,
    Spansets,
)
from tests.unit.store.filled import Sent

__all__ = ["Trace", "expected", "holds"]

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


class Trace(NamedTuple):
    """A trace that a query finds, as a test compares it."""

    trace_id: bytes
    newest: int
    sets: list[tuple[list[bytes], tuple[Any, ...]]]
    """Span ids in the order of their start, and the values of `by`."""


def expected(arrived: list[Sent], query: Query, start: int | None, end: int | None) -> list[Trace]:
    """The traces that the query finds, in order."""
    traces: dict[bytes, dict[bytes, tuple[int, Sent]]] = {}
    for number, sent in enumerate(arrived):
        traces.setdefault(sent.span.trace_id, {})[sent.span.span_id] = number, sent
    found = []
    for trace_id, numbered in traces.items():
        spans = {key: sent for key, (_, sent) in numbered.items()}
        chosen = [
            key
            for key in _chosen(query.spansets, spans)
            if (start is None or _began(spans[key]) >= start) and (end is None or _began(spans[key]) < end)
        ]
        chosen.sort(key=lambda key: (_began(spans[key]), numbered[key][0]))
        sets: list[tuple[list[bytes], tuple[Any, ...]]] = [(chosen, ())] if chosen else []
        for stage in query.stages:
            if isinstance(stage, By):
                sets = [part for each in sets for part in _parts(stage.field, each, spans)]
            elif isinstance(stage, Aggregate):
                sets = [each for each in sets if _counts(stage, [spans[key] for key in each[0]], spans)]
        if sets:
            newest = max(numbered[key][0] for keys, _ in sets for key in keys)
            found.append(Trace(trace_id, newest, sets))
    return sorted(found, key=lambda trace: -trace.newest)


def holds(condition: Condition, sent: Sent, trace: dict[bytes, Sent]) -> bool:
    """Whether a condition holds of a span of a trace."""
    if isinstance(condition, Compare):
        return _compares(condition, sent, trace)
    if isinstance(condition, Not):
        return not holds(condition.condition, sent, trace)
    each = [holds(part, sent, trace) for part in condition.conditions]
    return all(each) if isinstance(condition, All) else any(each)


def _began(sent: Sent) -> int:
    return sent.span.start_time_unix_nano


def _chosen(spansets: Spansets, trace: dict[bytes, Sent]) -> list[bytes]:
    if isinstance(spansets, AllSpans):
        return list(trace)
    if not isinstance(spansets, Relation):
        return [key for key, sent in trace.items() if holds(spansets.condition, sent, trace)]
    left, right = _chosen(spansets.left, trace), _chosen(spansets.right, trace)
    if spansets.op in {"&&", "||"}:
        wanted = spansets.op == "||" or (left and right)
        return [key for key in trace if key in left or key in right] if wanted else []
    return [key for key in right if any(_stands(spansets.op, trace, one, key) for one in left)]


def _stands(op: str, trace: dict[bytes, Sent], left: bytes, right: bytes) -> bool:
    if op == ">":
        return _parent(trace, right) == left
    if op == "<":
        return _parent(trace, left) == right
    if op == ">>":
        return left in _ancestors(trace, right)
    if op == "<<":
        return right in _ancestors(trace, left)
    return (
        left != right and _parent(trace, left) is not None and _parent(trace, left) == _parent(trace, right)
    )


def _parent(trace: dict[bytes, Sent], key: bytes) -> bytes | None:
    return trace[key].span.parent_span_id or None


def _ancestors(trace: dict[bytes, Sent], key: bytes) -> set[bytes]:
    found: set[bytes] = set()
    at = _parent(trace, key)
    while at is not None and at in trace and at not in found:
        found.add(at)
        at = _parent(trace, at)
    return found


def _parts(
    field: Field, group: tuple[list[bytes], tuple[Any, ...]], trace: dict[bytes, Sent]
) -> list[tuple[list[bytes], tuple[Any, ...]]]:
    keys, by = group
    parts: list[tuple[Any, list[bytes]]] = []
    for key in keys:
        value = _one(_values(field, trace[key], trace))
        for shared, rest in parts:
            if repr(shared) == repr(value):
                rest.append(key)
                break
        else:
            parts.append((value, [key]))
    return [(rest, (*by, shared)) for shared, rest in parts]


def _counts(stage: Aggregate, spans: list[Sent], trace: dict[bytes, Sent]) -> bool:
    if stage.field is None:
        number: float = len(spans)
    else:
        values: list[Any] = []
        for sent in spans:
            value = _one(_values(stage.field, sent, trace))
            values.extend(value if isinstance(value, list) else [value])
        numbers = [value for value in values if type(value) in {int, float}]
        if not numbers:
            return False
        number = {
            "min": min(numbers),
            "max": max(numbers),
            "sum": sum(numbers),
            "avg": sum(numbers) / len(numbers),
        }[stage.function]
    return _orders(stage.op, number, stage.literal.value)


def _one(values: list[Any]) -> Any:
    there = [value for value in values if value is not None]
    return there if len(there) > 1 else (there or [None])[0]


def _compares(compare: Compare, sent: Sent, trace: dict[bytes, Sent]) -> bool:
    values, literal = _values(compare.field, sent, trace), compare.literal
    if literal.kind is Kind.NIL:
        missing = all(value is None for value in values)
        return {"=": missing, "!=": not missing}.get(compare.op, False)
    own = {"span:status": Kind.STATUS, "span:kind": Kind.SPAN_KIND}.get(compare.field.name)
    if own is not None and compare.field.scope is Scope.INTRINSIC:
        if literal.kind is not own or compare.op not in {"=", "!="}:
            return False
    elif literal.kind in {Kind.STATUS, Kind.SPAN_KIND}:
        return False
    return any(_matches(compare.op, value, literal) for value in values)


def _matches(op: str, value: Any, literal: Literal) -> bool:
    if isinstance(value, list):
        alike = [element for element in value if _is_alike(element, literal)]
        if op in {"!=", "!~"}:
            return bool(alike) and all(_matches(op, element, literal) for element in alike)
        return any(_matches(op, element, literal) for element in alike)
    if not _is_alike(value, literal):
        return False
    if op in {"=~", "!~"}:
        if literal.kind is not Kind.STRING:
            return False
        return (re.fullmatch(str(literal.value), value, re.DOTALL) is not None) == (op == "=~")
    if literal.kind is Kind.BOOL and op not in {"=", "!="}:
        return False
    return _orders(op, value, literal.value)


def _is_alike(value: Any, literal: Literal) -> bool:
    if isinstance(value, bool) or literal.kind is Kind.BOOL:
        return isinstance(value, bool) and literal.kind is Kind.BOOL
    if isinstance(value, int | float):
        return literal.kind in {Kind.INT, Kind.FLOAT, Kind.DURATION}
    return isinstance(value, str) and isinstance(literal.value, str)


def _orders(op: str, left: Any, right: Any) -> bool:
    return bool(
        {
            "=": left == right,
            "!=": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[op]
    )


def _values(field: Field, sent: Sent, trace: dict[bytes, Sent]) -> list[Any]:
    span, name = sent.span, field.name
    resource = _attribute(sent.resource.attributes, name)
    own = _attribute(span.attributes, name)
    scoped = {
        Scope.SPAN: lambda: [own],
        Scope.RESOURCE: lambda: [resource],
        Scope.EITHER: lambda: [resource if own is None else own],
        Scope.INSTRUMENTATION: lambda: [_attribute(sent.scope.attributes, name)],
        Scope.EVENT: lambda: [_attribute(event.attributes, name) for event in span.events],
        Scope.LINK: lambda: [_attribute(link.attributes, name) for link in span.links],
    }
    if field.scope in scoped:
        return scoped[field.scope]()
    if name.startswith("trace:") and name != "trace:id":
        return [_of_trace(name, list(trace.values()))]
    children = sum(1 for each in trace.values() if each.span.parent_span_id == span.span_id)
    many: dict[str, list[Any]] = {
        "event:name": [event.name for event in span.events],
        "event:timeSinceStart": [event.time_unix_nano - _began(sent) for event in span.events],
        "link:traceID": [link.trace_id.hex() for link in span.links],
        "link:spanID": [link.span_id.hex() for link in span.links],
        "span:name": [span.name],
        "span:kind": [KINDS[span.kind]],
        "span:status": [("unset", "ok", "error")[span.status.code]],
        "span:statusMessage": [span.status.message],
        "span:duration": [span.end_time_unix_nano - _began(sent)],
        "span:id": [span.span_id.hex()],
        "span:parentID": [span.parent_span_id.hex() or None],
        "span:childCount": [children],
        "trace:id": [span.trace_id.hex()],
        "instrumentation:name": [sent.scope.name],
        "instrumentation:version": [sent.scope.version],
    }
    return many[name]


def _of_trace(name: str, trace: list[Sent]) -> Any:
    if name == "trace:duration":
        return max(each.span.end_time_unix_nano for each in trace) - min(map(_began, trace))
    roots = [each for each in trace if not each.span.parent_span_id]
    if not roots:
        return None
    root = min(roots, key=_began)
    if name == "trace:rootName":
        return root.span.name
    service = _attribute(root.resource.attributes, "service.name")
    return service if isinstance(service, str) and service else "unknown_service"


def _attribute(attributes: Iterable[KeyValue], key: str) -> Any:
    return next((_plain(each.value) for each in attributes if each.key == key), None)


def _plain(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [_plain(each) for each in value.array_value.values]
    if value.HasField("kvlist_value"):
        return {each.key: _plain(each.value) for each in value.kvlist_value.values}
    which = value.WhichOneof("value")
    return None if which is None else getattr(value, which)
