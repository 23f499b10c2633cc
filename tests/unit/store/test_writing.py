"""The thread that writes: requests share transactions, and each one learns what became of it."""

from __future__ import annotations

import asyncio
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
