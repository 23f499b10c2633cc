"""Windows, what is usual, and features, whatever a link does."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.damage import damaged, tolerable
from mapek_domains.mesh.features import DELAY, FEATURES, features, signs
from mapek_domains.mesh.meter import LinkMeter
from mapek_domains.mesh.window import MOST_RTTS, MOST_VERDICTS, Usual, Window, lost

bits = st.integers(0, (1 << MOST_VERDICTS) - 1)
seconds = st.floats(0.0, 60.0)
windows = st.builds(
    Window,
    came_in=bits,
    seen_in=st.integers(0, 10**9),
    came_out=bits,
    seen_out=st.integers(0, 10**9),
    rtts=st.lists(seconds, max_size=MOST_RTTS).map(tuple),
    seen_rtts=st.integers(0, 10**9),
)
lives = st.lists(st.tuples(windows, st.booleans()), max_size=20)


def taught(life: list[tuple[Window, bool]]) -> Usual:
    usual = Usual()
    for window, calm in life:
        usual = usual.after(window, calm=calm)
    return usual


@given(lives)
def test_what_is_usual_has_bounds_whatever_a_link_teaches(life: list[tuple[Window, bool]]) -> None:
    usual = taught(life)

    assert 0.005 <= usual.loss_in <= 0.03
    assert 0.005 <= usual.loss_out <= 0.03
    assert 0.0 <= usual.lost_in <= usual.total_in
    assert usual.lowest <= usual.rtt <= 2.0 * usual.lowest + 0.005 + 1e-9
    assert 0.0 <= usual.spread <= usual.lowest + 0.005 + 1e-9


@given(windows, lives, st.integers(0, 10**6))
def test_features_are_finite_and_there_are_as_many_as_there_are_names(
    window: Window, life: list[tuple[Window, bool]], missed: int
) -> None:
    usual = taught(life)
    values = features(signs(window, usual, missed=missed), usual)

    assert len(values) == len(FEATURES)
    assert all(math.isfinite(value) and 0.0 <= value <= 12.0 for value in values)


@given(windows, st.lists(windows, max_size=3), lives)
def test_what_others_show_only_takes_away(
    window: Window, others: list[Window], life: list[tuple[Window, bool]]
) -> None:
    usual = taught(life)
    mine = signs(window, usual)
    own = features(mine, usual)
    alone = features(mine, usual, [signs(other, usual) for other in others])

    assert all(0.0 <= less <= value for less, value in zip(alone, own, strict=True))
    assert alone[DELAY.stop :] == own[DELAY.stop :]


@given(windows, lives, st.integers())
def test_a_damaged_copy_never_has_more_arrivals_nor_shorter_round_trips(
    window: Window, life: list[tuple[Window, bool]], seed: int
) -> None:
    rng, usual = random.Random(seed), taught(life)
    for copy in (damaged(window, usual, rng), tolerable(window, usual, rng)):
        for came, before in ((copy.came_in, window.came_in), (copy.came_out, window.came_out)):
            assert came & ~before == 0
        assert len(copy.rtts) == len(window.rtts)
        assert all(after >= rtt for after, rtt in zip(copy.rtts, window.rtts, strict=True))
        assert (copy.seen_in, copy.seen_out, copy.seen_rtts) == (
            window.seen_in,
            window.seen_out,
            window.seen_rtts,
        )


@given(windows, windows)
def test_a_window_since_another_holds_no_more_than_it_did(earlier: Window, later: Window) -> None:
    fresh = later.since(earlier)

    assert fresh.seen_in <= later.seen_in
    assert lost(fresh.came_in, fresh.seen_in, 128)[1] <= lost(later.came_in, later.seen_in, 128)[1]
    assert later.rtts[len(later.rtts) - len(fresh.rtts) :] == fresh.rtts


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 64))
def test_a_meter_remembers_the_fate_of_each_probe_in_order(fates: list[bool], every: int) -> None:
    meter, other = (LinkMeter("a~b", peer, epoch=1, now=0.0) for peer in "ab")
    expected: list[bool] = []
    for number, arrives in enumerate(fates):
        now = number * 0.05
        frame = other.next_probe(now)
        if arrives:
            meter.heard(frame, now + 0.001)
        if number % every == 0:
            meter.alarmed(now + 0.04)
    window = meter.reading(len(fates) * 0.05 + 1.0, drained=False, drained_here=False, peer_alive=True).window
    heard = [number for number, arrives in enumerate(fates) if arrives]
    if heard:
        expected = fates[heard[0] + 1 : heard[-1] + 1]

    assert window is not None
    assert window.seen_in == len(expected)
    newest = expected[::-1][:MOST_VERDICTS]
    assert [bool(window.came_in >> place & 1) for place in range(len(newest))] == newest
