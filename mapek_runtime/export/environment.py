"""Reading `OTEL_*` variables the way the specification asks: a wrong value warns and is ignored."""

from __future__ import annotations

import logging
import math
import os
import re
from urllib.parse import unquote

__all__ = ["is_header", "read_headers", "read_number", "read_text"]

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def read_text(*names: str) -> str | None:
    """The first of the variables that is set; an empty one counts as unset."""
    for name in names:
        value = os.environ.get(name, "").strip()
        if value:
            return value
    return None


def read_number(*names: str, default: float, least: float = 1, whole: bool = False) -> float:
    """The first of the variables that is set to a number of at least `least`; a wrong one warns."""
    for name in names:
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if value >= least and value < math.inf:
            return value
        kind = "a whole number" if whole else "a number"
        logger.warning("%s is %r; it must be %s of at least %g; ignored", name, text, kind, least)
    return default


def read_headers(*names: str) -> dict[str, str]:
    """Headers written as `key=value,key=value`, percent-encoded, from the first variable that is set.

    An entry that cannot be read is left out; the warning names its place and not its text, because
    headers carry secrets.
    """
    for name in names:
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        headers: dict[str, str] = {}
        for place, entry in enumerate(text.split(","), 1):
            if not entry.strip():
                continue
            key, found, value = entry.partition("=")
            key, value = unquote(key.strip()).lower(), unquote(value.strip())
            if not found or not key or not is_header(key, value):
                logger.warning("%s: entry %d is not key=value; left out", name, place)
                continue
            headers[key] = value
        return headers
    return {}


def is_header(key: object, value: object) -> bool:
    """Whether the two can stand in an HTTP request: a token and a text on one line (RFC 9110, 5)."""
    return (
        isinstance(key, str)
        and isinstance(value, str)
        and _TOKEN.fullmatch(key) is not None
        and not any(character in "\r\n\0" for character in value)
    )
