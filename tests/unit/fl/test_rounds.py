"""Rounds among nodes, over a wire in memory and on a clock that jumps."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from mapek_domains.fl.learner import Weights
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Call, Download, Model, Upload, weights_of
from mapek_runtime.testing import AutojumpClock, Recorder, tree

from .toy import NAMES, WISHES, Toy, net, until


async def test_a_round_averages_what_all_nodes_made_of_the_model(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES)) as here:
        await here.rounds(1)
        await until(lambda: len(here.learner.adopted) == 3)

        assert here.numbers() == dict.fromkeys(NAMES, 1.5)
        assert here.versions() == dict.fromkeys(NAMES, (1, "a"))
        assert sorted(here.learner.adopted) == [("a", 1), ("b", 1), ("c", 1)]
        assert here.events == [
            {"name": "round.finished", "round": 1, "clients": 3, "loss": 1.5, "refused": 0}
        ]


async def test_rounds_go_on_from_the_model_of_the_round_before(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=10.0)) as here:
        began = autojump.elapsed
        await here.rounds(4)
        took = autojump.elapsed - began

    assert [event["round"] for event in here.events] == [1, 2, 3, 4]
    assert here.events[3]["loss"] < here.events[0]["loss"]
    assert sorted({start for _, start, _ in here.learner.trained}) == [0.0, 1.5, 2.25, 2.625]
    # Each node trains with a seed of its own, which is another in each round.
    assert len({seed for _, _, seed in here.learner.trained}) == 12
    assert 40.0 <= took < 41.0


async def test_a_round_is_one_trace_over_its_nodes(autojump: AutojumpClock, recorder: Recorder) -> None:
    async with net(Toy({"a": 1.0, "b": 2.0}), nodes=("a", "b")) as here:
        await here.rounds(1)
        await until(lambda: len(here.learner.adopted) == 2)

    assert recorder.tree() == tree("""
        fl.aggregation round=1 clients=2 loss=0.75 refused=0
          mesh.message_forward source_node=a destination=b
            fl.model_download client_id=b round=1
            fl.local_training client_id=b round=1 epochs=1 loss=1.0 samples=10
            fl.model_upload client_id=b model_size_bytes=36
              mesh.message_forward source_node=b destination=a
          fl.model_download client_id=a round=1
          fl.local_training client_id=a round=1 epochs=1 loss=0.5 samples=10
          fl.model_upload client_id=a model_size_bytes=36
          mesh.message_forward source_node=a destination=b
            fl.model_download client_id=b round=1
    """)
    assert recorder.open == ()


async def test_what_spans_say_is_what_went_over_the_wire(autojump: AutojumpClock, recorder: Recorder) -> None:
    learner = Toy(WISHES)
    learner.samples.update(a=10, b=15, c=20)
    async with net(learner, FlSettings(epochs=3)) as here:
        await here.rounds(2)

    uploads = [(source, upload) for source, _, upload in here.sent(Upload)]
    models = {model.version.round: weights_of(model.model) for _, _, model in here.sent(Model)}
    for number in (1, 2):
        mine = dict(uploads[(number - 1) * 3 : number * 3])
        shares = np.array([mine[name].samples for name in NAMES]) / 45
        averages = [
            sum(
                share * weights_of(mine[name].model)[layer] for share, name in zip(shares, NAMES, strict=True)
            )
            for layer in range(2)
        ]
        loss = float(sum(share * mine[name].loss for share, name in zip(shares, NAMES, strict=True)))
        (round_span,) = [
            s for s in recorder.named("fl.aggregation") if (s.attributes or {})["round"] == number
        ]
        trained = {
            str((s.attributes or {})["client_id"]): s.attributes or {}
            for s in recorder.named("fl.local_training")
            if (s.attributes or {})["round"] == number
        }

        assert (round_span.attributes or {})["clients"] == 3
        assert (round_span.attributes or {})["loss"] == pytest.approx(loss)
        assert isinstance((round_span.attributes or {})["loss"], float)
        assert {name: t["loss"] for name, t in trained.items()} == {n: u.loss for n, u in mine.items()}
        assert {name: t["samples"] for name, t in trained.items()} == {n: u.samples for n, u in mine.items()}
        assert {t["epochs"] for t in trained.values()} == {3}
        for layer in range(2):
            assert models[number][layer] == pytest.approx(averages[layer])
    sizes = [(span.attributes or {})["model_size_bytes"] for span in recorder.named("fl.model_upload")]
    assert sizes == [len(upload.model.data) for _, upload in uploads]


async def test_where_nobody_has_samples_there_is_no_span_and_no_model(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    async with net(Toy(WISHES, samples=0)) as here:
        await until(lambda: len(here.sent(Call)) >= 9)

        assert here.versions() == dict.fromkeys(NAMES, (0, ""))
    assert recorder.spans == ()
    assert here.sent(Download) == []
    assert here.session.counts("a")["round.too_few_clients"] >= 2


async def test_one_client_with_samples_is_not_enough_and_two_are(autojump: AutojumpClock) -> None:
    learner = Toy(WISHES, samples=0)
    learner.samples["c"] = 10
    async with net(learner) as here:
        await until(lambda: here.session.counts("a").get("round.too_few_clients", 0) == 2)
        before = len(here.events)
        learner.samples["b"] = 10
        await here.rounds(1)

    assert before == 0
    assert here.events[0]["clients"] == 2
    assert {name for name, _, _ in learner.trained} == {"b", "c"}


async def test_one_node_that_is_all_there_is_learns_alone(autojump: AutojumpClock) -> None:
    async with net(Toy({"a": 1.0}), nodes=("a",)) as here:
        await here.rounds(2)

        assert here.numbers() == {"a": 0.75}


async def test_a_share_of_the_clients_trains_and_everyone_gets_the_model(autojump: AutojumpClock) -> None:
    names = tuple(f"n{number}" for number in range(8))
    async with net(Toy(dict.fromkeys(names, 4.0)), FlSettings(share=0.4), nodes=names) as here:
        await here.rounds(3)
        await until(lambda: len(here.learner.adopted) == 24)
        trained = [{name for name, _, _ in here.learner.trained[i * 4 : i * 4 + 4]} for i in range(3)]

        assert [event["clients"] for event in here.events] == [4, 4, 4]
        assert len({frozenset(each) for each in trained}) > 1
        assert set(here.versions().values()) == {(3, "n0")}


async def test_lost_messages_are_sent_again_and_nothing_is_trained_twice(autojump: AutojumpClock) -> None:
    rng = random.Random(4)

    def fate(_source: str, _destination: str) -> Sequence[float]:
        # A third is lost, a fifth comes twice, and all of it in any order.
        copies = 0 if rng.random() < 0.33 else 2 if rng.random() < 0.2 else 1
        return [rng.uniform(0.0, 0.05) for _ in range(copies)]

    async with net(Toy(WISHES), fate=fate) as here:
        await here.rounds(30)

    assert len(here.learner.trained) == len({(name, seed) for name, _, seed in here.learner.trained})
    assert sum(event["clients"] for event in here.events) > 80
    assert here.session.counts("a").get("dropped.failed", 0) == 0
    numbers = [start for _, start, _ in here.learner.trained]
    assert max(numbers) <= 6.0
    assert min(numbers) >= 0.0


async def test_an_upload_that_was_lost_is_sent_again_and_has_its_span(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    lost: list[int] = []

    def fate(source: str, destination: str) -> Sequence[float]:
        if (source, destination) == ("b", "a") and not lost and isinstance(here.carried[-1][2], Upload):
            lost.append(1)
            return ()
        return (0.001,)

    async with net(Toy(WISHES), fate=fate) as here:
        await here.rounds(1)

    uploads = [s.attributes or {} for s in recorder.named("fl.model_upload")]
    assert lost == [1]
    assert sum(upload["client_id"] == "b" for upload in uploads) == 2
    assert [upload.get("again") for upload in uploads if upload["client_id"] == "b"] == [None, True]
    assert len(here.sent(Upload)) == 4
    assert here.events[0]["clients"] == 3


async def test_a_straggler_is_left_out_and_its_late_upload_is_refused(autojump: AutojumpClock) -> None:
    slow = True

    def fate(source: str, destination: str) -> Sequence[float]:
        return (8.0,) if slow and (source, destination) == ("c", "a") and here.learner.trained else (0.0,)

    async with net(Toy(WISHES), FlSettings(interval=30.0, deadline=5.0), fate=fate) as here:
        await here.rounds(1)
        took = autojump.elapsed
        await until(lambda: "upload.late" in here.session.counts("a"))
        slow = False
        await here.rounds(2)

    assert [event["clients"] for event in here.events] == [2, 3]
    assert 35.0 <= took < 35.2
    assert here.session.counts("a")["round.stragglers"] == 1


async def test_who_does_not_answer_the_call_does_not_hold_up_the_round(autojump: AutojumpClock) -> None:
    def fate(source: str, destination: str) -> Sequence[float]:
        return () if destination == "c" else (0.0,)

    async with net(Toy(WISHES), fate=fate) as here:
        await here.rounds(1)
        took = autojump.elapsed

    assert here.events[0]["clients"] == 2
    assert 11.0 <= took < 11.2
    assert here.session.counts("a")["round.absent"] == 1


def gone_wrong(kind: str, weights: Weights) -> tuple[Weights, int, float]:
    match kind:
        case "nan":
            return (np.full((2, 3), np.nan, np.float32), weights[1]), 10, 0.5
        case "shape":
            return (np.zeros((3, 3), np.float32), weights[1]), 10, 0.5
        case "samples":
            return weights, -1, 0.5
        case "norm":
            return (np.full((2, 3), 1e30, np.float32), weights[1]), 10, 0.5
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["nan", "shape", "samples", "norm"])
async def test_a_training_that_went_wrong_is_not_uploaded(autojump: AutojumpClock, kind: str) -> None:
    learner = Toy(WISHES)
    learner.instead["b"] = lambda weights: gone_wrong(kind, weights)
    async with net(learner) as here:
        await here.rounds(1)

    assert here.events[0]["clients"] == 2
    assert here.session.counts("b")["download.trained_badly"] == 1
    assert len(here.sent(Upload)) == 2


async def test_a_training_that_raises_is_a_client_less(autojump: AutojumpClock, recorder: Recorder) -> None:
    learner = Toy(WISHES)

    def fail(_weights: Weights) -> tuple[Weights, int, float]:
        raise RuntimeError("no memory")

    learner.instead["b"] = fail
    async with net(learner) as here:
        await here.rounds(2)

    assert [event["clients"] for event in here.events] == [2, 2]
    assert here.session.counts("b")["download.failed"] == 2
    failed = [s for s in recorder.named("fl.local_training") if not s.status.is_ok]
    assert {(s.attributes or {})["client_id"] for s in failed} == {"b"}


async def test_a_model_that_not_enough_can_be_used_for_is_not_made(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    learner = Toy({"a": 1.0, "b": 2.0})
    learner.instead["b"] = lambda weights: gone_wrong("nan", weights)
    async with net(learner, nodes=("a", "b")) as here:
        await until(lambda: "round.too_few_models" in here.session.counts("a"))

        assert here.versions() == {"a": (0, ""), "b": (0, "")}
    span = recorder.one("fl.aggregation")
    assert (span.attributes or {})["clients"] == 0
    assert (span.attributes or {})["reason"] == "1 models can be used, of 2 that are needed"
    assert not span.status.is_ok


async def test_a_poisoned_client_moves_the_mean_and_not_the_median(autojump: AutojumpClock) -> None:
    names = ("a", "b", "c", "d", "e")
    found: dict[str, float] = {}
    for method in ("mean", "median", "trimmed"):
        learner = Toy(dict.fromkeys(names, 2.0))
        learner.instead["c"] = lambda weights: (
            tuple(np.full_like(array, 1000.0) for array in weights),
            10**8,
            0.0,
        )
        settings = FlSettings(method=method)
        async with net(learner, settings, nodes=names) as here:
            await here.rounds(1)
            found[method] = here.numbers()["a"]

    # A claim of 10⁸ samples weighs twice the median, a third of all.
    assert found == {"mean": pytest.approx((4 + 2000) / 6), "median": 1.0, "trimmed": 1.0}


async def test_models_too_long_for_one_message_go_in_parts(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    class Long(Toy):
        def initial(self) -> Weights:
            return np.zeros((2, 3), np.float32), np.zeros(2000, np.float32)

    rng = random.Random(2)
    async with net(
        Long(WISHES), most=1000, fate=lambda _a, _b: () if rng.random() < 0.1 else (rng.uniform(0, 0.02),)
    ) as here:
        await here.rounds(5)

    assert {event["clients"] for event in here.events} <= {2, 3}
    assert sum(event["clients"] for event in here.events) >= 13
    assert {(s.attributes or {})["model_size_bytes"] for s in recorder.named("fl.model_upload")} == {8024}


async def test_the_loss_of_a_round_is_combined_as_the_models_are(autojump: AutojumpClock) -> None:
    learner = Toy(dict.fromkeys(("a", "b", "c", "d", "e"), 2.0))
    learner.instead["c"] = lambda weights: (weights, 10, 900_000.0)
    async with net(learner, FlSettings(method="median"), nodes=tuple(learner.wishes)) as here:
        await here.rounds(1)

    assert here.events[0]["loss"] == 1.0
    assert math.isfinite(here.events[0]["loss"])


async def test_a_machine_that_slept_begins_one_round_and_not_those_it_missed(autojump: AutojumpClock) -> None:
    async with net(Toy(WISHES), FlSettings(interval=10.0)) as here:
        await here.rounds(1)
        autojump._now += 3600.0
        woke = autojump.elapsed
        await here.rounds(2)
        first = autojump.elapsed - woke
        await here.rounds(3)
        second = autojump.elapsed - woke

    assert first < 1.0
    assert 10.0 <= second < 11.0
