"""The last probes of a link, and what is usual on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mapek_domains.mesh.window import MOST_RTTS, MOST_VERDICTS, Usual, Window, lost

ALL = (1 << MOST_VERDICTS) - 1


def window(
    seen: int = 1000, *, came_in: int = ALL, came_out: int = ALL, rtt: float = 0.001, rtts: int = MOST_RTTS
) -> Window:
    return Window(came_in, seen, came_out, seen, (rtt,) * rtts, seen)


def every(number: int) -> int:
    """All but every so-manieth probe."""
    return ALL & ~sum(1 << place for place in range(0, MOST_VERDICTS, number))


def taught(usual: Usual, lessons: int, *, calm: bool = True, begin: int = 0, **of: float) -> Usual:
    for number in range(1, lessons + 1):
        usual = usual.after(window(begin + 64 * number, **of), calm=calm)  # type: ignore[arg-type]
    return usual


@pytest.mark.parametrize(
    ("came", "seen", "probes", "expected"),
    [(ALL, 1000, 64, (0, 64)), (0b1011, 4, 64, (1, 4)), (0b1011, 4, 2, (0, 2)), (0, 0, 64, (0, 0))],
    ids=["all arrived", "a beginning", "the newest", "nothing yet"],
)
def test_losses_are_counted_over_the_newest_probes_that_there_were(
    came: int, seen: int, probes: int, expected: tuple[int, int]
) -> None:
    assert lost(came, seen, probes) == expected


def test_the_loss_of_a_window_is_that_of_its_worse_direction() -> None:
    assert window(came_in=every(4), came_out=every(8)).loss(64) == 0.25


def test_what_a_link_may_lose_is_reckoned_higher_than_what_it_lost() -> None:
    assert window(came_in=every(8)).loss_at_most(128) > 0.125
    assert 0.0 < window().loss_at_most(128) < 0.01


def test_a_window_since_an_earlier_one_holds_what_came_after_it() -> None:
    later = window(1010).since(window(1000, came_in=0))

    assert lost(later.came_in, later.seen_in, 128) == (0, 10)
    assert len(later.rtts) == 10
    assert window(5).since(window(1000)) == window(5)


@pytest.mark.parametrize("count", ["seen_in", "seen_out", "seen_rtts"])
def test_a_count_that_is_smaller_than_earlier_is_that_of_another_life(count: str) -> None:
    later = replace(window(1000), **{count: 5})  # type: ignore[arg-type]

    assert later.since(window(900)) == later


def test_nothing_is_held_against_a_link_until_a_few_lessons_were_learned() -> None:
    assert not taught(Usual(), 3).known
    assert taught(Usual(), 4).known


def test_the_usual_loss_and_round_trip_are_those_of_the_link() -> None:
    usual = taught(Usual(), 60, came_in=every(64), rtt=0.02)

    assert 0.01 < usual.loss_in < 0.03
    assert usual.loss_out == 0.005
    assert usual.rtt == pytest.approx(0.02)


def test_a_link_that_decays_slowly_is_not_believed_without_bound() -> None:
    usual = taught(Usual(), 10, rtt=0.010)
    for step in range(1, 400):
        usual = usual.after(
            window(640 + 64 * step, came_in=every(max(256 - step, 4)), rtt=0.010 + 0.001 * step), calm=True
        )

    assert usual.loss_in <= 0.03
    assert usual.rtt <= 2 * 0.010 + 0.005


def test_what_does_not_look_normal_teaches_little() -> None:
    before = taught(Usual(), 50, rtt=0.010)
    after = taught(before, 50, calm=False, begin=50 * 64, came_in=every(5), rtt=0.018)

    assert after.loss_in < 0.02
    assert after.rtt < 0.011


def test_good_news_is_believed_sooner_than_bad() -> None:
    usual = taught(Usual(), 20, rtt=0.010)
    worse = taught(usual, 5, begin=20 * 64, rtt=0.014)
    better = taught(usual, 5, begin=20 * 64, rtt=0.006)

    assert usual.rtt - better.rtt > 2 * (worse.rtt - usual.rtt)


def test_another_life_of_the_same_end_is_learned_from_its_beginning() -> None:
    usual = taught(Usual(), 20)

    assert usual.due(window(3))
    assert not usual.after(window(3), calm=True).due(window(5))
