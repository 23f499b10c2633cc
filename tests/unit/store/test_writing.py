"""The thread that writes: requests share transactions, and each one learns what became of it."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from pathlib import Path

import pytest

from mapek_runtime.errors import StoreError
from mapek_runtime.store.writing import Writing

from .filling import NOW, SECOND, request, span


def writing(path: Path) -> Writing:
    return Writing(path, max_age=1e10, max_bytes=1 << 30)


async def test_requests_that_come_at_once_share_a_transaction(tmp_path: Path) -> None:
    store = writing(tmp_path / "traces.sqlite")
    await store.open()
    written = await asyncio.gather(*[store.write(request(span(number))) for number in range(1, 51)])
    assert [each.spans for each in written] == [1] * 50
    assert store.statistics.written == store.statistics.spans == store.statistics.last == 50
    assert store.statistics.transactions < 25
    await store.aclose()


async def test_a_broken_request_is_told_to_its_sender_alone(tmp_path: Path) -> None:
    store = writing(tmp_path / "traces.sqlite")
    good, bad = await asyncio.gather(store.write(request(span())), store.write(b"\x0a\x05nonsense"))
    assert (good.spans, good.error) == (1, "")
    assert (bad.spans, bool(bad.error)) == (0, True)
    await store.aclose()


async def test_statistics_say_what_is_in_the_file(tmp_path: Path) -> None:
    store = writing(tmp_path / "traces.sqlite")
    await store.write(request(span(start=NOW), span(number=2, start=NOW + SECOND)))
    await store.aclose()
    again = writing(tmp_path / "traces.sqlite")
    await again.open()
    found = again.statistics
    assert (found.spans, found.oldest, found.newest, found.last, found.written) == (
        2,
        NOW,
        NOW + SECOND,
        2,
        0,
    )
    assert found.bytes > 4096
    await again.aclose()


async def test_old_spans_go_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = Writing(path, max_age=60, max_bytes=1 << 30)
    # Of last year: gone as soon as they are written.
    await store.write(request(*[span(number=each) for each in range(1, 101)]))
    assert (store.statistics.spans, store.statistics.deleted) == (0, 100)
    await store.aclose()


async def test_a_file_that_cannot_be_had_is_an_error_each_time_and_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "traces.sqlite"
    path.parent.touch()
    store = writing(path)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be used"):
            await store.write(request(span()))
    path.parent.unlink()
    assert (await store.write(request(span()))).spans == 1
    await store.aclose()


async def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    stores = [writing(path) for _ in range(2)]
    await asyncio.gather(*[
        stores[number % 2].write(request(span(number), span(number, 2, name=f"name {number % 5}")))
        for number in range(1, 101)
    ])  # fmt: skip
    for store in stores:
        await store.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute(
        "SELECT count(*) FROM span JOIN operation ON operation.id = operation"
    ).fetchone() == (200,)
    assert connection.execute("SELECT count(*) FROM operation").fetchone() == (6,)
    assert connection.execute("SELECT sum(last - first + 1) FROM part").fetchone() == (200,)
    connection.close()


async def test_what_was_given_up_before_its_turn_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = writing(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = asyncio.create_task(store.write(request(span(1))))
    await asyncio.sleep(0)
    while store._waiting:  # noqa: ASYNC110 - it is another thread that takes it
        await asyncio.sleep(0)
    # The first one waits for the other process; this one waits for the first.
    second = asyncio.create_task(store.write(request(span(2))))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    other.execute("ROLLBACK")
    await first
    await store.write(request(span(3)))
    assert [int.from_bytes(trace, "big") for (trace,) in other.execute("SELECT trace_id FROM span")] == [1, 3]
    other.close()
    await store.aclose()


async def test_what_was_given_up_while_another_process_wrote_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = writing(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = asyncio.create_task(store.write(request(span(1))))
    await asyncio.sleep(0)
    while store._waiting:  # noqa: ASYNC110 - it is another thread that takes it
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    other.execute("ROLLBACK")
    await store.write(request(span(2)))
    assert [int.from_bytes(trace, "big") for (trace,) in other.execute("SELECT trace_id FROM span")] == [2]
    other.close()
    await store.aclose()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_of_fork_writes_by_a_connection_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = writing(path)
    await store.write(request(span(1)))
    child = os.fork()
    if not child:
        code = 1
        try:
            store.after_fork()
            code = 0 if asyncio.run(_write_in_child(store)) == 1 else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (await store.write(request(span(3)))).spans == 1
    assert store.statistics.spans == 3
    await store.aclose()


async def _write_in_child(store: Writing) -> int:
    return (await store.write(request(span(2)))).spans


async def test_two_writers_with_retention_agree_about_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    stores = [Writing(path, max_age=1e10, max_bytes=1 << 20) for _ in range(2)]
    text = {"text": "x" * 500}
    for number in range(1, 60):
        await stores[number % 2].write(
            request(*[span(number, each, name=f"{number}", attributes=text) for each in range(1, 61)])
        )
    for store in stores:
        await store.aclose()
    connection = sqlite3.connect(path)
    (spans,) = connection.execute("SELECT count(*) FROM span").fetchone()
    assert 60 < spans < 59 * 60
    parts = connection.execute("SELECT first, last FROM part ORDER BY first").fetchall()
    assert sum(last - first + 1 for first, last in parts) == spans
    named = connection.execute("SELECT count(*) FROM span JOIN operation ON operation.id = operation")
    assert named.fetchone() == (spans,)
    connection.close()


async def test_what_another_writer_let_go_is_not_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapek_runtime.store.retention._MANY_OPERATIONS", 0)
    path = tmp_path / "traces.sqlite"
    patient, strict = writing(path), Writing(path, max_age=1, max_bytes=1 << 30)
    await patient.write(request(span(1, name="seldom")))
    # Lets go of everything, also of what the span is called.
    await strict.write(request(span(2, name="other")))
    await patient.write(request(span(3, name="seldom")))
    connection = sqlite3.connect(path)
    assert connection.execute(
        "SELECT name FROM span JOIN operation ON operation.id = operation"
    ).fetchall() == [("seldom",)]
    assert connection.execute("SELECT first, last FROM part").fetchall() == [(3, 3)]
    connection.close()
    for store in (patient, strict):
        await store.aclose()


@pytest.mark.parametrize("left", ["nothing", "-wal", "the file elsewhere"])
async def test_a_file_that_was_deleted_is_made_anew(
    tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "traces.sqlite"
    store = writing(path)
    await store.write(request(span(1)))
    if left == "the file elsewhere":
        path.rename(tmp_path / "elsewhere")
    for each in ("", "-shm", "-wal"):
        if each != left:
            path.with_name(path.name + each).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        await store.write(request(span(2)))
        await store.write(request(span(3)))
    assert [record.getMessage().count("was deleted or replaced") for record in caplog.records] == [1]
    assert store.statistics.spans == 2
    await store.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM span").fetchone() == (2,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_closing_waits_for_the_write_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    much = request(*[span(trace, each) for trace in range(1, 41) for each in range(1, 51)])
    for turn in range(1, 11):
        store = writing(path)
        await store.open()
        sending = asyncio.create_task(store.write(much))
        while not store._waiting:  # noqa: ASYNC110 - so that it is on its way
            await asyncio.sleep(0)
        await asyncio.sleep(turn / 1000)
        await store.aclose()
        assert (await sending).spans == 2000
        # Twice is once.
        await store.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM span").fetchone() == (20_000,)
    connection.close()


async def test_no_row_is_numbered_twice(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = Writing(path, max_age=60, max_bytes=1 << 30)
    await store.write(request(span(1), span(2)))
    kept = writing(path)
    await kept.write(request(span(3)))
    assert (kept.statistics.spans, kept.statistics.last) == (1, 3)
    for each in (store, kept):
        await each.aclose()


async def test_an_age_without_end_is_one(tmp_path: Path) -> None:
    store = Writing(tmp_path / "traces.sqlite", max_age=float("inf"), max_bytes=1 << 30)
    await store.write(request(span(1, start=0)))
    assert store.statistics.spans == 1
    await store.aclose()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_parent_that_closes_leaves_the_file_to_its_child(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite"
    store = writing(path)
    await store.write(request(span(1)))
    (told, tell), (closed, close) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            store.after_fork()
            code = asyncio.run(_write_before_and_after(store, tell, closed))
        finally:
            os._exit(code)
    await asyncio.to_thread(os.read, told, 1)
    await store.aclose()
    os.write(close, b"1")
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    for each in (told, tell, closed, close):
        os.close(each)
    assert os.waitstatus_to_exitcode(status) == 0
    connection = sqlite3.connect(path)
    found = [int.from_bytes(trace, "big") for (trace,) in connection.execute("SELECT trace_id FROM span")]
    connection.close()
    assert found == [1, 2, 3]


async def _write_before_and_after(store: Writing, tell: int, closed: int) -> int:
    await store.write(request(span(2)))
    os.write(tell, b"1")
    os.read(closed, 1)
    await store.write(request(span(3)))
    await store.aclose()
    return 0
