"""A query as values: what both ways to write one are read into, and what becomes SQL.

A query chooses spans and the relations between them, then counts and shows. Its shape is TraceQL's
(https://grafana.com/docs/tempo/latest/traceql/); the seed's syntax is one `Filter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Aggregate",
    "All",
    "AllSpans",
    "Any",
    "By",
    "Compare",
    "Condition",
    "Field",
    "Filter",
    "Kind",
    "Literal",
    "Not",
    "Query",
    "Relation",
    "Scope",
    "Select",
    "Spansets",
    "Stage",
]


class Scope(StrEnum):
    """Where the value of a field is looked for."""

    INTRINSIC = "intrinsic"
    SPAN = "span"
    RESOURCE = "resource"
    EITHER = "either"
    """`.x`: the span's attribute, else the resource's."""
    EVENT = "event"
    LINK = "link"
    INSTRUMENTATION = "instrumentation"


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a span has.

    The names of intrinsics are TraceQL's scoped ones, whatever was written: `span:name`,
    `span:duration`, `span:status`, `span:statusMessage`, `span:kind`, `span:id`, `span:parentID`,
    `span:childCount`, `trace:id`, `trace:duration`, `trace:rootName`, `trace:rootService`,
    `event:name`, `event:timeSinceStart`, `link:traceID`, `link:spanID`, `instrumentation:name`,
    `instrumentation:version`.
    """

    scope: Scope
    name: str


class Kind(StrEnum):
    """What a literal is."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DURATION = "duration"
    """An int: nanoseconds."""
    STATUS = "status"
    """A str: ok, error or unset."""
    SPAN_KIND = "kind"
    """A str: unspecified, internal, server, client, producer or consumer."""
    NIL = "nil"
    """None: the field is not there."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that was written."""

    kind: Kind
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Compare:
    """`field op literal`; op is one of = != < <= > >= =~ !~.

    A regular expression matches the whole value. A literal of another type than the value does not
    match, whatever the operator; int and float compare as numbers. A field that is not there matches
    only `= nil`.
    """

    field: Field
    op: str
    literal: Literal


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class All:
    """Every one of at least two."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """One of at least two."""

    conditions: tuple[Condition, ...]


Condition = Compare | Not | All | Any


@dataclass(frozen=True, slots=True)
class AllSpans:
    """`{ }`: every span."""


@dataclass(frozen=True, slots=True)
class Filter:
    """`{ condition }`: the spans of which the whole condition holds."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Relation:
    """Spans of one trace that stand to one another as `op` says.

    `&&`: both sides have some, and the spans of both are chosen; `||`: the spans of either; `>`: the spans
    on the right that have a parent on the left; `>>`: an ancestor; `<`, `<<`: a child, a descendant;
    `~`: a sibling.
    """

    op: str
    left: Spansets
    right: Spansets


Spansets = AllSpans | Filter | Relation


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`| function(field) op literal`: keeps the traces of which it holds over the chosen spans.

    function is one of count avg min max sum; count has no field. A literal is an INT, FLOAT or DURATION.
    """

    function: str
    field: Field | None
    op: str
    literal: Literal


@dataclass(frozen=True, slots=True)
class Select:
    """`| select(fields)`: values to show beside each span."""

    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class By:
    """`| by(field)`: a set of spans for each value; stages after it apply to each set."""

    field: Field


Stage = Aggregate | Select | By


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked: spans of a trace, and what is done with them in order."""

    spansets: Spansets
    stages: tuple[Stage, ...] = ()
