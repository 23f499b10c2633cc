"""Conditions as they are put together: of the right types, flat, and never too deep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapek_runtime.errors import QueryError

from .literals import literal_text, quote
from .matching import regex
from .source import MAX_NESTING, Source
from .spelling import NESTED_PARENT, TYPES, field_text
from .syntax import All, Any, Compare, Condition, Field, Kind, Literal, Not, Scope

__all__ = ["FALSE", "TRUE", "Node", "compared", "constant", "depth_of", "joined", "negated"]

_ID = Field(Scope.INTRINSIC, "span:id")
_PARENT = Field(Scope.INTRINSIC, "span:parentID")
_NIL = Literal(Kind.NIL, None)
# Every span has an id: the tree needs no constants.
TRUE = Compare(_ID, "!=", _NIL)
"""What holds for every span."""
FALSE = Compare(_ID, "=", _NIL)
"""What holds for none."""

_REASON = 200
_ORDER = {"<", "<=", ">", ">="}
_REGEX = {"=~", "!~"}
_NUMBERS = {Kind.INT, Kind.FLOAT}
_EXAMPLES = {
    Kind.STRING: 'a text in quotes, "…"',
    Kind.INT: "a number",
    Kind.DURATION: "a duration such as 50ms",
    Kind.STATUS: "ok, error or unset, without quotes",
    Kind.SPAN_KIND: "internal, server, client, producer, consumer or unspecified, without quotes",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A condition and how many levels stand in it."""

    condition: Condition
    depth: int = 0


def constant(holds: bool) -> Node:
    """`true` or `false` as a condition."""
    return Node(TRUE if holds else FALSE)


def compared(source: Source, at: int, field: Field, op: str, literal: Literal, value_at: int) -> Node:
    """`field op literal`, when that can ever hold; `at` is the place of the operator."""
    if field == NESTED_PARENT:
        return Node(_nested_parent(source, at, op, literal))
    _check(source, at, field, op, literal, value_at)
    kind = TYPES.get(field.name) if field.scope is Scope.INTRINSIC else None
    if kind is Kind.DURATION and literal.kind in _NUMBERS and not literal.value:
        literal = Literal(Kind.DURATION, 0)
    return Node(Compare(field, op, literal))


def negated(source: Source, at: int, node: Node) -> Node:
    """What does not hold."""
    return _limited(source, at, Node(Not(node.condition), node.depth + 1))


def joined(source: Source, at: int, form: type[All | Any], nodes: Sequence[Node]) -> Node:
    """All or any of them; one of the same form in it is opened, one alone is itself."""
    if len(nodes) == 1:
        return nodes[0]
    parts: list[Condition] = []
    depth = 0
    for node in nodes:
        if isinstance(node.condition, form):
            parts.extend(node.condition.conditions)
            depth = max(depth, node.depth)
        else:
            parts.append(node.condition)
            depth = max(depth, node.depth + 1)
    return _limited(source, at, Node(form(tuple(parts)), depth))


def depth_of(condition: Condition) -> int:
    """How many levels stand in the condition."""
    if isinstance(condition, Compare):
        return 0
    inner = (condition.condition,) if isinstance(condition, Not) else condition.conditions
    return 1 + max(map(depth_of, inner))


def _limited(source: Source, at: int, node: Node) -> Node:
    if node.depth > MAX_NESTING:
        raise source.too_deep(at)
    return node


def _check(source: Source, at: int, field: Field, op: str, literal: Literal, value_at: int) -> None:
    kind, name = literal.kind, field_text(field)
    if kind is Kind.NIL:
        if op not in {"=", "!="}:
            raise source.error(at, f"nil cannot be compared with {op}; write {name} = nil or {name} != nil")
        return
    own = TYPES.get(field.name) if field.scope is Scope.INTRINSIC else None
    if own is None and kind in {Kind.STATUS, Kind.SPAN_KIND}:
        quoted = quote(str(literal.value))
        only = "status" if kind is Kind.STATUS else "kind"
        raise source.error(
            value_at,
            f"without quotes {literal.value} is a value of {only}, which {name} never has; write {quoted}",
        )
    if own is not None and kind is not own and not _passes(own, literal):
        unit = f", as in {literal_text(literal)}ms" if own is Kind.DURATION and kind in _NUMBERS else ""
        raise source.error(
            value_at, f"{name} is compared with {_EXAMPLES[own]}{unit}; found {literal_text(literal)[:40]}"
        )
    if op in _REGEX:
        _check_regex(source, at, op, literal, value_at)
    elif op in _ORDER and kind in {Kind.BOOL, Kind.STATUS, Kind.SPAN_KIND}:
        raise source.error(
            at, f"{literal.value!s} has no order; with it write = or !=".replace("True", "true")
        )


def _passes(own: Kind, literal: Literal) -> bool:
    if literal.kind not in _NUMBERS:
        return False
    return own is Kind.INT or (own is Kind.DURATION and not literal.value)


def _check_regex(source: Source, at: int, op: str, literal: Literal, value_at: int) -> None:
    if literal.kind is not Kind.STRING:
        raise source.error(at, f"{op} wants a regular expression in quotes; for a value write {_plain(op)}")
    try:
        regex(str(literal.value))
    except QueryError as error:
        reason = str(error)
        if len(reason) > _REASON:
            # The middle is the pattern itself.
            reason = f"{reason[: _REASON // 2]}…{reason[-_REASON // 2 :]}"
        raise source.error(value_at, reason) from None


def _plain(op: str) -> str:
    return "=" if op == "=~" else "!="


def _nested_parent(source: Source, at: int, op: str, literal: Literal) -> Compare:
    if (op, literal.value) in {("<", 0), ("=", -1), ("<=", -1)}:
        return Compare(_PARENT, "=", _NIL)
    if (op, literal.value) in {(">=", 0), ("!=", -1), (">", -1), (">", 0)}:
        return Compare(_PARENT, "!=", _NIL)
    raise source.error(
        at, "spans are not numbered here: nestedSetParent is only known as nestedSetParent < 0, a root span"
    )
