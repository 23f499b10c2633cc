"""Percentiles of one operation and of several together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.store.model import Latency, Operation
from mapek_runtime.store.rollup import bucket_of, percentile
from mapek_runtime.web.jaeger_metrics import percentile_of

MS = 1_000_000


def latency(*durations: int) -> Latency:
    counts: dict[int, int] = {}
    for duration in durations:
        counts[bucket_of(duration)] = counts.get(bucket_of(duration), 0) + 1
    p50, p95, p99 = (percentile(counts, share) for share in (0.5, 0.95, 0.99))
    return Latency(
        operation=Operation(service="s", name="o", kind="internal"),
        start=0, seconds=60, spans=len(durations), errors=0, p50=p50, p95=p95, p99=p99, counts=counts,
    )  # fmt: skip


def test_every_share_of_one_operation_is_read_from_its_counts() -> None:
    row = latency(*[each * MS for each in range(1, 101)])
    for share in (0.05, 0.25, 0.5, 0.75, 0.9, 0.99):
        assert percentile_of([row], share) == pytest.approx(share * 100 * MS, rel=0.05)


def test_many_quick_spans_hide_a_few_slow_ones_until_the_end() -> None:
    both = [latency(*[10 * MS] * 900), latency(*[1000 * MS] * 100)]
    assert percentile_of(both, 0.5) == pytest.approx(10 * MS, rel=0.05)
    assert percentile_of(both, 0.89) == pytest.approx(10 * MS, rel=0.05)
    assert percentile_of(both, 0.95) == pytest.approx(1000 * MS, rel=0.05)


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=1), min_size=1, max_size=3), st.floats(0.01, 1))
def test_operations_apart_give_what_they_give_together(durations: list[list[int]], share: float) -> None:
    apart = percentile_of([latency(*each) for each in durations], share)
    together = percentile_of([latency(*[one for each in durations for one in each])], share)
    assert apart == together
