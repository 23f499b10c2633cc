"""A condition as a Python function: how comparisons are joined, whatever they look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from .syntax import All, Compare, Condition, Not

__all__ = ["comparisons", "predicate"]

Subject = TypeVar("Subject")


def predicate(
    condition: Condition, leaf: Callable[[Compare], Callable[[Subject], bool]]
) -> Callable[[Subject], bool]:
    """Whether `condition` holds of a subject, of which `leaf` gives the comparisons."""
    if isinstance(condition, Compare):
        return leaf(condition)
    if isinstance(condition, Not):
        inner = predicate(condition.condition, leaf)
        return lambda subject: not inner(subject)
    parts = [predicate(part, leaf) for part in condition.conditions]
    if isinstance(condition, All):
        return lambda subject: all(part(subject) for part in parts)
    return lambda subject: any(part(subject) for part in parts)


def comparisons(condition: Condition) -> Iterator[Compare]:
    """Every comparison of a condition."""
    if isinstance(condition, Compare):
        yield condition
    elif isinstance(condition, Not):
        yield from comparisons(condition.condition)
    else:
        for part in condition.conditions:
            yield from comparisons(part)
