"""What Jaeger's search asks for, as a query of the store.

All of it must hold of one and the same span, as in Jaeger's own storages. Values of tags are strings
there, whatever the attribute is: `5` also finds the number and `false` the boolean. A tag is an attribute
of the span or of its resource; Jaeger's storages look into events as well, which this one does not: it
would have to read the events of every span that does not match.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from mapek_runtime.store.model import SPAN_KINDS, STATUSES
from mapek_runtime.store.query.syntax import (
    All,
    AllSpans,
    Any,
    Compare,
    Condition,
    Field,
    Filter,
    Kind,
    Literal,
    Not,
    Query,
    Scope,
)

__all__ = ["search_query"]

_SERVICE = Field(Scope.RESOURCE, "service.name")
_STATUS = Field(Scope.INTRINSIC, "span:status")
_ERROR = Compare(_STATUS, "=", Literal(Kind.STATUS, "error"))
_WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_FRACTION = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_INT64 = 1 << 63
_TEXTS = {
    "otel.status_description": "span:statusMessage",
    "otel.scope.name": "instrumentation:name",
    "otel.library.name": "instrumentation:name",
    "otel.scope.version": "instrumentation:version",
    "otel.library.version": "instrumentation:version",
}
"""Tags that Jaeger makes of fields, and the fields."""


def search_query(
    *,
    service: str = "",
    operation: str = "",
    tags: Mapping[str, str] | None = None,
    shortest: int | None = None,
    longest: int | None = None,
) -> Query:
    """The spans of a service and an operation that have every tag and last that long (nanoseconds)."""
    conditions = [
        *([_equal(_SERVICE, service)] if service else []),
        *([_equal(Field(Scope.INTRINSIC, "span:name"), operation)] if operation else []),
        *(_tag(key, value) for key, value in (tags or {}).items()),
        *(_lasting(">=", shortest) if shortest else []),
        *(_lasting("<=", longest) if longest is not None else []),
    ]
    if not conditions:
        return Query(AllSpans())
    return Query(Filter(conditions[0] if len(conditions) == 1 else All(tuple(conditions))))


def _lasting(op: str, duration: int) -> Iterator[Condition]:
    yield Compare(Field(Scope.INTRINSIC, "span:duration"), op, Literal(Kind.DURATION, duration))


def _equal(field: Field, text: str) -> Compare:
    return Compare(field, "=", Literal(Kind.STRING, text))


def _tag(key: str, value: str) -> Condition:
    alternatives = (*_of_field(key, value), *_of_attribute(Field(Scope.EITHER, key), value))
    return alternatives[0] if len(alternatives) == 1 else Any(alternatives)


def _of_attribute(field: Field, value: str) -> Iterator[Condition]:
    yield _equal(field, value)
    if value in ("true", "false"):
        yield Compare(field, "=", Literal(Kind.BOOL, value == "true"))
    elif _WHOLE.fullmatch(value) and -_INT64 <= int(value) < _INT64:
        # Int and float compare as numbers, so this finds 5.0 as well.
        yield Compare(field, "=", Literal(Kind.INT, int(value)))
    elif _FRACTION.fullmatch(value) and math.isfinite(float(value)):
        yield Compare(field, "=", Literal(Kind.FLOAT, float(value)))


def _of_field(key: str, value: str) -> Iterator[Condition]:
    """What Jaeger shows as a tag and OTLP keeps in a field."""
    lower = value.lower()
    if key == "span.kind" and lower in SPAN_KINDS:
        yield Compare(Field(Scope.INTRINSIC, "span:kind"), "=", Literal(Kind.SPAN_KIND, lower))
    elif key == "otel.status_code" and lower in STATUSES:
        yield Compare(_STATUS, "=", Literal(Kind.STATUS, lower))
    elif key == "error" and lower in ("true", "false"):
        yield _ERROR if lower == "true" else Not(_ERROR)
    elif key in _TEXTS:
        yield _equal(Field(Scope.INTRINSIC, _TEXTS[key]), value)
