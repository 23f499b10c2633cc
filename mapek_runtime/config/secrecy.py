"""What of a setting's value is shown, and what is not: on the screen, in an error, in a log line.

A type says so with `msgspec.Meta(extra=...)`: `{"secret": True}` is never shown, of `{"address": True}`
all but user, password and query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import msgspec.inspect

from .address import without_secrets

__all__ = ["HIDDEN", "LISTS", "alternatives", "is_discreet", "is_marked", "strip_secrets"]

HIDDEN = "(secret)"
LISTS = (msgspec.inspect.VarTupleType, msgspec.inspect.ListType)


def strip_secrets(value: Any, *kinds: msgspec.inspect.Type) -> Any:
    """The value without what any of the types that it may have declares as secret."""
    flat = list(alternatives(kinds))
    if not value:
        return value
    if any(is_marked(kind, "secret") for kind in flat):
        return HIDDEN
    if isinstance(value, str):
        return without_secrets(value) if any(is_marked(kind, "address") for kind in flat) else value
    if isinstance(value, list | tuple):
        items = [kind.item_type for kind in flat if isinstance(kind, LISTS)]
        return [strip_secrets(each, *items) for each in value]
    if isinstance(value, msgspec.Struct):
        # What is not set there says nothing.
        value = {name: found for name in value.__struct_fields__ if (found := getattr(value, name))}
    if isinstance(value, dict):
        fields = {
            each.name: each.type
            for kind in flat
            if isinstance(kind, msgspec.inspect.StructType)
            for each in kind.fields
        }
        if not fields:
            items = [kind.value_type for kind in flat if isinstance(kind, msgspec.inspect.DictType)]
            return {key: strip_secrets(each, *items) for key, each in value.items()}
        # A key that is misspelt may hold what the right one hides.
        return {
            key: strip_secrets(each, fields[key]) if key in fields else HIDDEN for key, each in value.items()
        }
    return value


def is_marked(info: msgspec.inspect.Type, word: str) -> bool:
    """Whether a type is declared as `word`."""
    return isinstance(info, msgspec.inspect.Metadata) and bool((info.extra or {}).get(word))


def is_discreet(info: msgspec.inspect.Type) -> bool:
    """Whether a value of a type may hold something that is not shown."""
    return any(is_marked(each, word) for each in _inside(info) for word in ("secret", "address"))


def alternatives(kinds: Iterable[msgspec.inspect.Type]) -> Iterator[msgspec.inspect.Type]:
    """Each type, and what it may be: the members of a union, what is under its declarations."""
    for kind in kinds:
        yield kind
        if isinstance(kind, msgspec.inspect.Metadata):
            yield from alternatives([kind.type])
        elif isinstance(kind, msgspec.inspect.UnionType):
            yield from alternatives(kind.types)


def _inside(info: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """The type, and every type in it."""
    for each in alternatives([info]):
        yield each
        if isinstance(each, LISTS):
            yield from _inside(each.item_type)
        elif isinstance(each, msgspec.inspect.StructType):
            for field in each.fields:
                yield from _inside(field.type)
