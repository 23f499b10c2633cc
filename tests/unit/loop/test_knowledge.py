"""Knowledge: what is remembered, and that no disk can take it away."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapek_runtime import Cycle, Insight, Knowledge, Runtime
from mapek_runtime.errors import KnowledgeError
from mapek_runtime.loop import Incident
from mapek_runtime.loop.knowledge import Record
from mapek_runtime.loop.knowledge_sqlite import SqliteStore
from mapek_runtime.testing import AutojumpClock, Recorder

REPAIRED = Incident(
    target="a~b",
    problem="lossy",
    opened=1000.0,
    action="drain",
    closed=1003.0,
    repair_seconds=3.0,
    success=True,
    trace_id="0" * 31 + "1",
)
FAILED = replace(REPAIRED, target="b~c", opened=2000.0, closed=2005.0, repair_seconds=None, success=False)


class BrokenDisk:
    """A store in memory whose disk can be broken and mended."""

    def __init__(self) -> None:
        self.broken = False
        self.kept: list[Record] = []
        self.closed = False

    async def load(self) -> Sequence[Record]:
        return self.kept

    async def write(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise KnowledgeError("no space left on device")
        self.kept.extend(records)

    async def aclose(self) -> None:
        self.closed = True


def test_experience_is_the_share_of_verified_repairs() -> None:
    knowledge = Knowledge()

    assert knowledge.success_rate("drain") is None
    for incident in (REPAIRED, replace(REPAIRED, opened=1.0), FAILED):
        knowledge.close(incident)

    assert knowledge.success_rate("drain") == pytest.approx(2 / 3)
    assert knowledge.success_rate("drain", "a~b") == 1.0
    assert knowledge.success_rate("drain", "b~c") == 0.0
    assert knowledge.success_rate("restart") is None


def test_the_time_to_repair_is_a_median_of_repairs_that_worked() -> None:
    knowledge = Knowledge()

    assert knowledge.repair_seconds("drain") is None
    for number, seconds in enumerate((1.0, 9.0, 2.0)):
        knowledge.close(replace(REPAIRED, opened=float(number), repair_seconds=seconds))
    knowledge.close(FAILED)

    assert knowledge.repair_seconds("drain") == 2.0


def test_incidents_are_kept_oldest_first_and_not_for_ever() -> None:
    knowledge = Knowledge()

    for number in range(1500):
        knowledge.close(replace(REPAIRED, opened=float(number), target=f"t{number % 2}"))

    assert [incident.opened for incident in knowledge.incidents()] == [float(n) for n in range(500, 1500)]
    assert len(knowledge.incidents("t0")) == 500


def test_facts_are_found_by_their_prefix() -> None:
    knowledge = Knowledge()

    knowledge.remember("threshold.loss", 0.5)
    knowledge.remember("threshold.rtt", 20)
    knowledge.remember("owner", "ada")

    assert knowledge.facts("threshold.") == {"threshold.loss": 0.5, "threshold.rtt": 20}
    assert knowledge.fact("owner") == "ada"
    assert knowledge.fact("missing", 7) == 7


def test_a_fact_that_cannot_be_written_is_refused_at_once() -> None:
    value: Any = {"a": 1}

    with pytest.raises(TypeError, match=r"fact 'x' is \{'a': 1\}; it must be a bool"):
        Knowledge().remember("x", value)


async def test_knowledge_on_disk_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "node-1.db"
    facts: dict[str, bool | int | float | str] = {"a": True, "b": 3, "c": 0.5, "d": "text"}
    first = Knowledge(SqliteStore(path))
    await first.load()
    for key, value in facts.items():
        first.remember(key, value)
    first.close(REPAIRED)
    first.close(FAILED)
    await first.aclose()

    second = Knowledge(SqliteStore(path))
    await second.load()

    assert second.facts() == facts
    assert [type(value) for value in second.facts().values()] == [bool, int, float, str]
    assert second.incidents() == (REPAIRED, FAILED)
    assert second.success_rate("drain") == 0.5
    assert second.unsaved == 0
    await second.aclose()


async def test_a_runtime_keeps_its_knowledge(tmp_path: Path, autojump: AutojumpClock) -> None:
    class Learner:
        async def learn(self, cycle: Cycle) -> Sequence[Insight]:
            cycle.knowledge.remember("cycles", cycle.number)
            return []

    path = tmp_path / "node-1.db"
    async with Runtime(Learner(), knowledge=Knowledge(SqliteStore(path)), interval=1.0) as runtime:
        await runtime.wait(cycles=5)
    again = Knowledge(SqliteStore(path))
    await again.load()
    await again.aclose()

    assert again.fact("cycles") == runtime.knowledge.fact("cycles")


async def test_a_runtime_that_is_entered_again_does_not_load_twice(autojump: AutojumpClock) -> None:
    disk = BrokenDisk()
    before = Knowledge(disk)
    before.close(REPAIRED)
    await before.save()

    class Watches:
        async def monitor(self, cycle: Cycle) -> None: ...

    runtime = Runtime(Watches(), knowledge=Knowledge(disk), interval=1.0)
    for _ in range(2):
        async with runtime:
            await runtime.wait()

    assert runtime.knowledge.incidents() == (REPAIRED,)


async def test_a_file_of_a_newer_program_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "node-1.db"

    def newer() -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()

    await asyncio.to_thread(newer)
    content = await asyncio.to_thread(path.read_bytes)

    with pytest.raises(KnowledgeError, match="version 99, this program knows 1"):
        await Knowledge(SqliteStore(path)).load()
    assert await asyncio.to_thread(path.read_bytes) == content


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node-1.db"
    await asyncio.to_thread(path.write_text, "this is a diary, and no database at all" * 50, "utf-8")

    with pytest.raises(KnowledgeError, match=r"node-1\.db"):
        await Knowledge(SqliteStore(path)).load()


async def test_a_value_that_cannot_be_read_is_a_knowledge_error(tmp_path: Path) -> None:
    path = tmp_path / "node-1.db"
    knowledge = Knowledge(SqliteStore(path))
    knowledge.remember("a", 1)
    await knowledge.aclose()

    def spoil() -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE fact SET value = '{'")
        connection.close()

    await asyncio.to_thread(spoil)

    store = SqliteStore(path)
    with pytest.raises(KnowledgeError, match=r"node-1\.db"):
        await Knowledge(store).load()
    assert store._connection is None


async def test_what_a_broken_disk_refuses_is_kept_and_written_later() -> None:
    disk = BrokenDisk()
    knowledge = Knowledge(disk)
    disk.broken = True
    knowledge.remember("a", 1)
    knowledge.close(REPAIRED)

    with pytest.raises(KnowledgeError):
        await knowledge.save()
    unsaved = knowledge.unsaved
    knowledge.remember("a", 2)
    disk.broken = False
    written = await knowledge.save()

    assert (unsaved, written, knowledge.unsaved) == (2, 2, 0)
    assert [(record.kind, record.values[:2]) for record in disk.kept] == [
        ("incident", ("a~b", "lossy")),
        ("fact", ("a", 2)),
    ]


async def test_a_save_that_is_cancelled_loses_nothing() -> None:
    class Slow(BrokenDisk):
        async def write(self, records: Sequence[Record]) -> None:
            await asyncio.sleep(3600)

    knowledge = Knowledge(Slow())
    knowledge.remember("a", 1)
    knowledge.close(REPAIRED)
    task = asyncio.create_task(knowledge.save())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))

    assert knowledge.unsaved == 2


async def test_an_incident_that_is_written_twice_is_kept_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "node-1.db")
    for _ in range(2):
        knowledge = Knowledge(store)
        knowledge.close(REPAIRED)
        await knowledge.save()

    again = Knowledge(store)
    await again.load()

    assert again.incidents() == (REPAIRED,)
    await again.aclose()


async def test_a_save_whose_caller_was_cancelled_does_not_disturb_the_next(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "node-1.db")
    for number in range(20):
        knowledge = Knowledge(store)
        knowledge.remember(f"fact {number}", number)
        knowledge.close(REPAIRED)
        task = asyncio.create_task(knowledge.save())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        await knowledge.save()

    again = Knowledge(store)
    await again.load()
    await again.aclose()

    assert len(again.facts()) == 20
    assert again.incidents() == (REPAIRED,)


async def test_a_write_that_fails_keeps_nothing_of_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "node-1.db")
    good = Record("fact", ("a", 1))
    wrong = Record("incident", ("too", "few"))

    with pytest.raises(KnowledgeError):
        await store.write([good, wrong])
    await store.write([])

    assert await store.load() == []
    await store.aclose()


async def test_a_disk_that_refuses_for_too_long_loses_the_oldest_and_counts_them() -> None:
    disk = BrokenDisk()
    knowledge = Knowledge(disk)
    for number in range(10_005):
        knowledge.close(replace(REPAIRED, opened=float(number)))

    await knowledge.save()

    assert knowledge.dropped == 5
    assert len(disk.kept) == 10_000
    assert disk.kept[0].values[2] == 5.0


async def test_what_is_learned_during_a_save_is_not_lost_by_it() -> None:
    class Meanwhile(BrokenDisk):
        async def write(self, records: Sequence[Record]) -> None:
            await super().write(records)
            if len(self.kept) == 10_000:
                for number in range(3):
                    knowledge.close(replace(FAILED, opened=float(number)))

    disk = Meanwhile()
    knowledge = Knowledge(disk)
    for number in range(10_000):
        knowledge.close(replace(REPAIRED, opened=float(number)))

    await knowledge.save()
    await knowledge.save()

    assert [record.values[0] for record in disk.kept[-3:]] == ["b~c"] * 3
    assert len(disk.kept) == 10_003


async def test_a_broken_disk_shows_on_the_knowledge_span_and_the_loop_goes_on(
    recorder: Recorder, autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Learner:
        async def learn(self, cycle: Cycle) -> Sequence[Insight]:
            cycle.knowledge.remember("cycles", cycle.number)
            return []

    disk = BrokenDisk()
    disk.broken = True
    with caplog.at_level(logging.ERROR):
        async with Runtime(Learner(), knowledge=Knowledge(disk), interval=1.0) as runtime:
            first = await runtime.wait()
            await runtime.wait()
            disk.broken = False
            last = await runtime.wait(cycles=2)

    assert [(plugin, type(error)) for _, plugin, error in first.failures] == [("store", KnowledgeError)]
    assert "no space left" in str(recorder.named("mape_k.knowledge")[0].status.description)
    assert last.success
    assert disk.kept
    assert disk.closed


async def test_what_the_runtime_learned_is_saved_though_every_learner_fails(autojump: AutojumpClock) -> None:
    class Learner:
        async def learn(self, cycle: Cycle) -> Sequence[Insight]:
            cycle.knowledge.remember("cycles", cycle.number)
            raise LookupError("no model")

    disk = BrokenDisk()
    async with Runtime(Learner(), knowledge=Knowledge(disk), interval=1.0) as runtime:
        cycle = await runtime.wait()
        kept = list(disk.kept)

    assert cycle.failed == ("knowledge",)
    assert [record.values for record in kept] == [("cycles", 1)]


async def test_a_full_disk_at_the_end_is_logged_and_the_file_let_go(
    autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = BrokenDisk()
    disk.broken = True
    knowledge = Knowledge(disk)
    knowledge.remember("a", 1)

    class Watches:
        async def monitor(self, cycle: Cycle) -> None: ...

    async with Runtime(Watches(), knowledge=knowledge, interval=1.0) as runtime:
        await runtime.wait()

    assert "no space left on device" in caplog.text
    assert disk.closed
