"""A program that is told to end: by SIGTERM or SIGINT, while a `tracing()` block is open.

By default SIGTERM ends a process with no `finally` and no exit handler, so whatever was not sent yet is
lost. `Ending` makes a cancellation of it: everything is closed in order, and then the process ends
by the signal all the same, so that a supervisor sees what it would have seen. Knows nothing of spans.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Ending", "stand_in"]

_STAND_INS: set[Any] = set()
_Handler = Callable[[int, FrameType | None], None]


def stand_in(handler: _Handler) -> _Handler:
    """Mark a handler of SIGTERM that only does better what happens by default: `Ending` takes its place."""
    _STAND_INS.add(handler)
    return handler


class Ending:
    """Inside the block a SIGTERM cancels the task that entered it.

    Nothing is done where the program has a handler of its own (a `stand_in` is none), outside the main
    thread, or without `handle`. The cancellation says `SIGTERM`; a second SIGTERM ends the process at
    once. If the program lets the cancellation out of `asyncio.run`, it dies of the signal, without a
    traceback; if it catches it, it goes on as it likes. SIGINT stays with whoever handles it, `asyncio.run`
    as a rule, and is only listened to. The handlers of before are put back on leaving.
    """

    def __init__(self, *, handle: bool = True) -> None:
        self.told = False
        """Whether the process was told to end."""
        self._handle = handle
        self._holding = False
        self._held: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._ours: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        # A handler of the loop (`add_signal_handler`) shows here as well, on asyncio and on uvloop.
        if (
            self._handle
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, *_STAND_INS)
        ):
            self._set(signal.SIGTERM, self._on_sigterm)
            if callable(signal.getsignal(signal.SIGINT)):
                self._set(signal.SIGINT, self._on_sigint)
        return self

    def hold(self) -> None:
        """The block is being closed: a first signal from now on takes effect when that is done."""
        self._holding = True

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            # Who has put in another handler meanwhile keeps it.
            if signal.getsignal(number) is self._ours[number]:
                signal.signal(number, before)
        self._holding = False
        if self._held is not None:
            held, self._held = self._held, None
            held()

    def _set(self, number: int, handler: _Handler) -> None:
        with suppress(ValueError):  # the main thread of a subinterpreter handles no signals
            self._before[number] = signal.signal(number, handler)
            self._ours[number] = handler

    def _on_sigterm(self, number: int, _frame: FrameType | None) -> None:
        # A second one takes effect at once.
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != self._pid:
            # The child of a fork has this handler, but neither the loop nor the task.
            self._leave_it(number)
            return
        self.told = True
        _die_of(number)
        if self._holding:
            self._held = self._cancel
            return
        try:
            # Not here: the code that was interrupted may be the loop's own.
            self._loop.call_soon_threadsafe(self._cancel_unless_closing)
        except RuntimeError:  # the loop was closed without leaving the block
            self._leave_it(number)

    def _leave_it(self, number: int) -> None:
        signal.signal(number, self._before[number])
        signal.raise_signal(number)

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        first, self.told = not self.told, True

        def pass_on() -> None:
            self._before[number](number, frame)

        if first and self._holding and os.getpid() == self._pid:
            self._held = pass_on
        else:
            pass_on()

    def _cancel_unless_closing(self) -> None:
        if self._holding:
            self._held = self._cancel
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("SIGTERM")


def _die_of(number: int) -> None:
    """Should a cancellation end the program, let it end by signal `number` and without a traceback."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, asyncio.CancelledError):
            before(kind, error, trace)
            return

        def die() -> None:
            # Registered last, this runs first; the other exit handlers are not to be left out.
            atexit.unregister(die)
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

        atexit.register(die)
        # What a shell shows for the signal, should the process outlive it.
        raise SystemExit(128 + number)

    sys.excepthook = hook
