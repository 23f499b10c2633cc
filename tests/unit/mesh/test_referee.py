"""The referee: what counts as hurt, as healed, and as a wrong action."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mapek_domains.mesh.referee import STREAK, Referee
from mapek_runtime.loop.domain import Fault

LINKS = (("a", "b"), ("b", "c"), ("a", "c"))


class Plane:
    """A data plane in memory: delivers at once, except in directions that are cut."""

    def __init__(self) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()
        self._receivers: dict[str, Callable[[bytes], None]] = {}

    def running(self, node: str) -> bool:
        return node not in self.down

    def whole(self) -> bool:
        return True

    def send(self, source: str, destination: str, channel: str, body: bytes, *, traced: bool = False) -> None:
        if (source, destination) not in self.cut and self.running(destination):
            self._receivers[channel](body)

    def receive(self, channel: str, receiver: Callable[[bytes], None]) -> None:
        self._receivers[channel] = receiver


class Match:
    """A referee with a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.plane = Plane()
        self.referee = Referee(
            self.plane,
            "abc",
            LINKS,
            clock=lambda: self.now,
            emit=lambda name, fields: self.told.append((name, fields)),
        )

    def play(self, canaries: int) -> None:
        for _ in range(canaries):
            self.referee.send(self.now)
            self.now += 0.02

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.referee.injected, len(self.referee.repairs), self.referee.harmless


def fault(kind: str = "link.blackhole", target: str = "a~b", number: int = 1) -> Fault:
    return Fault(number=number, kind=kind, target=target, at=0.0, duration=10.0)


def test_a_fault_under_which_nothing_was_lost_is_harmless_and_not_healed() -> None:
    match = Match()

    match.referee.begin(fault())
    match.play(4 * STREAK)
    match.referee.end(fault())

    assert match.counts == (1, 0, 1)
    assert match.told == []


def test_a_fault_is_not_called_harmless_until_there_was_time_to_lose_something() -> None:
    match = Match()

    match.referee.begin(fault())
    match.play(10)

    assert match.counts == (1, 0, 0)


def test_a_one_way_loss_is_healed_when_both_directions_deliver_and_from_the_first_of_the_streak() -> None:
    match = Match()
    match.plane.cut.add(("a", "b"))

    match.referee.begin(fault())
    match.play(20)
    match.plane.cut.clear()
    match.play(STREAK + 1)

    assert match.counts == (1, 1, 0)
    assert list(match.referee.repairs) == pytest.approx([0.4])
    assert [name for name, _ in match.told] == ["fault.healed"]


def test_harm_that_comes_late_is_still_harm() -> None:
    match = Match()

    match.referee.begin(fault())
    match.play(3 * STREAK)
    match.plane.cut.add(("b", "a"))
    match.play(50)
    match.plane.cut.clear()
    match.play(STREAK + 1)

    assert match.counts == (1, 1, 0)
    assert list(match.referee.repairs) == pytest.approx([(3 * STREAK + 50) * 0.02])


def test_a_direction_that_fell_silent_again_has_not_recovered() -> None:
    match = Match()
    match.plane.cut.update({("a", "b"), ("b", "a")})

    match.referee.begin(fault())
    match.play(10)
    match.plane.cut.discard(("a", "b"))
    match.play(2 * STREAK)
    match.plane.cut = {("a", "b")}
    match.play(2 * STREAK)

    assert match.counts == (1, 0, 0)


def test_both_directions_lost_whole_are_harm_although_no_canary_ever_arrives() -> None:
    match = Match()
    match.plane.down.add("c")

    match.referee.begin(fault("node.crash", "c"))
    match.play(100)
    match.referee.end(fault("node.crash", "c"))

    assert match.counts == (1, 0, 0)


def test_what_recovers_after_the_fault_was_cleared_was_not_healed() -> None:
    match = Match()
    match.plane.cut.add(("a", "b"))

    match.referee.begin(fault())
    match.play(40)
    match.referee.end(fault())
    match.plane.cut.clear()
    match.play(2 * STREAK)

    assert match.counts == (1, 0, 0)


def test_actions_without_a_fault_are_wrong_and_actions_on_the_faulty_link_are_right() -> None:
    match = Match()
    match.referee.begin(fault())

    for action, target in (("drain", "a~b"), ("drain", "a~c"), ("undrain", "a~b"), ("restart", "b")):
        match.referee.acted(action, "a", target)
    match.referee.end(fault())
    match.referee.acted("undrain", "a", "a~b")

    assert match.referee.wrong == [("drain", "a", "a~c"), ("undrain", "a", "a~b"), ("restart", "a", "b")]


@pytest.mark.parametrize("body", [b"", b"x" * 12, b"x" * 13], ids=["empty", "unknown fault", "too long"])
def test_a_body_that_is_no_canary_of_ours_is_passed_over(body: bytes) -> None:
    match = Match()
    match.referee.begin(fault())

    match.referee.arrived(body)

    assert match.counts == (1, 0, 0)
