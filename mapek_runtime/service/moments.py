"""Moments as people write them: how long ago, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from mapek_runtime.errors import QueryError

__all__ = ["moment"]

_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str, *, now: int) -> int:
    """Nanoseconds since 1970 of `15m` (so long before `now`), `2026-11-22T08:00` or `2026-11-22`.

    A time without an offset is local. Raises `QueryError`.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - int(float(ago[1]) * _SECONDS[ago[2]] * 1e9)
        found = datetime.fromisoformat(text.strip())
        since = found.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise QueryError(
            f"{text!r} is no time; it must be how long ago, such as 15m, 2h or 1d, or a time such as "
            "2026-11-22T08:00 or 2026-11-22T08:00:00Z"
        ) from None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
