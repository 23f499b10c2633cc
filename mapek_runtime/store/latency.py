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
SELECT operation, (minute - ?1) / ?2, buckets, errors FROM minute WHERE minute BETWEEN ?3 AND ?4 {only}
"""
_MOST_STEPS = 10_000


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
            "WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR name = ?2)",
            (service, name),
        )
    }
    everything = service is None and name is None
    only = "" if everything else "AND operation IN (SELECT value FROM json_each(?5))"
    bound: list[object] = [base, minutes, first, last]
    if not everything:
        bound.append(str(sorted(known)))
    counts: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    errors: Counter[tuple[int, int]] = Counter()
    for operation, at, buckets, failed in connection.execute(_COUNTS.format(only=only), bound):
        counts[at, operation].update(read_buckets(buckets))
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
