"""Whether a value is what a comparison asks for: pure, on Python values.

None stands for what is not there. The rules are TraceQL's
(https://grafana.com/docs/tempo/latest/traceql/construct-traceql-queries/): another type does not match,
int and float compare as numbers and a bool is none, strings compare by code point, regular expressions
are RE2's and match the whole value, and what is not there matches only `= nil`. Of an array, `=`, `=~`
and the orders want one element; `!=` and `!~` want that no element is equal or matches, and that there
is one of the literal's type.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import re2

from mapek_runtime.errors import QueryError
from mapek_runtime.store.functions import still_time

from .syntax import Compare, Kind, Literal, Scope

__all__ = ["Match", "matcher", "regex"]

Match = Callable[[Any], bool]

_PATTERN = 4096
"""Characters of a regular expression."""
_MEMORY = 1 << 20
"""Bytes that RE2 may take for one; with less it is slower, never wrong."""
_SHOWN = 100
"""Characters of an expression that are said again."""
_LONG = 10_000
"""Characters from which on a value is long: matching it may take more than a moment."""
_MOST_STEPS = 300_000_000
"""Characters of a value times steps of the expression: RE2 cannot be interrupted, and where it remembers no
states it takes up to 6 ns for each of these."""
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBERS: tuple[type, ...] = (int, float)
_TYPES: dict[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.STATUS: (str,),
    Kind.SPAN_KIND: (str,),
    Kind.BOOL: (bool,),
}
_OWN_TYPE = {"span:status": Kind.STATUS, "span:kind": Kind.SPAN_KIND}
"""Fields that are no strings, though their values are words."""
_IDS = {"trace:id", "span:id", "span:parentID", "link:traceID", "link:spanID"}


def matcher(compare: Compare) -> Match:
    """A function that says whether a value of the field matches.

    Raises `QueryError` for a wrong regular expression.
    """
    op, literal = compare.op, _fitting(compare)
    if literal is None:
        return _never
    kind, wanted = literal.kind, literal.value
    if kind is Kind.NIL:
        return {"=": _is_missing, "!=": _is_there}.get(op, _never)
    if op in {"=~", "!~"}:
        return _text(op, wanted) if isinstance(wanted, str) and kind is Kind.STRING else _never
    if op not in {"=", "!="} and kind in {Kind.STATUS, Kind.SPAN_KIND, Kind.BOOL}:
        return _never
    holds = _ORDER[op]
    return _typed(op, _TYPES.get(kind, _NUMBERS), lambda value: holds(value, wanted))


def regex(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a text as a whole matches. Raises `QueryError` for a wrong pattern."""
    if len(pattern) > _PATTERN:
        raise QueryError(f"a regular expression of {len(pattern)} characters; at most {_PATTERN} are allowed")
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.never_capture = True
    options.max_mem = _MEMORY
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise QueryError(f"the regular expression {_shown(pattern)} is wrong: {_reason(error)}") from None
    fullmatch, steps = compiled.fullmatch, compiled.programsize

    def matches(text: str) -> bool:
        if len(text) > _LONG:
            still_time()
            if len(text) * steps > _MOST_STEPS:
                raise QueryError(
                    f"the regular expression {_shown(pattern)} takes too long on a value of {len(text):,} "
                    "characters that is stored; write one with fewer repetitions and alternatives"
                )
        return fullmatch(text) is not None

    return matches


def _text(op: str, pattern: str) -> Match:
    matches = regex(pattern)
    if op == "=~":
        return _typed(op, (str,), matches)
    return _typed(op, (str,), lambda value: not matches(value))


def _typed(op: str, types: tuple[type, ...], holds: Callable[[Any], bool]) -> Match:
    def match(value: Any) -> bool:
        if type(value) in types:
            return holds(value)
        if type(value) is not list:
            return False
        elements = [element for element in value if type(element) in types]
        if op in {"!=", "!~"}:
            return bool(elements) and all(map(holds, elements))
        return any(map(holds, elements))

    return match


def _fitting(compare: Compare) -> Literal | None:
    """The literal as values of the field are written; None when it is of another type."""
    literal = compare.literal
    name = compare.field.name if compare.field.scope is Scope.INTRINSIC else ""
    if literal.kind is not Kind.NIL and literal.kind is not _OWN_TYPE.get(name, literal.kind):
        return None
    if literal.kind in {Kind.STATUS, Kind.SPAN_KIND} and name not in _OWN_TYPE:
        return None
    if name in _IDS and isinstance(literal.value, str) and compare.op in {"=", "!="}:
        return Literal(literal.kind, literal.value.lower())
    return literal


def _is_missing(value: Any) -> bool:
    return value is None


def _is_there(value: Any) -> bool:
    return value is not None


def _never(value: Any) -> bool:
    return False


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}…")


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
