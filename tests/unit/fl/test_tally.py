"""A round as its coordinator keeps it: who counts, and what is said of those who do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mapek_domains.fl.tally import Tally
from mapek_domains.fl.wire import FRESH, Arrays, Declined, Ready, Upload, Version, arrays

MODEL = arrays((np.zeros(3, np.float32),))


def begun() -> Tally:
    tally = Tally(7, ("a", "b", "c"), kind="k")
    for name, samples in (("a", 5), ("b", 9), ("c", 0)):
        tally.hear(name, Ready(7, FRESH, samples))
    tally.begin(tally.able)
    return tally


def upload(*, token: int = 7, kind: str = "k", loss: float = 0.5, model: Arrays = MODEL) -> Upload:
    return Upload(token, kind, 5, loss, model)


def test_who_has_samples_can_take_part() -> None:
    tally = Tally(7, ("a", "b", "c", "d"), kind="k")

    before = tally.missing
    tally.hear("a", Ready(7, Version(3, "a"), 5))
    tally.hear("c", Ready(7, Version(4, "a"), 0))

    assert before == ["a", "b", "c", "d"]
    assert tally.missing == ["b", "d"]
    assert tally.able == ["a"]
    assert tally.newest == (Version(4, "a"), "c")


def test_a_round_waits_for_those_who_train() -> None:
    tally = begun()

    before = tally.missing
    reasons = [tally.hear("a", upload()), tally.hear("b", Declined(7, "busy"))]

    assert before == ["a", "b"]
    assert reasons == [None, None]
    assert tally.missing == []
    assert list(tally.received) == ["a"]


@pytest.mark.parametrize(
    ("source", "answer", "reason"),
    [
        ("a", upload(token=6), "late"),
        ("c", upload(), "uncalled"),
        ("x", upload(), "uncalled"),
        ("x", Declined(7, ""), "uncalled"),
        ("b", upload(), "twice"),
        ("b", Declined(7, ""), "twice"),
        ("a", upload(kind="other"), "kind"),
        ("a", upload(loss=math.nan), "loss"),
        ("a", upload(loss=-0.1), "loss"),
        ("a", upload(loss=math.inf), "loss"),
        ("a", upload(loss=1e300), "loss"),
        ("a", upload(model=Arrays(((4,),), bytes(12))), "size"),
        ("x", Ready(7, FRESH, 5), "uncalled"),
        ("a", Ready(7, FRESH, 5), "twice"),
        ("a", Ready(8, FRESH, 5), "late"),
    ],
)
def test_what_does_not_count_and_why(source: str, answer: Ready | Upload | Declined, reason: str) -> None:
    tally = begun()
    tally.hear("b", upload())

    assert tally.hear(source, answer) == reason
    assert list(tally.received) == ["b"]


def test_a_client_whose_model_was_refused_has_answered() -> None:
    tally = begun()

    tally.hear("a", upload(loss=math.nan))

    assert tally.missing == ["b"]
    assert tally.refused == {"a": "loss"}
    assert tally.hear("a", upload()) == "twice"


def test_who_was_not_heard_before_the_round_began_is_late() -> None:
    tally = Tally(7, ("a", "b"), kind="k")
    tally.hear("a", Ready(7, FRESH, 5))
    tally.begin(("a",))

    assert tally.hear("b", Ready(7, FRESH, 5)) == "late"
    assert tally.missing == ["a"]
