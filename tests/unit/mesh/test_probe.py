"""Probes: what each end knows of both directions."""

from __future__ import annotations

from mapek_domains.mesh.probe import LinkProbe, Probe

STEP = 0.05


class Pair:
    """Two ends, and a wire that the test decides about."""

    def __init__(self) -> None:
        self.now = 0.0
        self.a = LinkProbe(1, 0.0)
        self.b = LinkProbe(2, 0.0)

    def step(self, *, forth: bool = True, back: bool = True) -> tuple[Probe, Probe]:
        """One interval: both send; `forth` and `back` say what arrives."""
        self.now += STEP
        ping, pong = self.a.next_probe(self.now), self.b.next_probe(self.now)
        if forth:
            self.b.heard(ping, self.now + 0.002)
        if back:
            self.a.heard(pong, self.now + 0.002)
        return ping, pong

    def settle(self) -> None:
        """Let the grace of the last probe pass."""
        self.a.tick(self.now + 0.04)
        self.b.tick(self.now + 0.04)


def test_each_end_knows_the_loss_of_both_directions() -> None:
    pair = Pair()
    for number in range(40):
        pair.step(forth=number % 4 != 3)
    pair.settle()

    assert pair.b.verdicts_in.count(False) == 9  # the last of ten is not certain yet
    assert pair.a.verdicts_in.count(False) == 0
    assert pair.b.verdicts_out.count(False) == 0
    assert pair.a.verdicts_out.count(False) == 9


def test_the_round_trip_does_not_count_the_time_a_probe_was_held() -> None:
    pair = Pair()
    for _ in range(50):
        pair.step()

    assert pair.a.rtt is not None
    assert abs(pair.a.rtt - 0.004) < 0.001


def test_a_probe_out_of_order_is_not_lost() -> None:
    pair = Pair()
    for _ in range(5):
        pair.step()
    late = pair.a.next_probe(pair.now + 0.01)
    newer = pair.a.next_probe(pair.now + 0.02)
    pair.b.heard(newer, pair.now + 0.03)
    pair.b.heard(late, pair.now + 0.031)
    for _ in range(5):
        pair.step()
    pair.settle()

    assert False not in pair.b.verdicts_in
    assert len(pair.b.verdicts_in) == 11  # twelve were sent; the first opens the count


def test_a_duplicate_counts_once() -> None:
    pair = Pair()
    ping, _ = pair.step()
    for _ in range(3):
        ping, _ = pair.step()
    before = len(pair.b.verdicts_in)
    pair.b.heard(ping, pair.now + 0.003)

    assert len(pair.b.verdicts_in) == before
    assert pair.b.duplicates == 1


def test_a_restart_of_the_peer_is_not_a_loss() -> None:
    pair = Pair()
    for _ in range(20):
        pair.step()
    pair.now += 3.0
    pair.a = LinkProbe(7, pair.now)
    for _ in range(20):
        pair.step()
    pair.settle()

    assert pair.b.restarts == 1
    assert False not in pair.b.verdicts_in
    assert False not in pair.b.verdicts_out


def test_silence_is_missed_probes_until_the_next_one_shows_the_peer_was_late() -> None:
    pair = Pair()
    for _ in range(20):
        pair.step()
    silent = pair.b.missed_in(pair.now + 1.0)
    pair.now += 1.0
    pair.step()
    pair.settle()

    assert silent >= 15
    assert pair.b.missed_in(pair.now + 0.01) == 0
    assert False not in pair.b.verdicts_in


def test_what_was_missed_while_asleep_proves_nothing() -> None:
    pair = Pair()
    for _ in range(20):
        pair.step()
    for _ in range(10):
        pair.step(forth=False)
    pair.b.overslept(pair.now)
    forgiven = pair.b.missed_in(pair.now)
    pair.step()
    pair.settle()

    assert forgiven == 0
    assert False not in pair.b.verdicts_in


def test_a_peer_that_slept_accuses_nobody() -> None:
    pair = Pair()
    for _ in range(20):
        pair.step()
    for _ in range(10):
        pair.step(forth=False)
    accused = pair.a.missed_out
    pair.b.overslept(pair.now)
    pair.step(forth=False)

    assert accused >= 8
    assert pair.a.missed_out == 0


def test_a_link_that_was_only_forgiven_is_not_yet_good() -> None:
    pair = Pair()
    for _ in range(60):
        pair.step()
    before = pair.b.good_in
    pair.now += 2.0
    pair.b.overslept(pair.now)

    assert before >= 50
    assert pair.b.good_in == 0


def test_a_restarted_peer_that_does_not_hear_us_is_not_good() -> None:
    pair = Pair()
    for _ in range(60):
        pair.step(forth=False)
    pair.b = LinkProbe(9, pair.now)
    for _ in range(60):
        pair.step(forth=False)
    pair.settle()

    assert pair.a.good_in >= 50
    assert pair.a.good_out == 0
