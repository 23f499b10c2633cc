"""What is normal on links, learned by nodes that share no readings."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from mapek_domains.fl.aggregate import Update, aggregate, refusal
from mapek_domains.fl.learner import Forgets, Learner, Weights
from mapek_domains.fl.normality import INPUTS, LinkNormality
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import FRESH, Model, arrays, encode
from mapek_runtime.loop.domain import Normality

KIND = "mesh.link"
NODES = ("a", "b", "c")


def reading(rng: random.Random, trouble: float = 0.0) -> list[float]:
    return [abs(rng.gauss(trouble if place < 4 else 0.0, 0.2)) for place in range(INPUTS[KIND])]


def learner(*nodes: str, readings: int = 600, seed: int = 1) -> LinkNormality:
    made = LinkNormality(FlSettings(), random.Random(seed))
    rng = random.Random(seed)
    for node in nodes:
        for _ in range(readings):
            made.observe(node, KIND, reading(rng), normal=True)
            made.observe(node, KIND, reading(rng, rng.uniform(0.5, 3.0)), normal=False)
    return made


def round_of(made: LinkNormality, weights: Weights, number: int, nodes: Sequence[str] = NODES) -> Weights:
    updates = [Update(*made.train(node, weights, 1, number)[:2]) for node in nodes]
    after = aggregate(updates, weights).weights
    for node in nodes:
        made.adopt(node, after, number)
    return after


def learned() -> LinkNormality:
    made = learner(*NODES)
    weights = made.initial()
    for number in range(1, 4):
        weights = round_of(made, weights, number)
    return made


def score(made: LinkNormality, node: str, features: Sequence[float]) -> tuple[float, float, int]:
    judgement = made.judge(node, KIND, features)
    assert judgement is not None
    return judgement.score, judgement.threshold, judgement.version


def test_it_is_what_rounds_and_analyze_ask_for() -> None:
    made: Learner = learner()

    assert isinstance(made, Normality)
    assert isinstance(made, Forgets)


def test_every_node_begins_with_the_same_weights_and_they_fit_into_a_message() -> None:
    here, there = learner(seed=1).initial(), learner(seed=2).initial()

    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
    assert all(array.dtype == np.float32 for array in here)
    assert len(encode(Model(FRESH, KIND, arrays(here)))) < 4000


def test_a_node_takes_no_part_before_it_has_seen_enough_of_each_sort() -> None:
    made = learner("a", readings=30)
    some = made.local("a"), made.local("nobody")
    for _ in range(200):
        made.observe("a", KIND, reading(random.Random(1)), normal=True)

    assert some == (0, 0)
    assert made.local("a") == 0
    assert learner("a").local("a") > 600


def test_nothing_is_judged_before_there_is_a_model() -> None:
    assert learner("a").judge("a", KIND, [0.0] * INPUTS[KIND]) is None


def test_the_model_of_all_tells_trouble_from_what_is_normal_and_says_of_which_round_it_is() -> None:
    made = learned()
    rng = random.Random(9)

    for node in NODES:
        normal = [score(made, node, reading(rng)) for _ in range(300)]
        trouble = [score(made, node, reading(rng, 3.0)) for _ in range(100)]
        assert all(value < threshold for value, threshold, _ in normal)
        assert sum(value >= threshold for value, threshold, _ in trouble) >= 95
        assert {version for _, _, version in normal} == {3}


def test_a_node_that_has_seen_no_trouble_learns_of_it_from_the_others() -> None:
    made = learned()
    rng = random.Random(5)
    made.adopt("new", round_of(made, made.initial(), 4), 4)

    value, threshold, version = score(made, "new", reading(rng, 3.0))
    assert value >= threshold
    assert version == 4


def test_scores_of_trouble_differ_although_all_are_certain() -> None:
    made = learned()
    values = [score(made, "a", [trouble] * 4 + [0.0] * 12)[0] for trouble in (2.0, 3.0, 4.0)]

    assert values == sorted(values)
    assert len(set(values)) == 3
    assert values[-1] < 1.0


def test_the_same_seed_and_readings_give_the_same_weights() -> None:
    weights = learner().initial()
    one, other = (learner("a").train("a", weights, 2, 7) for _ in range(2))

    assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert one[1:] == other[1:]


def test_training_leaves_what_it_was_given_alone() -> None:
    made = learner("a")
    weights = made.initial()
    before = [array.copy() for array in weights]
    for array in weights:
        array.setflags(write=False)
    made.train("a", weights, 1, 1)

    assert all(np.array_equal(a, b) for a, b in zip(weights, before, strict=True))


@pytest.mark.parametrize("tail", [(1e6, 1e5), (-1e6, 0.0)], ids=["never", "always"])
def test_no_peer_can_move_a_threshold_out_of_its_bounds(tail: tuple[float, float]) -> None:
    made = learned()
    poisoned = (*round_of(made, made.initial(), 4)[:-1], np.array(tail, np.float32))
    for node in (*NODES, "new"):
        made.adopt(node, poisoned, 5)

    for node in (*NODES, "new"):
        _, threshold, _ = score(made, node, reading(random.Random(1)))
        assert 0.73 < threshold < 0.983


def test_a_node_whose_own_normal_readings_want_more_has_a_threshold_of_its_own() -> None:
    made = learned()
    restless = random.Random(3)
    for _ in range(600):
        made.observe("a", KIND, reading(restless, restless.choice((0.0, 0.0, 0.0, 0.8))), normal=True)
    made.adopt("a", round_of(made, made.initial(), 4, ("b", "c")), 4)
    made.adopt("b", round_of(made, made.initial(), 4, ("b", "c")), 4)

    assert score(made, "a", reading(restless))[1] > score(made, "b", reading(restless))[1]


def test_what_a_node_keeps_is_bounded_and_the_old_fades() -> None:
    made = LinkNormality(FlSettings(), random.Random(1))
    for number in range(12_000):
        made.observe("a", KIND, [float(number)] * INPUTS[KIND], normal=number % 2 == 0)

    assert made.local("a") == 4000


def test_a_reading_of_which_nobody_knows_is_not_kept() -> None:
    made = learner("a", readings=200)
    before = made.local("a")
    for _ in range(100):
        made.observe("a", KIND, reading(random.Random(1)), normal=None)

    assert made.local("a") == before


@pytest.mark.parametrize(
    ("kind", "features", "reason"),
    [
        ("crdt.merge", [0.0] * 16, "kind"),
        (KIND, [0.0] * 15, "length"),
        (KIND, [math.nan] + [0.0] * 15, "not_finite"),
        (KIND, [math.inf] + [0.0] * 15, "not_finite"),
    ],
    ids=["another kind", "too few", "not a number", "infinite"],
)
def test_a_reading_that_cannot_be_is_refused_and_counted(
    kind: str, features: list[float], reason: str
) -> None:
    made = learned()
    before = made.local("a")
    made.observe("a", kind, features, normal=True)

    assert made.judge("a", kind, features) is None
    assert made.local("a") == before
    assert made.refused[reason] == 2


def test_a_crash_takes_readings_and_model_with_it_and_a_training_that_ran_is_refused() -> None:
    made = learned()
    weights = made.initial()
    made.forget("a")
    trained, samples, _ = made.train("a", weights, 1, 1)

    assert made.local("a") == 0
    assert made.judge("a", KIND, [0.0] * INPUTS[KIND]) is None
    assert refusal(trained, samples, like=weights) is not None
