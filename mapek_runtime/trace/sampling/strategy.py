"""Sampling strategies: what a Jaeger server can say, and what follows from it for one span.

Values, a token bucket and decisions; whoever asks brings the time. The strategies are those of
Jaeger's remote sampling API (jaeger-idl, proto/api_v2/sampling.proto).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .threshold import LEAST_RATIO, threshold_of

__all__ = [
    "Decider",
    "PerOperation",
    "Probabilistic",
    "RateLimiting",
    "Strategy",
    "TokenBucket",
    "UNKNOWN",
    "describe_strategy",
]

UNKNOWN = -1
"""Kept, and nobody can say with which probability."""
MOST_OPERATIONS = 2000
"""Operations that have bounds of their own; what comes later goes by the probability alone."""


@dataclass(frozen=True, slots=True)
class Probabilistic:
    """A share of all traces."""

    rate: float


@dataclass(frozen=True, slots=True)
class RateLimiting:
    """So many traces a second."""

    per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PerOperation:
    """A share for each root operation, within bounds in traces a second; no upper bound is 0."""

    default: float
    lower_bound: float = 0.0
    upper_bound: float = 0.0
    operations: Mapping[str, float] = field(default_factory=dict)


Strategy = Probabilistic | RateLimiting | PerOperation


def describe_strategy(strategy: Strategy) -> str:
    """The strategy in a few words, for logs and descriptions."""
    match strategy:
        case Probabilistic(rate=rate):
            return f"probabilistic {rate:g}"
        case RateLimiting(per_second=per_second):
            return f"rate limiting {per_second:g}/s"
        case PerOperation():
            return f"per operation ({len(strategy.operations)} named, others {strategy.default:g})"


class TokenBucket:
    """Lets `rate` a second pass, and up to a second's worth at once, but at least one."""

    __slots__ = ("_at", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate) if rate > 0 else 0.0
        self._tokens = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more may pass now. A clock that goes backwards gives nothing."""
        if now > self._at:
            self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Decider:
    """Decides by one strategy. Its only state are token buckets."""

    __slots__ = ("_buckets", "_default", "_limit", "_thresholds", "strategy")

    def __init__(self, strategy: Strategy, now: float) -> None:
        self.strategy = strategy
        self._limit: TokenBucket | None = None
        self._default: int | None = None
        self._thresholds: dict[str, int | None] = {}
        self._buckets: dict[str, tuple[TokenBucket, TokenBucket | None]] | None = None
        match strategy:
            case Probabilistic(rate=rate):
                self._default = _threshold(rate)
            case RateLimiting(per_second=per_second):
                self._limit = TokenBucket(per_second, now)
            case PerOperation():
                self._default = _threshold(strategy.default)
                self._thresholds = {name: _threshold(rate) for name, rate in strategy.operations.items()}
                if strategy.lower_bound > 0 or strategy.upper_bound > 0:
                    self._buckets = {}

    @property
    def thresholds(self) -> frozenset[int]:
        """Every threshold that a decision can give."""
        found = {self._default, *self._thresholds.values()}
        return frozenset(each for each in found if each is not None)

    @property
    def needs_time(self) -> bool:
        """Whether a decision depends on the time at all."""
        return self._limit is not None or self._buckets is not None

    def decide(self, randomness: int, operation: str, now: float) -> int | None:
        """The threshold at which a span is kept, `UNKNOWN`, or None when it is dropped.

        A threshold is given only where nothing but the threshold decided.
        """
        if self._limit is not None:
            return UNKNOWN if self._limit.take(now) else None
        threshold = self._thresholds.get(operation, self._default) if self._thresholds else self._default
        kept = threshold is not None and randomness >= threshold
        if self._buckets is None:
            return threshold if kept else None
        bounds = self._bounds(operation, now)
        if bounds is None:
            return threshold if kept else None
        lower, upper = bounds
        # What the probability keeps counts towards the lower bound, so the bound adds only what is missing.
        guaranteed = lower.take(now)
        if not (kept or guaranteed):
            return None
        if upper is not None:
            return UNKNOWN if upper.take(now) else None
        return threshold if kept else UNKNOWN

    def _bounds(self, operation: str, now: float) -> tuple[TokenBucket, TokenBucket | None] | None:
        buckets = self._buckets
        assert buckets is not None
        bounds = buckets.get(operation)
        if bounds is None and len(buckets) < MOST_OPERATIONS:
            strategy = self.strategy
            assert isinstance(strategy, PerOperation)
            upper = TokenBucket(strategy.upper_bound, now) if strategy.upper_bound > 0 else None
            bounds = buckets[operation] = (TokenBucket(strategy.lower_bound, now), upper)
        return bounds


def _threshold(rate: float) -> int | None:
    # A rate below what a threshold can say is one trace in 7e16: none.
    return threshold_of(rate) if rate >= LEAST_RATIO else None
