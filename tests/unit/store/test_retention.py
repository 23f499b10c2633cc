"""What is let go: the oldest first, a step at a time, and no more than must."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapek_runtime.store.retention import Retention, usage
from mapek_runtime.store.rollup import MINUTE
from mapek_runtime.store.schema import open_writer
from mapek_runtime.store.writer import Writer

from .filling import NOW, SECOND, request, span

HUGE = 1 << 40


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_writer(tmp_path / "traces.sqlite")
    yield made
    made.close()


def fill(connection: sqlite3.Connection, number: int, *, start: int = NOW, size: int = 10) -> Writer:
    text = {"text": "x" * size}
    writer = Writer(connection)
    for first in range(0, number, 500):
        writer.write([
            request(*[
                span(number=first + n + 1, start=start + (first + n) * SECOND, attributes=text)
                for n in range(500)
            ])
        ])  # fmt: skip
    return writer


def rows(connection: sqlite3.Connection) -> tuple[int, int]:
    first, last = connection.execute("SELECT min(id), max(id) FROM span").fetchone()
    return (first or 0, last or 0)


def test_nothing_goes_while_all_is_young_and_small(connection: sqlite3.Connection) -> None:
    fill(connection, 1000)
    retention = Retention(connection, max_age=2000 * SECOND, max_bytes=HUGE)
    assert retention.step(NOW + 1000 * SECOND, 1000) == 0
    assert rows(connection) == (1, 1000)


def test_a_part_goes_when_its_latest_span_is_too_old(connection: sqlite3.Connection) -> None:
    fill(connection, 3000)
    retention = Retention(connection, max_age=100 * SECOND, max_bytes=HUGE)
    # Parts are of 1,000 spans here: of two of them all spans are too old.
    now = NOW + 2000 * SECOND + 101 * SECOND
    while retention.step(now, 0):
        pass
    assert rows(connection) == (2001, 3000)
    assert connection.execute("SELECT min(first) FROM part").fetchone() == (2001,)


def test_a_step_lets_twice_as_many_go_as_came(connection: sqlite3.Connection) -> None:
    fill(connection, 10_000)
    retention = Retention(connection, max_age=1, max_bytes=HUGE)
    assert retention.step(NOW + 10**15, 0) == 1000
    assert 4000 <= retention.step(NOW + 10**15, 2000) <= 5000


def test_the_oldest_go_until_the_file_is_small_enough_and_its_space_is_used_again(
    connection: sqlite3.Connection,
) -> None:
    limit = 2 << 20
    retention = Retention(connection, max_age=10**15, max_bytes=limit)
    writer = Writer(connection)
    most = 0
    for turn in range(60):
        writer.write([
            request(*[
                span(number=turn * 500 + n + 1, attributes={"text": "x" * 200}) for n in range(500)
            ])
        ])  # fmt: skip
        retention.step(NOW, 500)
        most = max(most, usage(connection).file)
    assert usage(connection).used <= limit
    assert most < 2 * limit
    assert rows(connection)[1] == 30_000
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_lower_limit_gives_space_back_to_the_disk(connection: sqlite3.Connection) -> None:
    fill(connection, 10_000, size=500)
    before = usage(connection).file
    retention = Retention(connection, max_age=10**15, max_bytes=1 << 20)
    while retention.step(NOW, 0):
        pass
    for _ in range(100):
        retention.step(NOW, 0)
    assert usage(connection).file < before / 3


def test_half_a_part_may_go(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapek_runtime.store.retention._STEP", 300)
    fill(connection, 1000)
    retention = Retention(connection, max_age=1, max_bytes=HUGE)
    assert retention.step(NOW + 10**15, 0) == 300
    assert connection.execute("SELECT first, last, earliest FROM part").fetchall() == [
        (301, 1000, NOW + 300 * SECOND)
    ]


def test_a_writer_goes_on_after_its_own_part_went(connection: sqlite3.Connection) -> None:
    writer = fill(connection, 500)
    retention = Retention(connection, max_age=1, max_bytes=HUGE)
    retention.step(NOW + 10**15, 0)
    assert connection.execute("SELECT count(*) FROM part").fetchone() == (0,)
    writer.write([request(span(number=9))])
    (first, last), *_ = connection.execute("SELECT first, last FROM part").fetchall()
    assert (first, last) == rows(connection)


def test_minutes_go_by_age_and_by_number(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(connection, 3000)
    last = (NOW + 2999 * SECOND) // MINUTE
    Retention(connection, max_age=10 * MINUTE, max_bytes=HUGE).step(last * MINUTE, 0)
    (oldest,) = connection.execute("SELECT min(minute) FROM minute").fetchone()
    assert oldest == last - 10
    monkeypatch.setattr("mapek_runtime.store.retention._MOST_MINUTES", 4)
    Retention(connection, max_age=10**15, max_bytes=HUGE).step(last * MINUTE, 0)
    assert connection.execute("SELECT count(*) FROM minute").fetchone() == (4,)


def test_a_span_of_the_future_keeps_nothing_but_its_neighbours(connection: sqlite3.Connection) -> None:
    Writer(connection).write([request(span(start=NOW + 10**6 * SECOND))])
    fill(connection, 3000)
    retention = Retention(connection, max_age=SECOND, max_bytes=HUGE)
    while retention.step(NOW + 10_000 * SECOND, 0):
        pass
    assert 1 <= rows(connection)[1] <= 1024
    assert connection.execute("SELECT sum(last - first + 1) FROM part").fetchone() == (rows(connection)[1],)


def test_of_large_spans_only_as_many_go_as_must(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    retention = Retention(connection, max_age=10**15, max_bytes=4 << 20)
    for turn in range(60):
        writer.write([
            request(*[span(number=turn * 10 + n + 1, attributes={"text": "x" * 20_000}) for n in range(10)])
        ])  # fmt: skip
        retention.step(NOW, 10)
    first, last = rows(connection)
    assert last == 600
    assert last - first > 180
    assert usage(connection).used <= 4 << 20


def test_a_name_for_each_request_leaves_room_for_spans(connection: sqlite3.Connection) -> None:
    limit = 2 << 20
    writer = Writer(connection)
    retention = Retention(connection, max_age=10**15, max_bytes=limit)
    for turn in range(60):
        writer.write([
            request(*[
                span(number=turn * 500 + n + 1, name=f"GET /order/{turn * 500 + n}") for n in range(500)
            ])
        ])  # fmt: skip
        retention.step(NOW, 500)
        if retention.forgot():
            writer.forget()
    assert usage(connection).file < 2 * limit
    first, last = rows(connection)
    (operations,) = connection.execute("SELECT count(*) FROM operation").fetchone()
    assert last - first > 4000
    assert operations < 2 * (last - first)
    (strangers,) = connection.execute(
        "SELECT count(*) FROM span WHERE operation NOT IN (SELECT id FROM operation)"
    ).fetchone()
    assert strangers == 0


def test_operations_that_are_counted_stay(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapek_runtime.store.retention._MANY_OPERATIONS", 0)
    writer = Writer(connection)
    writer.write([request(span(name="counted"), span(number=2, name="gone", start=SECOND))])
    retention = Retention(connection, max_age=10**6 * SECOND, max_bytes=HUGE)
    connection.execute("DELETE FROM span")
    retention.step(NOW, 1)
    assert connection.execute("SELECT name FROM operation").fetchall() == [("counted",)]
    assert retention.forgot()
    assert not retention.forgot()


def test_counts_of_names_that_are_ever_new_go_first(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    writer.write([request(span(name="known"))])
    names = [span(number=n + 2, name=f"GET /order/{n}") for n in range(2000)]
    writer.write([request(*names)])
    Retention(connection, max_age=10**15, max_bytes=2 << 20).step(NOW, 2001)
    kept = connection.execute(
        "SELECT name FROM minute JOIN operation ON operation.id = minute.operation ORDER BY operation.id"
    ).fetchall()
    assert len(kept) == 1024
    assert kept[0] == ("known",)
