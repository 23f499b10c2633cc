"""Addresses of collectors as settings hold them: what one looks like, and how it is shown.

An address may carry a user, a password and a key in its query. None of these may reach a log line, an
error or a screen.
"""

from __future__ import annotations

import re

__all__ = ["ADDRESS", "without_secrets"]

ADDRESS = r"^(https?://[^/\s?#]+|unix:/*[^/\s])\S*$"
"""What an address looks like: `http://host:port/path`, `https://…`, or a Unix socket, `unix:///path`."""

_HIDDEN = "..."


def without_secrets(address: str) -> str:
    """The address without user, password, query and fragment; of text that is none, as little."""
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "", address
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after:
        # A password that was not escaped may hold any of the three signs, so all of it may be one.
        return f"{scheme}{found}{_HIDDEN}"
    path = re.split(r"[?#]", after, maxsplit=1)[0]
    return f"{scheme}{found}{authority.rpartition('@')[2]}{path}"
