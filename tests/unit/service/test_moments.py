"""Moments as people write them."""

from __future__ import annotations

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.service.moments import moment

NOW = 1_700_000_000_123_456_789
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("2h", 7200), ("1.5d", 129_600), ("30s", 30), (" 1w ", 604_800)]
)
def test_so_long_ago(text: str, seconds: int) -> None:
    assert moment(text, now=NOW) == NOW - seconds * SECOND


def test_a_time_with_an_offset_is_exact() -> None:
    assert moment("2023-11-14T22:13:20.123456Z", now=0) == 1_700_000_000_123_456_000
    assert moment("2023-11-15T00:13:20+02:00", now=0) == 1_700_000_000 * SECOND


@pytest.mark.parametrize("text", ["", "yesterday", "15", "15 minutes", "2026-13-01", "9" * 400 + "d"])
def test_what_is_no_time_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(QueryError, match=r"how long ago, such as 15m"):
        moment(text, now=NOW)
