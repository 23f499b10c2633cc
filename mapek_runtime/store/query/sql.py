"""Pieces of SQL with the values that belong to them; never a value of a user in the text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FALSE", "TRUE", "Sql", "among", "both", "either", "negated"]


class Sql(NamedTuple):
    """An expression that is never NULL, and what is bound to its question marks."""

    text: str
    parameters: tuple[int | float | str | bytes | None, ...] = ()


TRUE = Sql("1")
FALSE = Sql("0")


def both(parts: Iterable[Sql]) -> Sql:
    """All of them hold; SQLite looks at them in this order."""
    wanted = [part for part in parts if part != TRUE]
    return FALSE if FALSE in wanted else _joined(" AND ", wanted, TRUE)


def either(parts: Iterable[Sql]) -> Sql:
    """One of them holds."""
    wanted = [part for part in parts if part != FALSE]
    return TRUE if TRUE in wanted else _joined(" OR ", wanted, FALSE)


def negated(part: Sql) -> Sql:
    """It does not hold."""
    if part in {TRUE, FALSE}:
        return FALSE if part == TRUE else TRUE
    return Sql(f"NOT ({part.text})", part.parameters)


def among(column: str, chosen: Iterable[int], total: int) -> Sql:
    """`column`, which has one of `total` numbers, has one of the `chosen` ones."""
    numbers = sorted(chosen)
    if not numbers:
        return FALSE
    if len(numbers) == total:
        return TRUE
    if len(numbers) == 1:
        return Sql(f"{column} = ?", (numbers[0],))
    return Sql(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(numbers),))


def _joined(word: str, parts: list[Sql], none: Sql) -> Sql:
    if len(parts) < 2:
        return parts[0] if parts else none
    return Sql(
        word.join(f"({part.text})" for part in parts),
        tuple(parameter for part in parts for parameter in part.parameters),
    )
