"""Percentiles of operations over time, from the counts by minute; no span is looked at."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict

from mapek_runtime.errors import QueryError

from .minutes import read_buckets
from .model import Latency, Operation
from .query.dictionary import kind_of
from .rollup import MINUTE, percentile

__all__ = ["latencies"]

_COUNTS = """
SELECT operation, (minute - :base) / :minutes, buckets, errors FROM minute
WHERE minute BETWEEN :first AND :last {only}
"""
_MOST_STEPS = 10_000
_MOST_ROWS = 50_000
"""Of an answer: more operations and steps than anybody can look at, and about 50 MB."""


def latencies(
    connection: sqlite3.Connection,
    *,
    service: str | None,
    name: str | None,
    start: int | None,
    end: int | None,
    step: float | None,
) -> tuple[Latency, ...]:
    """A row for each operation and step, in the order of time; without a step one for the whole time."""
    first, last = connection.execute("SELECT min(minute), max(minute) FROM minute").fetchone()
    if first is None:
        return ()
    if start is not None:
        first = max(first, start // MINUTE)
    if end is not None:
        last = min(last, end // MINUTE)
    if last < first:
        return ()
    minutes = _minutes(step, last - first + 1)
    # Steps begin at their own multiples, so that the same question later gives the same ones.
    base = first if step is None else first - first % minutes
    known = {
        number: Operation(service=service, name=name, kind=kind_of(kind))
        for number, service, name, kind in connection.execute(
            "SELECT id, service, name, kind FROM operation "
            "WHERE (:service IS NULL OR service = :service) AND (:name IS NULL OR name = :name)",
            {"service": service, "name": name},
        )
    }
    everything = service is None and name is None
    only = "" if everything else "AND operation IN (SELECT value FROM json_each(:operations))"
    bound = {
        "base": base, "minutes": minutes, "first": first, "last": last, "operations": str(sorted(known))
    }  # fmt: skip
    counts: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    errors: Counter[tuple[int, int]] = Counter()
    for operation, at, buckets, failed in connection.execute(_COUNTS.format(only=only), bound):
        counts[at, operation].update(read_buckets(buckets))
        if len(counts) > _MOST_ROWS:
            raise QueryError(
                f"there are more than {_MOST_ROWS} operations and steps in this time; name a service or an "
                "operation, or take a longer step or a shorter time"
            )
        errors[at, operation] += failed
    return tuple(
        Latency(
            operation=known[operation],
            start=(base + at * minutes) * MINUTE,
            seconds=minutes * 60.0,
            spans=sum(buckets.values()),
            errors=errors[at, operation],
            p50=percentile(buckets, 0.5),
            p95=percentile(buckets, 0.95),
            p99=percentile(buckets, 0.99),
            counts=buckets,
        )
        for (at, operation), buckets in sorted(counts.items())
        if operation in known
    )


def _minutes(step: float | None, all_minutes: int) -> int:
    if step is None:
        return all_minutes
    if step < 60 or step % 60:
        raise QueryError(f"step is {step!r}; it must be a multiple of 60 seconds")
    minutes = int(step) // 60
    if all_minutes // minutes > _MOST_STEPS:
        raise QueryError(
            f"step is {step!r} and gives {all_minutes // minutes} steps; at most {_MOST_STEPS}: "
            "take a longer one, or a shorter time"
        )
    return minutes
