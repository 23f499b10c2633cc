"""Computing beside the loop: turns are short and the collector rests, for as long as anybody computes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from mapek_runtime.export import beside
from mapek_runtime.export.beside import beside_the_loop

State = tuple[float, bool]


def state() -> State:
    return sys.getswitchinterval(), gc.isenabled()


@pytest.fixture(autouse=True)
def before() -> Iterator[State]:
    found = state()
    assert gc.isenabled()
    yield found
    assert state() == found


def test_turns_are_short_and_the_collector_rests_inside(before: State) -> None:
    with beside_the_loop():
        interval, collects = state()

    assert interval < before[0]
    assert not collects


def test_the_last_to_be_done_puts_back_what_the_first_found(before: State) -> None:
    """Threads whose blocks overlap: neither may take the other's setting for the program's."""
    entered, leave = threading.Event(), threading.Event()
    seen: list[State] = []

    def compute() -> None:
        with beside_the_loop():
            entered.set()
            leave.wait(10)
        seen.append(state())

    thread = threading.Thread(target=compute)
    with beside_the_loop():
        thread.start()
        assert entered.wait(10)
        inside = state()
    seen.append(state())
    leave.set()
    thread.join(10)

    assert seen[0] == inside
    assert seen[1] == before


def test_an_error_puts_both_back() -> None:
    with pytest.raises(KeyError), beside_the_loop():
        raise KeyError


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with beside_the_loop():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_under_load_without_a_pause_the_collector_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_REST", -1.0)

    with beside_the_loop():
        with beside_the_loop():
            assert not gc.isenabled()
        assert gc.isenabled()
        with beside_the_loop():
            assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_computes_nothing(before: State) -> None:
    """A fork in the middle of a computation: the child has none of the threads that would put it back."""
    with beside_the_loop():
        child = os.fork()
        if not child:
            os._exit(0 if state() == before else 1)
        _, status = os.waitpid(child, 0)
        inside = state()

    assert os.waitstatus_to_exitcode(status) == 0
    assert inside != before
