"""Percentiles of one operation and of several together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.store.model import Latency, Operation
from mapek_runtime.web.jaeger_metrics import percentile_of

DURATIONS = st.floats(0, 1e12)
SHARES = st.floats(0, 1)


def latency(p50: float, p95: float, p99: float, spans: int = 100) -> Latency:
    operation = Operation(service="s", name="o", kind="internal")
    return Latency(operation=operation, start=0, seconds=60, spans=spans, errors=0, p50=p50, p95=p95, p99=p99)


@st.composite
def latencies(draw: st.DrawFn) -> Latency:
    p50, p95, p99 = sorted(draw(st.tuples(DURATIONS, DURATIONS, DURATIONS)))
    return latency(p50, p95, p99, draw(st.integers(1, 1000)))


@pytest.mark.parametrize(("share", "duration"), [(0.5, 10.0), (0.95, 20.0), (0.99, 40.0), (1.0, 40.0)])
def test_what_the_store_knows_is_given_as_it_is(share: float, duration: float) -> None:
    assert percentile_of([latency(10, 20, 40)], share) == pytest.approx(duration)


def test_what_lies_between_is_between() -> None:
    assert 10 < percentile_of([latency(10, 20, 40)], 0.75) < 20
    assert 0 < percentile_of([latency(10, 20, 40)], 0.25) < 10


def test_many_quick_spans_hide_a_few_slow_ones_until_the_end() -> None:
    both = [latency(10, 10, 10, spans=900), latency(1000, 1000, 1000, spans=100)]

    assert percentile_of(both, 0.5) == pytest.approx(10)
    assert percentile_of(both, 0.89) == pytest.approx(10)
    assert percentile_of(both, 0.95) == pytest.approx(1000)


@given(st.lists(latencies(), min_size=1, max_size=4), SHARES, SHARES)
def test_a_higher_share_is_never_shorter(rows: list[Latency], one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert percentile_of(rows, low) <= percentile_of(rows, high) * (1 + 1e-9) + 1e-9


@given(latencies(), st.integers(1, 4), SHARES)
def test_the_same_operation_several_times_is_about_the_same(row: Latency, times: int, share: float) -> None:
    found = percentile_of([row] * times, share)

    assert 0 <= found <= row.p99 * (1 + 1e-9) + 1e-9
