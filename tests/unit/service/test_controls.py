"""The buttons of the page: faults of their own that end by themselves, and a refusal in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mapek_runtime.service.controls import FIRST_NUMBER
from mapek_runtime.service.state import halt_file
from tests.unit.service.bench import Bench, refused


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *args, **more: Bench(tmp_path, *args, **more)


async def test_a_fault_of_the_page_is_made_told_and_cleared(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        number = await controls.inject("link.down", "a~b", None)
        broken = dict(bench.injector.broken)
        shown = bench.in_force.shown()
        await controls.clear(number)

        assert broken == {"a~b": "link.down"}
        assert [(fault.number, fault.by, fault.seconds) for fault in shown] == [(FIRST_NUMBER, "page", None)]
        assert bench.injector.broken == {}
        assert bench.in_force.shown() == ()
        assert bench.names() == ["fault.injected", "fault.cleared"]


@pytest.mark.usefixtures("autojump")
async def test_a_fault_with_seconds_clears_itself(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        number = await controls.inject("node.crash", "a", 5.0)
        await asyncio.sleep(4.9)
        before = dict(bench.injector.broken)
        await asyncio.sleep(0.2)

        assert before == {"a": "node.crash"}
        assert bench.injector.broken == {}
        assert bench.names() == ["fault.injected", "fault.cleared"]
        assert (await refused(controls.clear(number))).status == 404


@pytest.mark.usefixtures("autojump")
async def test_a_fault_that_was_cleared_by_hand_is_not_cleared_again(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        first = await controls.inject("node.crash", "a", 5.0)
        await controls.clear(first)
        await controls.inject("node.crash", "a", None)
        await asyncio.sleep(10)

        assert bench.injector.broken == {"a": "node.crash"}


async def test_all_are_cleared_at_the_end(make: Callable[..., Bench]) -> None:
    bench = make()

    async with bench.controls as controls:
        await controls.inject("node.crash", "a", 1000.0)
        await controls.inject("link.down", "a~b", None)

    assert bench.injector.broken == {}
    assert sorted(bench.names()) == ["fault.cleared"] * 2 + ["fault.injected"] * 2


async def test_what_was_cut_off_while_it_was_made_is_cleared_too(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.injector.entered = asyncio.Event()

    async with bench.controls as controls:
        making = asyncio.create_task(controls.inject("node.crash", "a", None))
        await bench.injector.entered.wait()
        again = await refused(controls.inject("node.crash", "a", None))
        making.cancel()
        await asyncio.wait((making,))

    assert again.status == 409
    assert bench.injector.broken == {}


@pytest.mark.parametrize(
    ("kind", "target", "seconds", "status", "words"),
    [
        ("quake", "a", None, 400, "kind is 'quake'; it must be one of link.down, node.crash"),
        ("link.down", "z", None, 400, "'z' is no target"),
        ("link.down", "a~b", 0.0, 400, "seconds is 0.0"),
        ("link.down", "a~b", float("nan"), 400, "seconds is nan"),
        ("link.down", "a~b", 1e9, 400, "at most 3600"),
    ],
    ids=["kind", "target", "no time", "nan", "too long"],
)
async def test_what_cannot_be_made_is_refused_in_words(
    make: Callable[..., Bench], kind: str, target: str, seconds: float | None, status: int, words: str
) -> None:
    bench = make()

    async with bench.controls as controls:
        error = await refused(controls.inject(kind, target, seconds))

    assert error.status == status
    assert words in str(error)
    assert bench.told == []


async def test_a_target_has_one_fault_at_a_time_whoever_made_it(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.emit("fault.injected", {"number": 1, "kind": "link.loss", "target": "a~b", "seconds": 9.0})

    async with bench.controls as controls:
        error = await refused(controls.inject("link.down", "a~b", None))
        bench.emit("fault.cleared", {"number": 1, "kind": "link.loss", "target": "a~b"})
        await controls.inject("link.down", "a~b", None)

    assert error.status == 409
    assert "a~b has the fault link.loss of --chaos already" in str(error)


async def test_a_fault_of_chaos_is_not_cleared_by_the_page(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.emit("fault.injected", {"number": 1, "kind": "link.loss", "target": "a~b", "seconds": 9.0})

    async with bench.controls as controls:
        error = await refused(controls.clear(1))

    assert error.status == 409
    assert "made by --chaos, which clears it itself" in str(error)
    assert [fault.by for fault in bench.in_force.shown()] == ["chaos"]


async def test_a_fault_that_cannot_be_cleared_stays_and_can_be_tried_again(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()

    async with bench.controls as controls:
        number = await controls.inject("node.crash", "a", 1000.0)
        bench.injector.stubborn = True
        error = await refused(controls.clear(number))
        still = bench.in_force.shown()
        bench.injector.stubborn = False
        await controls.clear(number)

    assert error.status == 409
    assert len(still) == 1
    assert "the screwdriver is lost" in caplog.text
    assert bench.injector.broken == {}


async def test_where_nothing_can_be_broken_the_page_says_so(make: Callable[..., Bench]) -> None:
    bench = make([])

    async with bench.controls as controls:
        offered = controls.offered()
        error = await refused(controls.inject("link.down", "a~b", None))

    assert (offered.faults, offered.halt, offered.kinds) == (False, True, ())
    assert error.status == 409
    assert "no running domain can make faults" in str(error)


async def test_what_can_be_broken_is_offered_with_its_targets_while_the_run_runs(
    make: Callable[..., Bench],
) -> None:
    bench = make()

    before = bench.controls.offered()
    async with bench.controls as controls:
        offered = controls.offered()

    assert not before.faults
    assert (offered.faults, offered.halt) == (True, True)
    assert offered.targets == {"link.down": ("a~b",), "node.crash": ("a", "b")}
    assert (await refused(bench.controls.inject("link.down", "a~b", None))).status == 409


async def test_where_control_is_off_nothing_is_offered_and_everything_is_refused(
    make: Callable[..., Bench],
) -> None:
    bench = make(allowed=False)

    async with bench.controls as controls:
        offered = controls.offered()
        errors = [
            await refused(call)
            for call in (
                controls.inject("link.down", "a~b", None),
                controls.clear(1),
                controls.halt("no"),
                controls.resume(),
            )
        ]

    assert (offered.faults, offered.halt) == (False, False)
    assert {error.status for error in errors} == {403}
    assert await controls.halted() is None


async def test_halt_and_resume_are_those_of_the_command(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()

    async with bench.controls as controls:
        await controls.halt("  a visit\n of the\tboss ")
        why = await controls.halted()
        file = await asyncio.to_thread(halt_file(tmp_path).read_text)
        await controls.resume()
        again = await refused(controls.resume())

    assert why is not None
    assert why.startswith("a visit of the boss (since ")
    assert why == file.strip()
    assert await controls.halted() is None
    assert (again.status, str(again)) == (409, "the loops are not halted")
    assert bench.names() == ["halted", "resumed"]


async def test_a_halt_that_cannot_be_written_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    await asyncio.to_thread(file.write_text, "")
    bench = Bench(file)

    async with bench.controls as controls:
        error = await refused(controls.halt("x"))

    assert error.status == 409
    assert str(file) in str(error)
