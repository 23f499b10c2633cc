"""Chaos keeps to its schedule, and takes away what it made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mapek_runtime.errors import MapekError
from mapek_runtime.loop import Fault, FaultReport
from mapek_runtime.service.chaos import WINDOW, run_chaos


class Injector:
    """Notes what it is told, and when."""

    def __init__(self, *, refuses: str = "") -> None:
        self.told: list[tuple[float, str, int]] = []
        self.asked: list[tuple[int, float]] = []
        self._refuses = refuses

    def kinds(self) -> Sequence[str]:
        return ("break",)

    def schedule(self, seed: int, duration: float) -> Sequence[Fault]:
        self.asked.append((seed, duration))
        return [
            Fault(number=1, kind="break", target="a", at=2.0, duration=3.0),
            Fault(number=2, kind="break", target="b", at=4.0, duration=100.0),
        ]

    async def inject(self, fault: Fault) -> None:
        if fault.target == self._refuses:
            raise MapekError("cannot")
        self._note("inject", fault)

    async def clear(self, fault: Fault) -> None:
        self._note("clear", fault)

    def report(self) -> FaultReport:
        return FaultReport(injected=0, healed=0, repair_seconds=(), wrong_actions=0, sent=0, delivered=0)

    def _note(self, what: str, fault: Fault) -> None:
        self.told.append((round(asyncio.get_running_loop().time(), 3), what, fault.number))


async def chaos(injector: Injector, duration: float | None, seconds: float) -> list[str]:
    names: list[str] = []
    start = asyncio.get_running_loop().time()
    task = asyncio.create_task(run_chaos([injector], 7, duration, lambda name, _fields: names.append(name)))
    await asyncio.wait((task,), timeout=seconds)
    task.cancel()
    await asyncio.wait((task,))
    injector.told = [(round(at - start, 3), what, number) for at, what, number in injector.told]
    return names


@pytest.mark.usefixtures("autojump")
async def test_faults_come_and_go_on_time() -> None:
    injector = Injector()

    names = await chaos(injector, 200.0, 150.0)

    assert injector.asked == [(7, 200.0)]
    assert injector.told == [(2.0, "inject", 1), (4.0, "inject", 2), (5.0, "clear", 1), (104.0, "clear", 2)]
    assert names == ["fault.injected", "fault.injected", "fault.cleared", "fault.cleared"]


@pytest.mark.usefixtures("autojump")
async def test_a_fault_in_force_is_cleared_when_the_run_ends() -> None:
    injector = Injector()

    await chaos(injector, 10.0, 10.0)

    assert injector.told[-1] == (10.0, "clear", 2)


@pytest.mark.usefixtures("autojump")
async def test_a_fault_that_cannot_be_made_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    injector = Injector(refuses="a")

    await chaos(injector, 10.0, 10.0)

    assert [number for _, _, number in injector.told] == [2, 2]
    assert "fault 1 (break on a) could not be made" in caplog.text


@pytest.mark.usefixtures("autojump")
async def test_a_run_without_an_end_has_a_new_seed_and_new_numbers_each_window() -> None:
    injector = Injector()

    await chaos(injector, None, WINDOW + 3.0)

    assert injector.asked == [(7, WINDOW), (8, WINDOW)]
    assert injector.told[-2:] == [(WINDOW + 2.0, "inject", 3), (WINDOW + 3.0, "clear", 3)]
