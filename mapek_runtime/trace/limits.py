"""Attributes as they may be recorded: the SDK's rules, with a short way for plain values.

What is not plain is cleaned by `values`; what is more than the limits allow is counted, not logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, SpanLimits
from opentelemetry.trace import Link
from opentelemetry.util.types import Attributes

from .values import clean_attributes, text_of

__all__ = [
    "PLAIN_TYPES",
    "RecordedEvent",
    "bounded",
    "has_odd_keys",
    "is_plain",
    "kept_links",
    "push",
    "recorded",
]

PLAIN_TYPES = frozenset((str, int, float, bool))
"""Types that need no cleaning and cannot change after they were recorded."""

_TEXT = frozenset((str,))
_MOST_SHAPES = 4096
_plain_shapes: set[tuple[type, ...]] = set()


def is_plain(attributes: Mapping[str, Any]) -> bool:
    """Whether every value has a plain type.

    The types of a call site are the same every time, so they are remembered as one tuple: a look-up
    costs two thirds of looking at each value.
    """
    shape = tuple(map(type, attributes.values()))
    if shape in _plain_shapes:
        return True
    if not PLAIN_TYPES.issuperset(shape):
        return False
    if len(_plain_shapes) < _MOST_SHAPES:
        _plain_shapes.add(shape)
    return True


def has_odd_keys(attributes: Mapping[Any, Any]) -> bool:
    """Whether a key is empty or not exactly a text; of a dictionary that other threads may be changing."""
    # No generator: it could be interrupted by them.
    return "" in attributes or not _TEXT.issuperset(map(type, attributes))


def recorded(
    attributes: Mapping[str, Any] | None, maximum: int | None, length: int | None
) -> tuple[dict[str, Any], int]:
    """A copy that is safe to keep, and how many attributes were dropped.

    Over the `maximum` the oldest go, as in the SDK; a text is cut to `length`.
    """
    if not attributes:
        return {}, 0
    if length is None and (maximum is None or len(attributes) <= maximum) and is_plain(attributes):
        kept = dict(attributes)
        if not has_odd_keys(kept):
            return kept, 0
    cleaned, dropped = clean_attributes(attributes, length)
    if maximum is not None and len(cleaned) > maximum:
        surplus = len(cleaned) - maximum
        cleaned = dict(islice(cleaned.items(), surplus, None))
        dropped += surplus
    return cleaned, dropped


def push(held: dict[str, Any], more: Mapping[str, Any], most: int) -> tuple[dict[str, Any], int]:
    """A copy of `held` with `more`, at most `most` of all, and how many were pushed out.

    As in the SDK the oldest go, so that what was learned last is kept; a key that is set again is young.
    """
    if not most:
        return {}, len(more)
    held = held.copy()
    pushed_out = 0
    for key, value in more.items():
        if key in held:
            del held[key]
        elif len(held) >= most:
            del held[next(iter(held))]
            pushed_out += 1
        held[key] = value
    return held, pushed_out


class RecordedEvent(Event):
    """An event as a span keeps it: its attributes cannot be changed, and those it lost are counted."""

    def __init__(self, name: Any, attributes: Attributes, timestamp: int, dropped: int = 0) -> None:
        # What is no text has no form on the wire, and would take the whole span with it.
        super().__init__(name if isinstance(name, str) else text_of(name), attributes, timestamp)
        self._dropped_attributes = dropped

    @property
    def attributes(self) -> Attributes:
        """What was recorded, read-only."""
        return MappingProxyType(self._attributes or {})

    @property
    def dropped_attributes(self) -> int:
        """How many were lost."""
        return self._dropped_attributes


def bounded(attributes: Attributes, maximum: int | None, limits: SpanLimits) -> BoundedAttributes:
    """Attributes of a link: the SDK's own, because a `Link` reads its dropped count from them."""
    cleaned, dropped = recorded(attributes, maximum, limits.max_attribute_length)
    kept = BoundedAttributes(maximum, cleaned, immutable=True)
    kept.dropped = dropped
    return kept


def kept_links(links: Iterable[Link | None], limits: SpanLimits) -> list[Link]:
    """The links that lead somewhere or say something, with their attributes as they may be recorded."""
    kept = []
    for link in links:
        if link is not None and (link.context.is_valid or link.attributes or link.context.trace_state):
            link._attributes = bounded(link.attributes, limits.max_link_attributes, limits)
            kept.append(link)
    return kept
