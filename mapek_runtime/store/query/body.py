"""Comparisons of what stands in a span's body: its attributes, events and links, and its message.

A body is a `Span` of OTLP without what stands in columns. One that has a condition's value has certain
bytes, since the writer gives every attribute one form: `needles` are these bytes, for which SQLite looks
before Python is asked. They are necessary, never sufficient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.export.encode.wire import varint
from mapek_runtime.store.attributes import find

from .dictionary import Dictionary
from .matching import Match, matcher
from .syntax import Compare, Field, Kind, Literal, Scope

__all__ = ["Body", "compare_body", "is_in_body", "needles", "values_in_body"]

_INT64 = range(-(1 << 63), 1 << 63)
_MESSAGE = "span:statusMessage"


class Body(NamedTuple):
    """A span as comparisons see it."""

    span: Span
    source: int
    start: int


def is_in_body(field: Field) -> bool:
    """Whether a field is found in the body, if only in part."""
    if field.scope is Scope.INTRINSIC:
        return field.name == _MESSAGE or field.name.startswith(("event:", "link:"))
    return field.scope in {Scope.SPAN, Scope.EITHER, Scope.EVENT, Scope.LINK}


def compare_body(compare: Compare, dictionary: Dictionary) -> Callable[[Body], bool]:
    """Whether the comparison holds of a body; of events and links one is enough."""
    field, match = compare.field, matcher(compare)
    if _is_of_many(field):
        values = values_in_body(field, dictionary)
        if compare.literal.kind is Kind.NIL and compare.op == "=":
            return lambda body: all(map(match, values(body)))
        return lambda body: any(map(match, values(body)))
    if field.scope is Scope.SPAN:
        return _of_attribute(field.name, match)
    values = values_in_body(field, dictionary)
    return lambda body: match(values(body)[0])


def values_in_body(field: Field, dictionary: Dictionary) -> Callable[[Body], list[Any]]:
    """The value of a field, or for fields of events and links that of each; None where it is not there."""
    name = field.name
    if field.scope is Scope.SPAN:
        return lambda body: [find(body.span.attributes, name)]
    if field.scope is Scope.EVENT:
        return lambda body: [find(event.attributes, name) for event in body.span.events]
    if field.scope is Scope.LINK:
        return lambda body: [find(link.attributes, name) for link in body.span.links]
    if field.scope is Scope.EITHER:

        def either(body: Body) -> list[Any]:
            value = find(body.span.attributes, name)
            return [dictionary.sources[body.source].resource.get(name) if value is None else value]

        return either
    return _INTRINSICS[name]


def needles(compare: Compare) -> tuple[tuple[bytes, ...], ...] | None:
    """Bytes of each body of which the comparison holds: of every group one; None: none are certain."""
    field, literal = compare.field, compare.literal
    if literal.kind is Kind.NIL and compare.op == "=":
        return None
    if field.scope is Scope.INTRINSIC:
        found = _intrinsic_needle(compare)
        return ((found,),) if found else None
    key = field.name.encode("utf-8", "surrogatepass")
    groups: tuple[tuple[bytes, ...], ...] = ((b"\x0a" + varint(len(key)) + key,),)
    if compare.op == "=":
        return (_value_needles(literal), *groups)
    return groups


def _is_of_many(field: Field) -> bool:
    return field.scope in {Scope.EVENT, Scope.LINK} or field.name.startswith(("event:", "link:"))


def _of_attribute(name: str, match: Match) -> Callable[[Body], bool]:
    def holds(body: Body) -> bool:
        for attribute in body.span.attributes:
            if attribute.key == name:
                value = attribute.value
                which = value.WhichOneof("value")
                if which in {"string_value", "int_value", "double_value", "bool_value"}:
                    return match(getattr(value, which))
                break
        return match(find(body.span.attributes, name))

    return holds


def _value_needles(literal: Literal) -> tuple[bytes, ...]:
    """A value with its length in front, as it stands in an attribute and in an array."""
    values: list[AnyValue] = []
    value = literal.value
    if isinstance(value, str):
        if _is_utf8(value):
            values.append(AnyValue(string_value=value))
    elif isinstance(value, bool):
        values.append(AnyValue(bool_value=value))
    elif isinstance(value, int | float):
        if (whole := _as_int(value)) is not None:
            values.append(AnyValue(int_value=whole))
        if (number := _as_double(value)) is not None:
            values.append(AnyValue(double_value=number))
            if not number:
                values.append(AnyValue(double_value=-number))
    return tuple(varint(len(data)) + data for data in (each.SerializeToString() for each in values))


def _as_int(value: float) -> int | None:
    # What is infinite or no number has no remainder that is zero.
    return int(value) if value % 1 == 0 and int(value) in _INT64 else None


def _as_double(value: float) -> float | None:
    try:
        return float(value) if float(value) == value else None
    except OverflowError:
        return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _intrinsic_needle(compare: Compare) -> bytes:
    value = compare.literal.value
    if compare.op != "=" or not isinstance(value, str):
        return b""
    if compare.field.name in {"link:traceID", "link:spanID"}:
        try:
            return bytes.fromhex(value)
        except ValueError:
            return b""
    return value.encode("utf-8", "surrogatepass")


def _since_start(body: Body) -> list[Any]:
    return [event.time_unix_nano - body.start for event in body.span.events]


_INTRINSICS: dict[str, Callable[[Body], list[Any]]] = {
    _MESSAGE: lambda body: [body.span.status.message],
    "event:name": lambda body: [event.name for event in body.span.events],
    "event:timeSinceStart": _since_start,
    "link:traceID": lambda body: [link.trace_id.hex() for link in body.span.links],
    "link:spanID": lambda body: [link.span_id.hex() for link in body.span.links],
}
