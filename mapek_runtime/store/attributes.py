"""Attributes of OTLP as Python values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = ["as_dict", "as_value", "find"]


def as_value(value: AnyValue) -> Any:
    """str, bool, int, float, bytes, None, or a list or a dict of these: what OTLP has."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [as_value(element) for element in value.array_value.values]
    if which == "kvlist_value":
        return as_dict(value.kvlist_value.values)
    return getattr(value, which)


def as_dict(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes by key; of a key that stands there twice, which OTLP forbids, the first."""
    values: dict[str, Any] = {}
    for attribute in attributes:
        if attribute.key not in values:
            values[attribute.key] = as_value(attribute.value)
    return values


def find(attributes: Iterable[KeyValue], key: str) -> Any:
    """The value of one key; None when it is not there."""
    for attribute in attributes:
        if attribute.key == key:
            return as_value(attribute.value)
    return None
