"""The detectors: when a link is called bad, and how seldom a good one is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mapek_domains.mesh.detect import THRESHOLD, Detector, LinkState, Normal, Phase, run_limit
from tests.unit.mesh.simulate import simulate


def clean(_at: float) -> float:
    return 0.0


def from_time(start: float, loss: float, before: float = 0.0) -> Callable[[float], float]:
    return lambda at: loss if at >= start else before


def first_alarm(seed: int, start: float, loss: float, before: float = 0.0) -> float | None:
    back = (lambda _at: before) if before else clean
    moments = simulate(start + 8.0, seed=seed, forth=from_time(start, loss, before), back=back, every=0.01)
    return next((moment.at - start for moment in moments if moment.alarms), None)


def test_a_blackhole_on_a_known_clean_link_is_found_in_about_a_fifth_of_a_second() -> None:
    times = [first_alarm(seed, 60.0 + seed * 0.007, 1.0) for seed in range(8)]

    assert all(time is not None and 0.15 <= time <= 0.3 for time in times), times


def test_a_blackhole_on_a_link_that_was_just_opened_takes_longer_to_believe() -> None:
    time = first_alarm(1, 3.0, 1.0)

    assert time is not None
    assert 0.25 <= time <= 0.5


def test_sixty_percent_loss_is_found_within_about_a_second() -> None:
    times = sorted(first_alarm(seed, 20.0, 0.6) or 99.0 for seed in range(15))

    assert times[7] <= 1.1, times
    assert times[-1] <= 2.5, times


def test_a_blackhole_on_a_link_that_always_loses_a_tenth_needs_about_ten_misses() -> None:
    time = first_alarm(3, 30.0, 1.0, before=0.1)

    assert time is not None
    assert 0.4 <= time <= 0.8


def test_ten_minutes_of_ten_percent_loss_on_seven_links_alarm_nowhere() -> None:
    def tenth(_at: float) -> float:
        return 0.1

    for link in range(7):
        moments = simulate(600.0, seed=link, forth=tenth, back=tenth)
        assert next((m for m in moments if m.alarms), None) is None


def test_a_link_that_begins_to_lose_a_tenth_is_not_called_bad() -> None:
    for seed in range(8):
        loss = from_time(20.0, 0.1)
        moments = simulate(60.0, seed=seed, forth=loss, back=loss)
        assert next((m for m in moments if m.alarms), None) is None


def test_one_way_loss_is_found_by_both_ends_each_naming_its_direction() -> None:
    last = None
    for moment in simulate(12.0, seed=1, forth=from_time(10.0, 1.0), back=clean):
        last = moment

    assert last is not None
    assert set(last.alarms) == {"a.dead.out", "b.dead.in"}


@pytest.mark.parametrize("length", [0.08, 0.3, 1.0, 5.0], ids=str)
def test_a_process_that_stood_still_blames_no_link(length: float) -> None:
    moments = simulate(
        40.0, seed=2, forth=clean, back=clean, asleep=lambda at: 20.0 <= at < 20.0 + length, every=0.02
    )

    assert [m for m in moments if m.alarms] == []


def test_false_alarms_of_the_sum_stay_under_their_bound() -> None:
    detector = Detector(Normal(lost=60.0, total=600.0))
    rng = random.Random(5)
    highest = 0.0
    for _ in range(1_000_000):
        detector.feed(rng.random() >= 0.1)
        highest = max(highest, detector.score)

    # One alarm in 1e8 probes leaves a chance of a hundredth for a million.
    assert highest < THRESHOLD


def test_nothing_is_learned_from_an_alarm() -> None:
    detector = Detector()
    for _ in range(600):
        detector.feed(True)
    before = detector.normal.upper
    for number in range(400):
        detector.feed(number % 2 == 0)
    for _ in range(400):
        detector.feed(True)

    assert detector.normal.upper <= before


@pytest.mark.parametrize(("loss", "limit"), [(0.0, 4), (0.005, 4), (0.1, 9), (0.12, 10), (0.5, 20)], ids=str)
def test_the_run_limit_grows_with_what_is_normal(loss: float, limit: int) -> None:
    assert run_limit(loss) == limit


def test_a_drained_link_rests_at_least_five_seconds() -> None:
    state = LinkState()
    state.observe(0.0, drained=True, alarmed=False, calm=True)

    assert not state.recovered(4.9, good=1000)
    assert state.recovered(5.1, good=1000)


def test_a_link_rests_as_long_as_is_wanted_of_it_and_no_longer_once_that_is_over() -> None:
    state = LinkState()
    state.least = 60.0
    state.observe(0.0, drained=True, alarmed=False, calm=True)

    assert (state.cool_down, state.cooling(20.0)) == (5.0, 40.0)
    assert not state.recovered(59.0, good=1000)
    assert state.recovered(61.0, good=1000)
    state.least = 0.0
    assert state.recovered(20.0, good=1000)


def test_each_relapse_doubles_the_rest_up_to_five_minutes() -> None:
    state = LinkState()
    now = 0.0
    rests = []
    for _ in range(9):
        state.observe(now, drained=True, alarmed=True, calm=False)
        rests.append(state.cool_down)
        now += state.cool_down + 4.0
        state.observe(now, drained=False, alarmed=False, calm=True)
        now += 1.0

    assert rests == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_a_relapse_long_after_is_not_a_relapse() -> None:
    state = LinkState()
    state.observe(0.0, drained=True, alarmed=True, calm=False)
    state.observe(10.0, drained=False, alarmed=False, calm=True)
    state.observe(100.0, drained=True, alarmed=True, calm=False)

    assert state.cool_down == 5.0


def flap(period: float) -> list[float]:
    """When a link that is dead for half of each period is drained and used again."""
    state = LinkState()
    drained = False
    actions: list[float] = []

    def forth(at: float) -> float:
        return 1.0 if at > 10.0 and (at % period) < period / 2 else 0.0

    for moment in simulate(310.0, seed=4, forth=forth, back=clean):
        alarmed = bool(moment.alarms)
        calm = not alarmed and max(moment.a.score_out, moment.b.score_in) < THRESHOLD / 3
        state.observe(moment.at, drained=drained, alarmed=alarmed, calm=calm)
        if alarmed and state.phase is Phase.UP:
            drained = True
            actions.append(moment.at)
        elif state.recovered(moment.at, min(moment.a.good, moment.b.good)):
            drained = False
            actions.append(moment.at)
    return actions


@pytest.mark.parametrize("period", [0.5, 1.0, 2.0], ids=str)
def test_a_flapping_link_gets_at_most_two_actions_in_any_minute(period: float) -> None:
    actions = flap(period)

    assert actions
    assert max(sum(start <= at < start + 60.0 for at in actions) for start in actions) <= 2, actions


@pytest.mark.parametrize("period", [6.0, 15.0], ids=str)
def test_a_link_that_flaps_slowly_is_left_alone_after_some_relapses(period: float) -> None:
    actions = flap(period)

    assert sum(at > 200.0 for at in actions) <= 4, actions
