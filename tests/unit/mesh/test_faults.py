"""Faults of links in the emulator, mild ones too."""

from __future__ import annotations

import pytest

from mapek_domains.mesh.udp.emulator import Conditions, Emulator
from mapek_domains.mesh.udp.faults import set_fault
from mapek_runtime.loop.domain import Fault

USUAL = Conditions(loss=0.01, delay=0.002)


def fault(kind: str, **parameters: float) -> Fault:
    return Fault(number=1, kind=kind, target="a~b", at=0.0, duration=10.0, parameters=parameters)


def emulator() -> Emulator:
    made = Emulator(1)
    for sender, receiver in (("a", "b"), ("b", "a")):
        made.change(sender, receiver, loss=USUAL.loss, delay=USUAL.delay)
    return made


@pytest.mark.parametrize(
    ("made", "forth", "back"),
    [
        (fault("link.loss", loss=0.2), Conditions(loss=0.2, delay=0.002), Conditions(loss=0.2, delay=0.002)),
        (fault("link.loss", loss=0.2, one_way=1.0), Conditions(loss=0.2, delay=0.002), USUAL),
        (
            fault("link.slow", delay=0.03, jitter=0.01, one_way=1.0, reverse=1.0),
            USUAL,
            Conditions(loss=0.01, delay=0.032, jitter=0.01),
        ),
        (fault("link.blackhole"), Conditions(loss=0.01, delay=0.002, blackhole=True), USUAL),
    ],
    ids=["loss", "loss of one direction", "delay of the other direction", "blackhole"],
)
def test_a_fault_changes_the_directions_it_names_and_leaves_the_link_as_it_was(
    made: Fault, forth: Conditions, back: Conditions
) -> None:
    links = emulator()
    set_fault(links, made, present=True, usual=lambda _a, _b: USUAL)
    during = links.conditions("a", "b"), links.conditions("b", "a")
    set_fault(links, made, present=False, usual=lambda _a, _b: USUAL)

    assert during == (forth, back)
    assert (links.conditions("a", "b"), links.conditions("b", "a")) == (USUAL, USUAL)


def test_jitter_holds_each_datagram_back_by_something_else_up_to_its_bound() -> None:
    links = Emulator(1)
    links.change("a", "b", delay=0.01, jitter=0.02)
    fates = [links.fate("a", "b") or 0.0 for _ in range(200)]

    assert 0.01 <= min(fates) < 0.012
    assert 0.028 < max(fates) <= 0.03


def test_a_link_without_jitter_has_the_luck_it_always_had() -> None:
    plain, other = Emulator(5), Emulator(5)
    for links in (plain, other):
        links.change("a", "b", loss=0.3)
    other.change("b", "a", jitter=0.01)
    fates = [(plain.fate("a", "b"), other.fate("a", "b"), other.fate("b", "a")) for _ in range(100)]

    assert [first for first, _, _ in fates] == [second for _, second, _ in fates]


def test_negative_delays_are_refused() -> None:
    with pytest.raises(ValueError, match="jitter"):
        Conditions(jitter=-0.1)
