"""The client of a node: one training at a time, and no training twice."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import numpy as np

from mapek_domains.fl.learner import Weights
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Declined, Download, Upload, Version, arrays, encode
from mapek_runtime.testing import AutojumpClock

from .toy import WISHES, Toy, net, until

FIRST = Download(1, Version(0, ""), "toy", arrays(Toy(WISHES).initial()))
SECOND = Download(2, Version(0, ""), "toy", arrays(Toy(WISHES).initial()))


async def test_while_a_model_is_trained_nothing_else_is(autojump: AutojumpClock) -> None:
    learner, gate = Toy(WISHES), threading.Event()

    def wait(weights: Weights) -> tuple[Weights, int, float]:
        gate.wait(30.0)
        return weights, 10, 0.5

    learner.instead["b"] = wait
    async with net(learner, FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        for download in (FIRST, FIRST, SECOND):
            await here.messenger.send("a", "b", "fl", encode(download))
            await asyncio.sleep(0.01)
        during = dict(here.session.counts("b"))
        gate.set()
        await until(lambda: len(here.sent(Upload)) == 1)
        await here.messenger.send("a", "b", "fl", encode(SECOND))
        await until(lambda: len(here.sent(Upload)) == 2)

    assert during == {"download.twice": 1, "download.busy": 1}
    assert [upload.token for _, _, upload in here.sent(Upload)] == [1, 2]
    assert len(learner.trained) == 2


async def test_a_model_that_comes_again_is_answered_again_and_not_trained_again(
    autojump: AutojumpClock,
) -> None:
    async with net(Toy(WISHES), FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        for count in (1, 2, 3):
            await here.messenger.send("a", "b", "fl", encode(FIRST))
            await until(partial(lambda wanted: len(here.sent(Upload)) == wanted, count))

    uploads = [upload for _, _, upload in here.sent(Upload)]
    assert uploads[0] == uploads[1] == uploads[2]
    assert len(here.learner.trained) == 1


async def test_the_nodes_of_a_process_train_one_after_another(autojump: AutojumpClock) -> None:
    learner = Toy(WISHES)
    training, most = 0, 0
    lock = threading.Lock()

    def watched(weights: Weights) -> tuple[Weights, int, float]:
        nonlocal training, most
        with lock:
            training += 1
            most = max(most, training)
        threading.Event().wait(0.02)
        with lock:
            training -= 1
        return weights, 10, 0.5

    learner.instead = dict.fromkeys(WISHES, watched)
    async with net(learner) as here:
        await here.rounds(2)

    assert most == 1
    assert len(learner.trained) == 6


async def test_data_that_went_away_between_call_and_download_is_told(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        here.learner.samples["b"] = 0
        await here.messenger.send("a", "b", "fl", encode(FIRST))
        await until(lambda: len(here.sent(Declined)) == 1)

    assert here.sent(Declined) == [("b", "a", Declined(1, "no_samples"))]
    assert here.session.counts("b") == {"download.no_samples": 1}


async def test_a_newer_model_that_comes_to_be_trained_is_the_nodes_own_from_then_on(
    autojump: AutojumpClock,
) -> None:
    model = arrays((np.full((2, 3), 4.0, np.float32), np.full(3, 4.0, np.float32)))
    async with net(Toy(WISHES), FlSettings(interval=1000.0)) as here:
        await asyncio.sleep(0.1)
        await here.messenger.send("c", "b", "fl", encode(Download(1, Version(7, "c"), "toy", model)))
        await until(lambda: len(here.sent(Upload)) == 1)

        assert here.versions()["b"] == (7, "c")
        assert here.numbers()["b"] == 4.0
    assert here.learner.adopted == [("b", 7)]
