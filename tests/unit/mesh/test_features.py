"""What a model is told of a link, and the examples that are made from a healthy one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mapek_domains.fl.normality import INPUTS
from mapek_domains.mesh import features as of
from mapek_domains.mesh.damage import damaged, tolerable
from mapek_domains.mesh.features import DELAY, FEATURES, KIND, LOSS, plain, signs
from mapek_domains.mesh.window import MOST_RTTS, MOST_VERDICTS, Usual, Window, lost

ALL = (1 << MOST_VERDICTS) - 1
USUAL = Usual(rtt=0.001, spread=0.0005, lowest=0.001, lessons=10)


def window(came_in: int = ALL, came_out: int = ALL, rtt: float = 0.001) -> Window:
    return Window(came_in, 1000, came_out, 1000, (rtt,) * MOST_RTTS, 1000)


def thinned(share: float, seed: int = 1, newest: int = MOST_VERDICTS) -> int:
    rng = random.Random(seed)
    return ALL & ~sum(1 << place for place in range(newest) if rng.random() < share)


def features(window: Window, usual: Usual = USUAL, others: Sequence[Window] = ()) -> tuple[float, ...]:
    return of.features(signs(window, usual), usual, [signs(other, USUAL) for other in others])


def named(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(FEATURES, values, strict=True))


def test_the_model_has_room_for_every_feature() -> None:
    assert INPUTS[KIND] == len(FEATURES) == len(features(window()))


def test_a_link_that_is_as_usual_shows_nothing() -> None:
    values = features(window())

    assert set(values[: DELAY.stop]) == {0.0}
    assert plain(values)


def test_loss_shows_in_the_loss_and_delay_in_the_delay() -> None:
    lossy, slow = features(window(thinned(0.15))), features(window(rtt=0.02))

    assert max(lossy[LOSS]) > 1.0
    assert max(lossy[DELAY]) == 0.0
    assert max(slow[DELAY]) > 3.0
    assert max(slow[LOSS]) == 0.0
    assert not plain(lossy)
    assert not plain(slow)


def test_both_ends_of_a_link_tell_the_same() -> None:
    forth, back = thinned(0.2, seed=1), thinned(0.05, seed=2)

    assert features(window(forth, back)) == features(window(back, forth))


def test_one_burst_weighs_less_than_as_many_losses_apart() -> None:
    burst = named(features(window(ALL & ~(0xFF << 20))))
    scattered = named(features(window(ALL & ~sum(1 << place for place in range(2, 128, 16)))))

    assert burst["worse_loss_128"] == scattered["worse_loss_128"]
    assert burst["worse_runs_128"] < scattered["worse_runs_128"] / 4


def test_what_all_links_show_is_taken_away() -> None:
    mine, other = window(thinned(0.2)), window(thinned(0.2, seed=2))

    assert max(features(mine, others=[other, other])[LOSS]) < max(features(mine)[LOSS]) / 2
    assert features(mine, others=[other, window()]) == features(mine)


def test_a_host_that_is_late_is_late_on_all_links_by_the_same_time_and_not_by_the_same_share() -> None:
    far = replace(USUAL, rtt=0.03, spread=0.01, lowest=0.03)
    near_and_late, far_and_late = window(rtt=0.001 + 0.02), window(rtt=0.03 + 0.02)
    beside = of.features(signs(near_and_late, USUAL), USUAL, [signs(far_and_late, far)])

    assert max(features(near_and_late)[DELAY]) > 3.0
    assert max(beside[DELAY]) < 0.01


def test_a_link_of_which_little_is_known_is_no_excuse_for_another() -> None:
    mine = signs(window(rtt=0.02), USUAL)
    others = [signs(window(rtt=0.02), Usual()), signs(replace(window(rtt=0.02), rtts=(0.02,) * 3), USUAL)]

    assert of.features(mine, USUAL, others) == of.features(mine, USUAL)


def test_a_link_of_which_nothing_is_known_shows_no_delay() -> None:
    assert max(features(window(rtt=5.0), Usual())[DELAY]) == 0.0
    assert max(features(replace(window(), rtts=(5.0,) * 3))[DELAY]) == 0.0
    assert features(Window(), Usual())[: DELAY.stop] == (0.0,) * DELAY.stop


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_harm_and_what_is_tolerable_is_little(seed: int) -> None:
    rng = random.Random(seed)
    harm = [sum(features(damaged(window(), USUAL, rng))[: DELAY.stop]) for _ in range(200)]
    little = [sum(features(tolerable(window(), USUAL, rng))[: DELAY.stop]) for _ in range(200)]

    assert sorted(harm)[100] > 2 * sorted(little)[100]


def test_copies_leave_the_window_as_it_was() -> None:
    before = window()
    rng = random.Random(1)
    copies = [damaged(before, USUAL, rng) for _ in range(50)]

    assert before == window()
    assert any(lost(copy.came_in, copy.seen_in, 256)[0] for copy in copies)
    assert any(copy.rtts != before.rtts for copy in copies)
    assert all(copy.seen_in == before.seen_in and len(copy.rtts) == len(before.rtts) for copy in copies)
