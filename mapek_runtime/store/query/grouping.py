"""The sets into which the chosen spans of a trace fall, and which of them are kept."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .fields import Row, label
from .syntax import Aggregate, By, Field

__all__ = ["Group", "grouped"]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Read = Callable[[Field], Callable[[Row], Any]]


class Group(NamedTuple):
    """A set of chosen spans, and the values of the fields that they have in common."""

    rows: Sequence[Row]
    by: tuple[tuple[str, Any], ...]


def grouped(rows: Sequence[Row], stages: Iterable[Aggregate | By], read: Read) -> list[Group]:
    """The sets that are left after all stages, in the order of their first spans."""
    groups = [Group(rows, ())]
    for stage in stages:
        if isinstance(stage, By):
            groups = [part for group in groups for part in _parts(group, stage.field, read(stage.field))]
        else:
            groups = [group for group in groups if _holds(stage, group, read)]
    return groups


def _parts(group: Group, field: Field, read: Callable[[Row], Any]) -> list[Group]:
    parts: dict[str, tuple[Any, list[Row]]] = {}
    for row in group.rows:
        value = read(row)
        # By what it looks like: 1 and True are two values, and a list can be one.
        parts.setdefault(repr(value), (value, []))[1].append(row)
    return [Group(rows, (*group.by, (label(field), value))) for value, rows in parts.values()]


def _holds(stage: Aggregate, group: Group, read: Read) -> bool:
    number = _number(stage, group, read)
    return number is not None and _COMPARE[stage.op](number, stage.literal.value)


def _number(stage: Aggregate, group: Group, read: Read) -> float | None:
    """What the function gives; None where no span has a number."""
    if stage.field is None:
        return len(group.rows)
    one = read(stage.field)
    numbers: list[float] = []
    for row in group.rows:
        value = one(row)
        numbers += [each for each in (value if isinstance(value, list) else [value]) if _is_number(each)]
    if not numbers:
        return None
    match stage.function:
        case "min":
            return min(numbers)
        case "max":
            return max(numbers)
        case "sum":
            return sum(numbers)
        case _:
            return sum(numbers) / len(numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
