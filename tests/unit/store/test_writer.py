"""The writer: every span of a request is in the file once it says so, with its counts and its time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapek_runtime.store.rollup import MINUTE, bucket_of
from mapek_runtime.store.schema import open_writer
from mapek_runtime.store.writer import Writer

from .filling import NOW, SECOND, request, span


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_writer(tmp_path / "traces.sqlite")
    yield made
    made.close()


def count(connection: sqlite3.Connection, table: str) -> int:
    (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(rows)


@pytest.mark.parametrize("number", [1, 3, 16, 63, 64, 65, 200])
def test_every_span_becomes_one_row_however_many_there_are(
    connection: sqlite3.Connection, number: int
) -> None:
    spans = [span(number=each) for each in range(1, number + 1)]
    (written,) = Writer(connection).write([request(*spans)])
    assert (written.spans, written.refused, written.error) == (number, 0, "")
    ids = [
        int.from_bytes(each, "big") for (each,) in connection.execute("SELECT span_id FROM span ORDER BY id")
    ]
    assert ids == list(range(1, number + 1))


def test_columns_hold_what_queries_ask_for(connection: sqlite3.Connection) -> None:
    Writer(connection).write([
        request(span(7, 2, 1, name="plan", kind=3, status=2, start=NOW, duration=5 * SECOND), service="x0")
    ])  # fmt: skip
    assert connection.execute(
        "SELECT trace_id, span_id, parent_id, service, name, kind, status, start, duration "
        "FROM span JOIN operation ON operation.id = operation"
    ).fetchall() == [
        (
            (7).to_bytes(16, "big"),
            (2).to_bytes(8, "big"),
            (1).to_bytes(8, "big"),
            "x0",
            "plan",
            3,
            2,
            NOW,
            5 * SECOND,
        )
    ]


def test_operations_and_sources_are_written_once(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    for number in range(1, 4):
        writer.write([request(span(number=number)), request(span(number=number + 10), scope="other")])
    Writer(connection).write([request(span(number=99))])
    assert (count(connection, "operation"), count(connection, "source"), count(connection, "span")) == (
        1,
        2,
        7,
    )


def test_minutes_count_durations_and_errors(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    minute = NOW // MINUTE
    for _ in range(2):
        writer.write([
            request(
                span(duration=1000),
                span(number=2, duration=1000, status=2),
                span(number=3, start=NOW + MINUTE),
            )
        ])  # fmt: skip
    rows = connection.execute("SELECT minute, spans, errors, buckets FROM minute ORDER BY minute").fetchall()
    assert rows == [
        (minute, 4, 2, f'{{"{bucket_of(1000)}":4}}'),
        (minute + 1, 2, 0, f'{{"{bucket_of(1_000_000)}":2}}'),
    ]


def test_parts_cover_all_rows_and_their_times(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    for start in range(30):
        writer.write([
            request(*[span(number=n, start=NOW - start * SECOND + n) for n in range(1, 101)])
        ])  # fmt: skip
    parts = connection.execute("SELECT first, last, earliest, latest FROM part ORDER BY first").fetchall()
    assert [part[0] for part in parts[1:]] == [part[1] + 1 for part in parts[:-1]]
    assert (parts[0][0], parts[-1][1]) == (1, 3000)
    assert len(parts) == 3
    for first, last, earliest, latest in parts:
        assert connection.execute(
            "SELECT min(start), max(start) FROM span WHERE id BETWEEN ? AND ?", (first, last)
        ).fetchone() == (earliest, latest)


def test_a_request_that_is_broken_is_left_out_as_a_whole(connection: sqlite3.Connection) -> None:
    good = request(*[span(number=each, name=f"good {each}") for each in range(1, 200)])
    whole = request(*[span(2, each, name=f"broken {each}") for each in range(1, 200)])
    writer = Writer(connection)
    first, broken, last = writer.write([good, whole[:-3], request(span(3))])
    assert (first.spans, broken.spans, last.spans) == (199, 0, 1)
    assert broken.error
    assert count(connection, "span") == 200
    assert connection.execute("SELECT sum(spans) FROM minute").fetchone() == (200,)
    # What the broken one made known is not taken for known.
    (again,) = writer.write([whole])
    assert again.spans == 199
    names = connection.execute(
        "SELECT count(*) FROM span JOIN operation ON operation.id = operation"
    ).fetchone()
    assert names == (399,)


def test_spans_without_valid_ids_are_refused_and_the_others_kept(connection: sqlite3.Connection) -> None:
    bad = span()
    bad.trace_id = b"short"
    (written,) = Writer(connection).write([request(bad, span(0, 1), span(1, 0), span(number=2))])
    assert (written.spans, written.refused) == (1, 3)


def test_a_resource_that_is_none_is_told_to_its_sender_alone(connection: sqlite3.Connection) -> None:
    # A Resource whose first attribute says that it is longer than it is.
    broken = request(span()).replace(b"\x0a\x16\x0a\x0c", b"\x0a\x16\x0a\x7f")
    good, bad = Writer(connection).write([request(span(number=2)), broken])
    assert (good.spans, good.error) == (1, "")
    assert (bad.spans, bool(bad.error)) == (0, True)


def test_after_a_failed_transaction_nothing_is_there_and_the_next_one_works(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    connection = open_writer(path)
    writer = Writer(connection)
    connection.execute("PRAGMA max_page_count = 30")
    big = request(*[span(number=n, attributes={"text": "x" * 5000}) for n in range(1, 60)])
    with pytest.raises(sqlite3.OperationalError, match="full"):
        writer.write([big])
    assert count(connection, "span") == 0
    connection.execute("PRAGMA max_page_count = 100000")
    (written,) = writer.write([big])
    assert written.spans == 59
    assert connection.execute("SELECT count(*) FROM span JOIN source ON source.id = source").fetchone() == (
        59,
    )
    connection.close()


def test_a_resource_without_a_name_is_the_specification_s_unknown_service(
    connection: sqlite3.Connection,
) -> None:
    made = ExportTraceServiceRequest()
    made.resource_spans.add().scope_spans.add().spans.append(span())
    Writer(connection).write([made.SerializeToString()])
    assert connection.execute("SELECT service FROM operation").fetchall() == [("unknown_service",)]


def test_more_names_than_are_remembered_are_all_kept(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapek_runtime.store.writer._KNOWN", 3)
    writer = Writer(connection)
    for _ in range(2):
        writer.write([request(*[span(number=n, name=f"name {n}") for n in range(1, 11)])])
    assert count(connection, "operation") == 10
