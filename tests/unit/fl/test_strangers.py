"""What cannot be used is refused and counted, and the learning goes on."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest

from mapek_domains.fl.parts import split
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import (
    MOST_ROUND,
    Ask,
    Call,
    Declined,
    Download,
    Fetch,
    Model,
    Part,
    Ready,
    Upload,
    Version,
    arrays,
    encode,
)
from mapek_runtime.testing import AutojumpClock, Recorder

from .toy import NAMES, WISHES, Toy, assert_nobody_went_back, net, until

MODEL = arrays((np.ones((2, 3), np.float32), np.ones(3, np.float32)))


HOSTILE = {
    "garbage": (b"\x00" * 50, "dropped.not_ours"),
    "a pickle": (pickle.dumps({"weights": [1.0]}), "dropped.not_ours"),
    "another version": (b"FL\x09" + encode(Ask("x"))[3:], "dropped.version"),
    "another kind": (encode(Model(Version(9, "x"), "other", MODEL)), "dropped.kind"),
    "another shape": (
        encode(Model(Version(9, "x"), "toy", arrays((np.ones(9, np.float32),)))),
        "dropped.shape",
    ),
    "no numbers": (
        encode(Model(Version(9, "x"), "toy", arrays((np.full((2, 3), np.nan), np.ones(3))))),
        "dropped.not_finite",
    ),
    "huge numbers": (
        encode(Model(Version(9, "x"), "toy", arrays((np.full((2, 3), 1e30), np.ones(3))))),
        "dropped.norm",
    ),
    "an older model": (encode(Model(Version(1, "x"), "toy", MODEL)), "dropped.older"),
    "a leap": (encode(Model(Version(MOST_ROUND, "x"), "toy", MODEL)), "dropped.leap"),
    "a leap to train": (encode(Download(1, Version(MOST_ROUND, "x"), "toy", MODEL)), "download.leap"),
    "an older model to train": (encode(Download(1, Version(0, ""), "toy", MODEL)), "download.older"),
    "another kind to train": (encode(Download(1, Version(9, "x"), "other", MODEL)), "download.kind"),
    "an upload nobody asked for": (encode(Upload(1, "toy", 10, 0.5, MODEL)), "upload.late"),
    "ready for nothing": (encode(Ready(1, Version(0, ""), 10)), "ready.late"),
    "declined for nothing": (encode(Declined(1, "no")), "declined.late"),
    "a wrong part": (encode(Part(bytes(16), 600, 0, bytes(600))), "dropped.part"),
}


@pytest.mark.parametrize(("payload", "counted"), HOSTILE.values(), ids=list(HOSTILE))
async def test_what_cannot_be_used_is_counted_and_changes_nothing(
    autojump: AutojumpClock, recorder: Recorder, payload: bytes, counted: str
) -> None:
    async with net(Toy(WISHES), FlSettings(interval=10.0)) as here:
        await here.rounds(2)
        await until(lambda: set(here.versions().values()) == {(2, "a")})
        recorder.clear()
        before = here.numbers()
        # The wire's witness reads every message; this one is put on it past the witness.
        here.messenger._planes["c"].send("b", "fl", payload, traced=False)
        await until(lambda: counted in here.session.counts("b"))

        assert recorder.spans == ()
        assert here.versions()["b"] == (2, "a")
        assert here.numbers() == before
        await here.rounds(3)
    assert here.session.counts("b")[counted] == 1
    assert here.events[2]["clients"] == 3


async def test_a_round_that_is_replayed_changes_nothing(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await here.rounds(1)
        first = [(a, b, encode(message)) for a, b, message in here.carried]
        await here.rounds(3)
        await until(lambda: set(here.versions().values()) == {(3, "a")})
        trained = len(here.learner.trained)
        for a, b, payload in first:
            await here.messenger.send(a, b, "fl", payload)
        await asyncio.sleep(5.0)

        assert set(here.versions().values()) == {(3, "a")}
        assert len(here.learner.trained) == trained
    assert here.session.counts("a")["upload.late"] == 3
    assert_nobody_went_back(here.learner)


async def test_a_client_that_claims_a_newer_model_and_does_not_send_it_is_not_waited_for_long(
    autojump: AutojumpClock,
) -> None:
    async with net(Toy(WISHES), nodes=NAMES) as here:
        here.session.nodes["c"].version = Version(50, "c")
        here.session.nodes["c"]._send_model_to = lambda destination: None  # type: ignore[method-assign]
        await here.rounds(1)
        took = autojump.elapsed

    assert here.events[0]["clients"] == 2
    assert took < 12.0
    assert here.session.counts("a")["round.not_caught_up"] == 1
    assert here.session.counts("c")["download.older"] == 1


async def test_many_that_fetch_at_once_are_served_a_few_at_a_time(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await here.rounds(1)
        node = here.session.nodes["a"]
        for number in range(100):
            await node._heard(f"x{number}", Fetch(Version(0, "")))

        assert here.session.counts("a")["fetch.busy"] == 84


async def test_a_call_of_another_puts_off_a_round_of_ones_own(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=10.0)) as here:
        for _ in range(5):
            await asyncio.sleep(4.0)
            await here.messenger.send("c", "b", "fl", encode(Call(1, Version(0, ""))))
        await asyncio.sleep(0.1)
        began = here.session.nodes["b"]._coordinator._began

        assert autojump.time() - began < 1.0


async def test_a_part_of_a_part_is_no_message(autojump: AutojumpClock) -> None:
    inner = encode(Part(bytes(16), 2000, 0, bytes(2000)))
    async with net(Toy(WISHES)) as here:
        await asyncio.sleep(0.1)
        for piece in split(inner, 1000):
            await here.messenger.send("c", "b", "fl", piece)
        await until(lambda: here.session.counts("b").get("dropped.part") == 1)


async def test_a_call_of_another_does_not_put_off_the_coordinator(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=10.0)) as here:
        for _ in range(15):
            await asyncio.sleep(4.0)
            await here.messenger.send("c", "a", "fl", encode(Call(1, Version(0, ""))))

    assert len(here.events) == 5
