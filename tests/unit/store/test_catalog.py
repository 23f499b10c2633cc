"""What is new is told once, also when more arrives while it is told."""

from __future__ import annotations

import time
from pathlib import Path

from mapek_runtime.store.catalog import newest
from mapek_runtime.store.functions import register
from mapek_runtime.store.query import parse
from mapek_runtime.store.schema import open_reader, open_writer
from mapek_runtime.store.writer import Writer

from .filling import request, span


def test_what_arrives_in_between_is_told_the_next_time(tmp_path: Path) -> None:
    writing = open_writer(tmp_path / "traces.sqlite")
    writer = Writer(writing)
    writer.write([request(span(1), span(2))])
    reading = open_reader(tmp_path / "traces.sqlite")
    register(reading)
    looked: list[str] = []

    def arrive(statement: str) -> None:
        # Called before each statement: at the second one the last row is known.
        looked.append(statement)
        if (
            sum("max(id)" in each for each in looked)
            and "max(id)" not in statement
            and "BEGIN" not in statement
        ):
            reading.set_trace_callback(None)
            writer.write([request(span(3))])

    reading.set_trace_callback(arrive)
    row, first = newest(reading, 0, parse(""), 100, time.monotonic() + 9)
    row, second = newest(reading, row, parse(""), 100, time.monotonic() + 9)
    assert [int(found.trace_id, 16) for found in first] == [2, 1]
    assert [int(found.trace_id, 16) for found in second] == [3]
    assert row == 3
    reading.close()
    writing.close()
