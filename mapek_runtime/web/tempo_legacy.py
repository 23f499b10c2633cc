"""Tempo's search of before TraceQL: `tags` in logfmt, and how long a trace took."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mapek_runtime.errors import QueryError
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
    Query,
    Scope,
)

__all__ = ["logfmt", "tags_query"]

_PAIR = re.compile(r'\s*([^\s="\x00-\x20]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*)))?(?=\s|$)')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_MOST = 64
_FIELDS = {
    "name": "span:name",
    "root.name": "trace:rootName",
    "root.service.name": "trace:rootService",
}
_WORDS = re.compile(r"[^0-9A-Za-z_]")
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def tags_query(tags: str, shortest: int | None, longest: int | None) -> Query:
    """Spans whose values contain what `tags` says, in any case of letters, of traces that took that long."""
    conditions = [_contains(key, value) for key, value in logfmt(tags).items()]
    duration = Field(Scope.INTRINSIC, "trace:duration")
    if shortest:
        conditions.append(Compare(duration, ">=", Literal(Kind.DURATION, shortest)))
    if longest is not None:
        conditions.append(Compare(duration, "<=", Literal(Kind.DURATION, longest)))
    if not conditions:
        return Query(AllSpans())
    return Query(Filter(conditions[0] if len(conditions) == 1 else All(tuple(conditions))))


def logfmt(text: str) -> dict[str, str]:
    """`key=value key="a value"`; a key alone has an empty value. Raises QueryError."""
    pairs: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        found = _PAIR.match(text, at)
        if found is None or len(pairs) == _MOST:
            raise QueryError(
                f"invalid tags: {text[at : at + 64]!r} at column {at + 1}; "
                f'write key=value key="a value", at most {_MOST} of them'
            )
        key, quoted, plain = found.groups()
        if key in pairs:
            raise QueryError(f"invalid tags: tag {key[:64]!r} has been set twice")
        pairs[key] = plain or "" if quoted is None else _unquoted(quoted)
        at = found.end()
    return pairs


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)


def _contains(key: str, value: str) -> Condition:
    alternatives = tuple(_alternatives(key, value))
    return alternatives[0] if len(alternatives) == 1 else Any(alternatives)


def _alternatives(key: str, value: str) -> Iterator[Condition]:
    name = _FIELDS.get(key)
    field = Field(Scope.INTRINSIC, name) if name else Field(Scope.EITHER, key)
    yield Compare(field, "=~", Literal(Kind.STRING, f"(?is).*{_escaped(value)}.*"))
    if key in ("status", "status.code") and value in ("ok", "error", "unset"):
        yield Compare(Field(Scope.INTRINSIC, "span:status"), "=", Literal(Kind.STATUS, value))
    elif key == "error" and value == "true":
        yield Compare(Field(Scope.INTRINSIC, "span:status"), "=", Literal(Kind.STATUS, "error"))
    if name:
        return
    if value in ("true", "false"):
        yield Compare(field, "=", Literal(Kind.BOOL, value == "true"))
    elif _NUMBER.fullmatch(value):
        yield Compare(field, "=", Literal(Kind.INT, int(value)))


def _escaped(text: str) -> str:
    """The text as a regular expression of RE2, where a backslash stands before signs, not letters."""
    return _WORDS.sub(lambda found: f"\\{found[0]}" if found[0].isascii() else found[0], text)
