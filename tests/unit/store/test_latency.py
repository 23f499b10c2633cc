"""Percentiles over time: what they are asked for may not be without end."""

from __future__ import annotations

from contextlib import closing

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store import latency
from mapek_runtime.store.latency import latencies
from tests.unit.store.filled import filled, send, span

NAMES = [f"GET /users/{number}" for number in range(5)]


def test_more_rows_than_an_answer_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(filled([])) as connection:
        send(connection, [span(name=name) for name in NAMES])
        monkeypatch.setattr(latency, "_MOST_ROWS", 5)
        all_of_them = latencies(connection, service=None, name=None, start=None, end=None, step=None)
        monkeypatch.setattr(latency, "_MOST_ROWS", 4)

        with pytest.raises(QueryError, match="more than 4 operations and steps in this time; name a service"):
            latencies(connection, service=None, name=None, start=None, end=None, step=None)
        one = latencies(connection, service=None, name=NAMES[3], start=None, end=None, step=None)

    assert sorted(each.operation.name for each in all_of_them) == NAMES
    assert [each.operation.name for each in one] == [NAMES[3]]
