"""When to try again: pure decisions over values, and the one loop of attempts that follows them.

The rules are those of the OTLP specification (opentelemetry-proto, docs/specification.md#otlphttp):
exactly four statuses may be tried again, with exponential backoff and jitter, and the server's
`Retry-After` comes before ours. Everything happens inside the deadline of one export.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from mapek_runtime.errors import TransportError

__all__ = ["RETRYABLE_STATUSES", "Backoff", "parse_retry_after", "persist"]

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})

Result = TypeVar("Result")

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
        # "At once" is no answer to how long: a collector that repeats it would be asked without a pause.
        wait = retry_after or chance * min(self.ceiling(attempt), remaining)
        return wait if wait < remaining else None


async def persist(
    attempt: Callable[[], Awaitable[Result]],
    *,
    deadline: float,
    backoff: Backoff,
    chance: Callable[[], float],
) -> Result:
    """Await `attempt()` until it succeeds, fails for good or the deadline, on the loop's clock, is near.

    `chance` draws a number from [0, 1). Raises the TransportError that says most: when the deadline cut
    the last attempt short (its `error_type` is "timeout"), the one before it.
    """
    clock = asyncio.get_running_loop().time
    number = 0
    earlier: TransportError | None = None
    while True:
        number += 1
        try:
            return await attempt()
        except TransportError as error:
            told = error if earlier is None or error.error_type != "timeout" else earlier
            wait = None
            if error.retryable:
                wait = backoff.delay(
                    number,
                    chance=chance(),
                    remaining=deadline - clock(),
                    retry_after=error.retry_after,
                )
            if wait is None:
                if number > 1:
                    told.args = (f"{told}, after {number} attempts",)
                raise told from None
            earlier = error
        await asyncio.sleep(wait)


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
