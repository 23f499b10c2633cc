"""What the page is told, as JSON: whatever is in it, for one text that is none must not end the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["json_for_page"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""Of the whole numbers that can be written."""


def json_for_page(data: Any) -> bytes:
    """`data` as JSON; what JSON has no form for is written as a string."""
    try:
        return msgspec.json.encode(data, enc_hook=str)
    except (UnicodeEncodeError, OverflowError):
        # Python keeps bytes that are no text, as in the name of a file, as surrogates.
        return msgspec.json.encode(_legible(msgspec.to_builtins(data, enc_hook=str, str_keys=True)))


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, int):
        return value if _LEAST <= value <= _MOST else str(value)
    if isinstance(value, Mapping):
        return {_legible(key): _legible(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(each) for each in value]
    return value
