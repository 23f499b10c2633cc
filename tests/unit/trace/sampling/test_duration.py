"""Unusual durations: found, bounded in share and in memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.trace.sampling.duration import (
    BURST,
    MOST_OPERATIONS,
    SHARE,
    WARM_UP,
    WINDOW,
    Durations,
    Usual,
)


def test_nothing_is_unusual_before_enough_has_been_seen() -> None:
    usual = Usual(2.0)

    assert [usual.judge(100) for _ in range(WARM_UP - 1)] == [False] * (WARM_UP - 1)
    assert not usual.judge(10_000)
    assert usual.judge(10_001)


def test_the_slowest_of_many_near_equal_ones_is_not_unusual() -> None:
    usual = Usual(2.0)
    rng = random.Random(1)

    assert not any(usual.judge(rng.randint(900, 1_100)) for _ in range(5_000))


def test_a_lasting_change_becomes_usual() -> None:
    usual = Usual(2.0)
    for _ in range(WINDOW):
        usual.judge(100)

    found = [usual.judge(500) for _ in range(WINDOW)]

    assert found[0]
    assert sum(found) <= WINDOW // 100 + 1
    assert not any(found[WINDOW // 2 :])


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_however_durations_are_spread_about_a_hundredth_is_unusual_at_most(spread: float) -> None:
    usual = Usual(1.0)
    rng = random.Random(2)

    found = sum(usual.judge(int(1_000_000 * rng.lognormvariate(0, spread))) for _ in range(20_000))

    assert 50 <= found <= 20_000 * SHARE + BURST


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=1_500), st.floats(1, 10))
def test_no_sequence_makes_more_than_the_share_unusual(durations: list[int], slow: float) -> None:
    usual = Usual(slow)

    found = [usual.judge(duration) for duration in durations]

    assert not any(found[:WARM_UP])
    assert sum(found) <= BURST + SHARE * len(durations)


def test_durations_that_grow_without_end_are_not_all_unusual() -> None:
    usual = Usual(1.0)

    found = sum(usual.judge(duration) for duration in range(10_000))

    assert found == pytest.approx(BURST + SHARE * 10_000, abs=2)


@given(st.lists(st.integers(0, 1_000), max_size=3 * WINDOW))
def test_the_window_is_what_was_seen_last(durations: list[int]) -> None:
    usual = Usual(2.0)

    for duration in durations:
        usual.judge(duration)

    assert list(usual._window) == durations[-WINDOW:]
    assert usual._sorted == sorted(durations[-WINDOW:])


def test_operations_are_told_apart_up_to_a_number() -> None:
    durations = Durations(2.0)
    for _ in range(WARM_UP):
        durations.judge("quick", 10)
        durations.judge("slow", 1_000)

    assert durations.judge("quick", 1_000)
    assert not durations.judge("slow", 1_100)
    for number in range(1_000):
        durations.judge(f"operation-{number}", 10)
    assert len(durations) == MOST_OPERATIONS
