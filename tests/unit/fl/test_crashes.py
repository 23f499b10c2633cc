"""Nodes that crash and come back, and what is on disk for them."""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path

import pytest

from mapek_domains.fl import keep
from mapek_domains.fl.learner import Weights
from mapek_domains.fl.settings import FlSettings
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import FollowsNodes
from mapek_runtime.testing import AutojumpClock, Recorder

from .toy import WISHES, Toy, net, until


async def test_a_node_that_comes_back_fetches_the_model(autojump: AutojumpClock, recorder: Recorder) -> None:
    async with net(Toy(WISHES), FlSettings(interval=100.0)) as here:
        assert isinstance(here.session, FollowsNodes)
        await here.rounds(1)
        here.session.crashed("c")
        with pytest.raises(EngineUnavailable, match="'c' does not learn here; here run a, b"):
            here.session.plugins("c")
        here.session.restarted("c")
        fresh = here.versions()["c"]
        await until(lambda: here.versions()["c"] == (1, "a"), limit=5.0)

    assert fresh == (0, "")
    assert here.learner.forgotten == ["c"]


async def test_a_node_that_crashes_while_it_trains_is_a_straggler(autojump: AutojumpClock) -> None:
    learner, gate = Toy(WISHES), threading.Event()
    initial = learner.initial()

    def wait(_weights: Weights) -> tuple[Weights, int, float]:
        gate.wait(30.0)
        return initial, 10, 0.5

    learner.instead["c"] = wait
    async with net(learner, FlSettings(interval=10.0, deadline=0.3)) as here:
        await until(lambda: any(name == "c" for name, _, _ in learner.trained))
        here.session.crashed("c")
        await here.rounds(1)
        gate.set()
        here.session.restarted("c")
        await here.rounds(2)

    assert [event["clients"] for event in here.events] == [2, 3]
    assert here.session.counts("a")["round.stragglers"] == 1


async def test_when_the_coordinator_crashes_the_next_one_goes_on(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await here.rounds(2)
        here.session.crashed("a")
        here.messenger.away = {"a"}
        await here.rounds(3)
        here.messenger.away = set()
        here.session.restarted("a")
        await here.rounds(5)
        await until(lambda: len(set(here.versions().values())) == 1)

        assert here.versions()["c"] == (5, "a")
    assert [event["round"] for event in here.events] == [1, 2, 3, 4, 5]
    assert [event["clients"] for event in here.events] == [3, 3, 2, 3, 3]


async def test_a_process_that_starts_again_begins_with_what_it_kept(
    autojump: AutojumpClock, tmp_path: Path
) -> None:
    async with net(Toy(WISHES), state=tmp_path) as here:
        await here.rounds(3)
        await kept(tmp_path, "c", 3)
    async with net(Toy(WISHES), state=tmp_path) as again:
        await until(lambda: again.versions()["c"] == (3, "a"))
        await again.rounds(1)

    assert again.events[0]["round"] == 4
    assert ("c", 3) in again.learner.adopted


async def test_a_file_that_is_broken_is_set_aside_and_the_node_learns_anew(
    autojump: AutojumpClock, tmp_path: Path
) -> None:
    path = keep.path_of(tmp_path, "c")
    path.parent.mkdir()
    path.write_bytes(pickle.dumps("mischief"))
    async with net(Toy(WISHES), state=tmp_path) as here:
        await here.rounds(1)
        await kept(tmp_path, "c", 1)

    assert here.session.counts("c")["kept.not_ours"] == 1
    assert path.with_name("c.model.broken").exists()


async def test_a_disk_that_refuses_does_not_stop_the_learning(
    autojump: AutojumpClock, tmp_path: Path
) -> None:
    (tmp_path / "fl").write_bytes(b"a file where the folder is to be")

    async with net(Toy(WISHES), state=tmp_path) as here:
        await here.rounds(2)

    assert here.session.counts("b")["kept.not_written"] >= 1


async def kept(state: Path, node: str, number: int) -> None:
    """Wait until the model of that round is on disk."""
    path, like = keep.path_of(state, node), Toy({}).initial()
    for _ in range(10_000):
        found = await asyncio.to_thread(keep.load, path, "toy", like)
        if found is not None and found[0].round >= number:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"round {number} is not on disk")
