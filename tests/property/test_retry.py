"""When to try again, for every attempt, header and deadline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.export.retry import RETRYABLE_STATUSES, Backoff, parse_retry_after

attempts = st.integers(1, 100_000)
chances = st.floats(0, 1, exclude_max=True)
times = st.floats(0, 1e6)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(attempts, chances, times, st.none() | times)
def test_no_delay_reaches_beyond_the_deadline(
    attempt: int, chance: float, remaining: float, retry_after: float | None
) -> None:
    delay = Backoff().delay(attempt, chance=chance, remaining=remaining, retry_after=retry_after)

    assert delay is None or 0 <= delay < remaining


@given(attempts, chances)
def test_the_jitter_is_full_and_stays_below_the_ceiling(attempt: int, chance: float) -> None:
    backoff = Backoff(initial=1, factor=2, maximum=30)

    assert backoff.delay(attempt, chance=chance, remaining=1e9) == chance * backoff.ceiling(attempt)
    assert backoff.ceiling(attempt) == min(30, 2.0 ** min(attempt - 1, 64))


@given(attempts, chances, st.floats(0, 1e6, exclude_min=True))
def test_what_the_collector_asks_for_comes_before_our_backoff(
    attempt: int, chance: float, asked: float
) -> None:
    assert Backoff().delay(attempt, chance=chance, remaining=1e9, retry_after=asked) == asked


@given(attempts, chances)
def test_a_collector_that_asks_for_no_delay_leaves_ours(attempt: int, chance: float) -> None:
    backoff = Backoff()

    assert backoff.delay(attempt, chance=chance, remaining=1e9, retry_after=0.0) == backoff.delay(
        attempt, chance=chance, remaining=1e9
    )


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="attempt is 0"):
        Backoff().ceiling(0)


@given(st.integers(0, 999_999_999))
def test_retry_after_may_be_seconds(seconds: int) -> None:
    assert parse_retry_after(f" {seconds} ", NOW) == seconds


@given(st.integers(-100_000, 100_000))
def test_retry_after_may_be_a_date_and_a_past_one_means_now(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)

    assert parse_retry_after(header, NOW) == max(0, seconds)


@given(st.none() | st.text())
def test_a_header_that_nobody_can_read_is_no_header(text: str | None) -> None:
    found = parse_retry_after(text, NOW)

    assert found is None or found >= 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "Fri, 99 Foo 2026 00:00:00 GMT", "9" * 400])
def test_nonsense_in_retry_after_is_ignored(text: str) -> None:
    assert parse_retry_after(text, NOW) is None


def test_exactly_four_statuses_are_tried_again() -> None:
    assert {429, 502, 503, 504} == RETRYABLE_STATUSES
