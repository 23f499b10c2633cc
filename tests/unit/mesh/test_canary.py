"""Canaries under a mild fault: what proves harm, and what proves that it is over."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mapek_domains.mesh.canary import STREAK, Direction, MildDirection, direction
from mapek_runtime.loop.domain import Fault

EVERY = 0.02


def fault(kind: str = "link.loss", **parameters: float) -> Fault:
    return Fault(number=1, kind=kind, target="a~b", at=0.0, duration=15.0, parameters=parameters)


def play(
    way: Direction,
    canaries: int,
    *,
    begin: float = 0.0,
    loss: float = 0.0,
    takes: Callable[[], float] = lambda: 0.001,
    rng: random.Random | None = None,
) -> float:
    """Send canaries and let them arrive; returns when the next would be sent."""
    luck = rng or random.Random(1)
    for number in range(canaries):
        now = begin + number * EVERY
        way.sent.append(now)
        if luck.random() >= loss:
            way.delivered(len(way.sent) - 1, now + takes())
    return begin + canaries * EVERY


@pytest.mark.parametrize(
    ("made", "mild"),
    [
        (fault(loss=0.12), True),
        (fault(loss=0.6), False),
        (fault("link.slow", delay=0.03), True),
        (fault("link.blackhole"), False),
        (fault("node.crash"), False),
    ],
    ids=["some loss", "much loss", "delay", "blackhole", "crash"],
)
def test_only_faults_that_let_most_through_are_judged_by_their_odds(made: Fault, mild: bool) -> None:
    assert isinstance(direction(made, "a", "b"), MildDirection) is mild


@pytest.mark.parametrize("loss", [0.1, 0.2, 0.35])
def test_a_mild_loss_hurts_and_is_seldom_called_healed_while_it_lasts(loss: float) -> None:
    hurt = healed = 0
    for seed in range(100):
        way = direction(fault(loss=loss), "a", "b")
        end = play(way, 700, loss=loss, rng=random.Random(seed))
        hurt += way.hurt(end)
        healed += way.recovered_at(end - EVERY) is not None

    assert hurt >= 99
    assert healed <= 1


@pytest.mark.parametrize("loss", [0.1, 0.2, 0.35])
def test_a_mild_loss_is_healed_from_the_first_canary_that_found_another_way(loss: float) -> None:
    way = direction(fault(loss=loss), "a", "b")
    change = play(way, 100, loss=loss)
    end = play(way, 150, begin=change)
    healed = way.recovered_at(end - EVERY)

    assert healed == pytest.approx(change, abs=0.25)


def test_two_canaries_lost_by_chance_are_no_harm_under_a_mild_fault() -> None:
    way = direction(fault(loss=0.1), "a", "b")
    play(way, 50)
    way.sent.append(50 * EVERY)
    end = play(way, 100, begin=51 * EVERY)

    assert not way.hurt(end)


def test_a_delay_hurts_although_nothing_is_lost_and_is_healed_when_canaries_are_in_time_again() -> None:
    way = direction(fault("link.slow", delay=0.03, jitter=0.0), "a", "b")
    change = play(way, 60, takes=lambda: 0.031)
    slow = way.hurt(change), way.recovered_at(change - EVERY)
    end = play(way, STREAK + 1, begin=change)

    assert slow == (True, None)
    assert way.recovered_at(end - EVERY) == pytest.approx(change)


def test_jitter_is_judged_by_its_middle() -> None:
    rng = random.Random(3)
    way = direction(fault("link.slow", delay=0.0, jitter=0.06), "a", "b")
    change = play(way, 300, takes=lambda: 0.001 + rng.random() * 0.06)

    assert way.hurt(change)
    assert way.recovered_at(change - EVERY) is None


def test_a_host_that_stands_still_for_a_moment_does_no_harm() -> None:
    way = direction(fault("link.slow", delay=0.03), "a", "b")
    play(way, 50)
    begin = play(way, 3, begin=1.0, takes=lambda: 0.05)
    end = play(way, 50, begin=begin)

    assert not way.hurt(end)


def test_where_links_always_lose_something_only_more_than_that_is_harm() -> None:
    rng = random.Random(4)
    way = direction(fault(loss=0.3), "a", "b", usual_loss=0.05)
    end = play(way, 700, loss=0.05, rng=rng)

    assert not way.hurt(end)
