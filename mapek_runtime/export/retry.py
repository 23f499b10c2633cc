"""When to try again: pure decisions over values, without clock, socket or randomness of their own.

The rules are those of the OTLP specification (opentelemetry-proto, docs/specification.md#otlphttp):
exactly four statuses may be tried again, with exponential backoff and jitter, and the server's
`Retry-After` comes before ours. Everything happens inside the deadline of one export.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["RETRYABLE_STATUSES", "Backoff", "parse_retry_after"]

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})

_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: the delay lies anywhere from 0 to a ceiling that doubles."""

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 30.0

    def ceiling(self, attempt: int) -> float:
        """The longest delay after failed attempt number `attempt`, counted from 1."""
        if attempt < 1:
            raise ValueError(f"attempt is {attempt}; attempts count from 1")
        # Beyond the point where the maximum certainly rules, the power could overflow.
        exponent = min(attempt - 1, 64)
        return min(self.maximum, self.initial * self.factor**exponent)

    def delay(
        self, attempt: int, *, chance: float, remaining: float, retry_after: float | None = None
    ) -> float | None:
        """Seconds to wait before the next attempt, or None when it would come after the deadline.

        `chance` is a number drawn from [0, 1), `remaining` the seconds until the deadline.
        """
        wait = chance * self.ceiling(attempt) if retry_after is None else retry_after
        return wait if wait < remaining else None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for, given as a number or as an HTTP date.

    None when there is no header or nobody can read it; a date in the past is 0.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
