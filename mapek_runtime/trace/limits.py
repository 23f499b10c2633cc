"""Attributes as they may be recorded: the SDK's rules, with a short way for plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.attributes import BoundedAttributes

__all__ = ["PLAIN_TYPES", "recorded"]

PLAIN_TYPES = frozenset((str, int, float, bool))
"""Types that need no cleaning and cannot change after they were recorded."""

_KEY_TYPE = frozenset((str,))


def recorded(
    attributes: Mapping[str, Any] | None, maximum: int | None, length: int | None
) -> tuple[dict[str, Any], int]:
    """A copy that is safe to keep, and how many attributes were dropped.

    Anything but plain values within the limits goes through the SDK's own `BoundedAttributes`, so
    that cleaning, truncation and what is dropped are the same to the letter.
    """
    if not attributes:
        return {}, 0
    if (
        length is None
        and (maximum is None or len(attributes) <= maximum)
        and PLAIN_TYPES.issuperset(map(type, attributes.values()))
        and _KEY_TYPE.issuperset(map(type, attributes))
        and "" not in attributes
    ):
        return dict(attributes), 0
    bounded = BoundedAttributes(maximum, attributes, immutable=True, max_value_len=length)
    return dict(bounded.copy()), bounded.dropped
