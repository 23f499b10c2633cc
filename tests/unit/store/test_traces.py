"""A trace by its id: pages in the order of the starts, each span once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from mapek_runtime.errors import QueryError
from mapek_runtime.store import traces
from mapek_runtime.store.model import StoredTrace
from mapek_runtime.store.schema import open_writer
from mapek_runtime.store.writer import Writer

from .filling import NOW, SECOND, request, span


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_writer(tmp_path / "traces.sqlite")
    writer = Writer(made)
    # Ended first, and so sent first: the spans that began last. Two of them are sent twice.
    for numbers in ((5, 4), (3, 2, 5), (1, 4)):
        writer.write([request(*[span(9, number, start=NOW + number * SECOND) for number in numbers])])
    writer.write([request(span(10, 1))])
    yield made
    made.close()


def numbers(found: StoredTrace | None) -> list[int]:
    assert found is not None
    data = TracesData.FromString(found.data)
    return [
        int.from_bytes(each.span_id, "big")
        for group in data.resource_spans
        for within in group.scope_spans
        for each in within.spans
    ]


def test_spans_are_in_the_order_of_their_start_and_once(connection: sqlite3.Connection) -> None:
    found = traces.read(connection, f"{9:032x}", 0, 100)
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert found is not None
    assert (found.spans, found.total) == (5, 5)


def test_pages_follow_one_another(connection: sqlite3.Connection) -> None:
    pages = [numbers(traces.read(connection, f"{9:032x}", offset, 2)) for offset in (0, 2, 4, 6)]
    assert pages == [[1, 2], [3, 4], [5], []]


def test_of_a_very_large_trace_pages_are_in_the_order_of_arrival(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapek_runtime.store.traces._EXACT", 3)
    pages = [numbers(traces.read(connection, f"{9:032x}", offset, 3)) for offset in (0, 3, 6)]
    assert pages == [[3, 4, 5], [1, 2, 5], [4]]


@pytest.mark.parametrize("text", ["", "xyz", "0" * 33, "-1", "0x12", "\u0661\u0662"])
def test_what_is_no_id_is_refused(connection: sqlite3.Connection, text: str) -> None:
    with pytest.raises(QueryError, match="32 hexadecimal digits"):
        traces.read(connection, text, 0, 10)


def test_an_id_may_leave_its_zeros_out_and_may_be_in_capitals(connection: sqlite3.Connection) -> None:
    assert numbers(traces.read(connection, "A", 0, 10)) == [1]


def test_ids_are_found_by_their_beginning(connection: sqlite3.Connection) -> None:
    assert traces.ids(connection, "0" * 31, 5) == (f"{9:032x}", f"{10:032x}")
    assert traces.ids(connection, f"{9:032x}", 5) == (f"{9:032x}",)
    assert traces.ids(connection, "f", 5) == ()
    assert len(traces.ids(connection, "0", 1)) == 1
