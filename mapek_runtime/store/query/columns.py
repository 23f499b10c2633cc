"""Comparisons of what stands in columns of the span table, as SQL."""

from __future__ import annotations

import operator

from mapek_runtime.store.functions import HOLDS, Closures
from mapek_runtime.store.model import STATUSES

from .matching import matcher
from .sql import FALSE, TRUE, Sql, either
from .syntax import Compare, Kind

__all__ = ["compare_column", "identifier"]

_ORDER = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_IDS = {"trace:id": "trace_id", "span:id": "span_id", "span:parentID": "parent_id"}
_STATUS = {"unset": Sql("status NOT IN (1, 2)"), "ok": Sql("status = 1"), "error": Sql("status = 2")}
_GREATEST = 1 << 63


def compare_column(compare: Compare, closures: Closures) -> Sql:
    """The rows of which the comparison holds."""
    name = compare.field.name
    if name == "span:status":
        match = matcher(compare)
        return either(_STATUS[word] for word in STATUSES if match(word))
    if name == "span:duration":
        return _duration(compare)
    return _id(_IDS[name], compare, closures)


def identifier(text: object) -> bytes | None:
    """The bytes of an id in hexadecimal digits; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return None
    return data if data.hex() == text.lower() else None


def _duration(compare: Compare) -> Sql:
    value = compare.literal.value
    holds = _ORDER.get(compare.op)
    if compare.literal.kind is Kind.NIL:
        return TRUE if compare.op == "!=" else FALSE
    if holds is None or compare.literal.kind not in {Kind.INT, Kind.FLOAT, Kind.DURATION}:
        return FALSE
    assert isinstance(value, int | float)
    if not -_GREATEST < value < _GREATEST:
        # Beyond every duration (or no number at all): the same for all.
        return TRUE if holds(0, value) else FALSE
    return Sql(f"duration {compare.op} ?", (value,))


def _id(column: str, compare: Compare, closures: Closures) -> Sql:
    literal, op = compare.literal, compare.op
    if literal.kind is Kind.NIL:
        if op not in {"=", "!="}:
            return FALSE
        return Sql(f"{column} IS NULL" if op == "=" else f"{column} IS NOT NULL")
    if literal.kind is Kind.STRING and op in {"=", "!="}:
        wanted = identifier(literal.value)
        if op == "=":
            return FALSE if wanted is None else Sql(f"{column} IS ?", (wanted,))
        if wanted is None:
            return Sql(f"{column} IS NOT NULL")
        return Sql(f"({column} IS NOT NULL AND {column} IS NOT ?)", (wanted,))
    match = matcher(compare)

    def check(value: bytes | None, _: None, __: None) -> bool:
        return match(None if value is None else value.hex())

    return Sql(f"{HOLDS}(?, {column}, NULL, NULL)", (closures.lend(check),))
