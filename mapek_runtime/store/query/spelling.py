"""How the fields of TraceQL are spelled, and of which type an intrinsic is."""

from __future__ import annotations

import re

from .source import did_you_mean
from .syntax import Field, Kind, Scope

__all__ = [
    "KINDS",
    "NESTED_PARENT",
    "SCOPES",
    "SERVICE_NAME",
    "STATUSES",
    "TYPES",
    "UNSCOPED",
    "field_text",
    "intrinsic",
    "scoped_intrinsic",
    "unknown_field",
]

STATUSES = ("ok", "error", "unset")
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")

TYPES = {
    "span:name": Kind.STRING,
    "span:duration": Kind.DURATION,
    "span:status": Kind.STATUS,
    "span:statusMessage": Kind.STRING,
    "span:kind": Kind.SPAN_KIND,
    "span:id": Kind.STRING,
    "span:parentID": Kind.STRING,
    "span:childCount": Kind.INT,
    "trace:id": Kind.STRING,
    "trace:duration": Kind.DURATION,
    "trace:rootName": Kind.STRING,
    "trace:rootService": Kind.STRING,
    "event:name": Kind.STRING,
    "event:timeSinceStart": Kind.DURATION,
    "link:traceID": Kind.STRING,
    "link:spanID": Kind.STRING,
    "instrumentation:name": Kind.STRING,
    "instrumentation:version": Kind.STRING,
}
"""Every intrinsic by its scoped name, and the type of its value."""

NESTED_PARENT = Field(Scope.INTRINSIC, "nestedSetParent")
"""Stands for itself only until it is compared: Grafana writes `nestedSetParent < 0` for root spans."""
SERVICE_NAME = Field(Scope.RESOURCE, "service.name")

UNSCOPED = {
    "name": "span:name",
    "duration": "span:duration",
    "status": "span:status",
    "statusMessage": "span:statusMessage",
    "kind": "span:kind",
    "rootName": "trace:rootName",
    "rootServiceName": "trace:rootService",
    "traceDuration": "trace:duration",
}
"""The older spellings of intrinsics."""
SCOPES = {
    "span": Scope.SPAN,
    "resource": Scope.RESOURCE,
    "event": Scope.EVENT,
    "link": Scope.LINK,
    "instrumentation": Scope.INSTRUMENTATION,
}
"""What may stand before the dot of an attribute."""

_SHORT = {"span:name": "name", "span:duration": "duration", "span:status": "status", "span:kind": "kind"}
_BY_LAST = {name.partition(":")[2]: name for name in reversed(TYPES)}
# What every reader of TraceQL takes without quotes; a digit in front would make the number .5 of ."5".
_PLAIN = re.compile(r"[^\W\d][\w.\-]*")


def intrinsic(word: str) -> Field | None:
    """The intrinsic of an unscoped spelling such as `duration`."""
    if word == NESTED_PARENT.name:
        return NESTED_PARENT
    name = UNSCOPED.get(word)
    return None if name is None else Field(Scope.INTRINSIC, name)


def scoped_intrinsic(word: str) -> Field | None:
    """The intrinsic of a scoped spelling such as `span:duration`."""
    return Field(Scope.INTRINSIC, word) if word in TYPES else None


def field_text(field: Field) -> str:
    """The field as TraceQL writes it."""
    if field.scope is Scope.INTRINSIC:
        return _SHORT.get(field.name, field.name)
    scope = "" if field.scope is Scope.EITHER else field.scope.value
    if _PLAIN.fullmatch(field.name):
        return f"{scope}.{field.name}"
    escaped = field.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{scope}."{escaped}"'


def unknown_field(word: str) -> str:
    """What would be right instead of a field that is not known."""
    if ":" in word:
        scoped = _BY_LAST.get(word.partition(":")[2])
        near = f"; did you mean {scoped!r}?" if scoped else did_you_mean(word, TYPES)
        return near or f"; intrinsics are {', '.join(TYPES)}"
    near = f"; did you mean {_BY_LAST[word]!r}?" if word in _BY_LAST else ""
    if not near and "." not in word:
        near = did_you_mean(word, UNSCOPED)
    return f"{near or ';'} an attribute needs its scope: span.{word}, resource.{word} or .{word}"
