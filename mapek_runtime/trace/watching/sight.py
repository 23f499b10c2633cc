"""Looking at the thread of an event loop while it works: is it in a step, since when, and where.

Nothing of asyncio is patched. What is running is read from the stack of the loop's thread; since when
from the loop's own clock. `ring()` asks the interpreter to call back in its main thread between two
bytecodes, where the context of the running step can be read.
"""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

__all__ = ["Place", "Sight", "Step", "bell_of_this_thread", "can_look"]

_HANDLE_RUN = asyncio.Handle._run.__code__
_RUN_ONCE = getattr(asyncio.BaseEventLoop, "_run_once").__code__  # noqa: B009 - not in the type stubs
_DEBUGGERS = frozenset({"bdb", "pdb", "ipdb", "pudb", "pydevd", "_pydevd_bundle", "debugpy"})
_LIBRARIES = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")}
    | {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")}
)
_OWN = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - as frames write it
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """A line of a program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})"


class Step(NamedTuple):
    """What a loop is running: one callback, or one task up to its next `await`."""

    frames: tuple[FrameType, ...]
    """Innermost first, without those of the loop itself."""
    since: float | None
    """When this turn of the loop began, by `time.monotonic()`; None where the loop does not tell."""

    @property
    def root(self) -> FrameType:
        """The outermost frame: the coroutine of the task, or the callback."""
        return self.frames[-1]

    @property
    def in_debugger(self) -> bool:
        """Whether somebody has stopped the program to look at it."""
        return any(
            str(frame.f_globals.get("__name__", "")).partition(".")[0] in _DEBUGGERS for frame in self.frames
        )

    def place(self) -> Place:
        """Where it is: the innermost line of the application, not of a library."""
        found = next((frame for frame in self.frames if _is_application(frame.f_code)), self.frames[0])
        # The line is None between the lines that a compiler made up.
        return Place(
            found.f_code.co_filename, found.f_lineno or found.f_code.co_firstlineno, found.f_code.co_qualname
        )


class Sight:
    """Tells the steps of `loop` from its waiting; blind until it is anchored."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = 0
        self._caller: CodeType | None = None
        self._own_frame_a_step = False
        self.lost = True
        """Whether the last look did not find the loop: it must be anchored again."""

    def anchor(self, caller: FrameType) -> None:
        """Learn where the loop is from a callback of it, given the frame that called the callback."""
        self._thread = threading.get_ident()
        # Whoever calls callbacks stands below every step: asyncio's Handle, or, where the loop is
        # compiled (uvloop), the function that runs the loop, which stands there while it waits too.
        self._caller = caller.f_code
        self._own_frame_a_step = self._caller is _HANDLE_RUN
        self.lost = False

    def look(self) -> Step | None:
        """What runs in the thread of the loop at this moment; None while it waits."""
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            self.lost = True
            return None
        return self.step(frame)

    def step(self, frame: FrameType) -> Step | None:
        """The step that `frame` is the innermost frame of."""
        frames: list[FrameType] = []
        here: FrameType | None = frame
        while here is not None and here.f_code is not self._caller:
            frames.append(here)
            here = here.f_back
        if here is None:
            # asyncio waits without a Handle on the stack; a compiled loop was started by another caller.
            self.lost = not self._own_frame_a_step
            return None
        if not frames:
            if not self._own_frame_a_step:
                return None
            # A function written in C is the callback.
            frames.append(here)
        return Step(tuple(frames), self._since(here))

    def _since(self, caller: FrameType) -> float | None:
        if not self._own_frame_a_step or caller.f_back is None or caller.f_back.f_code is not _RUN_ONCE:
            return None
        # asyncio notes in this local variable when it began to call what is ready.
        began: Any = caller.f_back.f_locals.get("end_time")
        if not isinstance(began, float):
            return None
        now = time.monotonic()
        ago = self._loop.time() - began + getattr(self._loop, "_clock_resolution", 0.0)
        return now - max(0.0, ago)


def can_look() -> bool:
    """Whether this interpreter lets one thread read the stack of another that works."""
    with_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    return sys.implementation.name == "cpython" and with_lock


class _Bell:
    """An object whose truth value the interpreter asks for in its main thread.

    `Py_AddPendingCall` takes a C function of one pointer that returns an int and may raise:
    `PyObject_IsTrue` is one, so no C function has to be made at run time, and what a signal handler
    of the program raises meanwhile (KeyboardInterrupt) goes where it would have gone without us.
    """

    def __init__(self) -> None:
        import ctypes

        api = ctypes.pythonapi
        self._add = api.Py_AddPendingCall
        self._add.argtypes = [ctypes.c_void_p, ctypes.py_object]
        self._add.restype = ctypes.c_int
        self._is_true = ctypes.cast(api.PyObject_IsTrue, ctypes.c_void_p)
        self._listeners: list[Callable[[FrameType], None]] = []
        self._rung = False
        for function in (api.PyInterpreterState_Get, api.PyInterpreterState_Main):
            function.restype = ctypes.c_void_p
        self.usable = api.PyInterpreterState_Get() == api.PyInterpreterState_Main()
        # Immortal: the interpreter's queue holds no reference, and may outlive this module.
        api.Py_IncRef(ctypes.py_object(self))

    def ring(self, listener: Callable[[FrameType], None]) -> None:
        """Call `listener` once with the frame that the main thread is in; from any thread."""
        if listener not in self._listeners:
            self._listeners.append(listener)
        if not self._rung:
            # At most one is in the queue of the interpreter, which has room for 32.
            self._rung = True
            if self._add(self._is_true, self) != 0:
                # Not assigned otherwise: by now it may have rung, and been taken back.
                self._rung = False

    def silence(self) -> None:
        """Forget who listens, as in the child of a fork."""
        self._listeners.clear()
        self._rung = False

    def __bool__(self) -> bool:
        self._rung = False
        try:
            frame = sys._getframe(1)
            while self._listeners:
                self._listeners.pop()(frame)
        except Exception:  # noqa: BLE001, S110 - the code that happens to run has no part in it
            pass
        return False


_bell: _Bell | None = None


def bell_of_this_thread() -> _Bell | None:
    """What rings in this thread; None where the interpreter has none (it has one for its main thread)."""
    global _bell  # noqa: PLW0603 - one in a process: it is never freed
    if threading.current_thread() is not threading.main_thread():
        return None
    if _bell is None:
        try:
            _bell = _Bell()
        except (ImportError, AttributeError, OSError):
            # An interpreter built without ctypes, or that hides its own symbols.
            return None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_bell.silence)
    return _bell if _bell.usable else None


def _is_application(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith("<frozen"):
        return False
    return not any(part in file for part in _INSTALLED) and not file.startswith((_OWN, *_LIBRARIES))
