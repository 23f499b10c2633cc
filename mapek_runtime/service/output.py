"""What a run writes on standard output: JSON lines, or plain lines for people.

Lines are written in a thread: a reader that is slow must not hold up the mesh. Those that it cannot
take are dropped and counted; the summary always comes, and comes last.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from .summary import Summary

__all__ = ["Output", "JsonLines", "PlainLines", "describe_event"]

_MOST_WAITING = 10_000
_LAST_WRITE = 5.0


class Output(Protocol):
    """Where the service tells what happens."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something happened; never waits."""

    async def run(self) -> None:
        """Write until cancelled."""

    async def finish(self, summary: Summary) -> None:
        """Write what is left and the summary."""


class _Lines:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: deque[str] = deque()
        self._wake = asyncio.Event()
        self._broken = False
        # Between writing threads only: a cancelled `run` may leave one behind that still writes.
        self._writing = threading.Lock()
        self.dropped = 0

    def put(self, line: str) -> None:
        """Queue one line."""
        if self._broken or len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.to_thread(self._write)

    async def finish(self) -> None:
        """Write what is left."""
        try:
            async with asyncio.timeout(_LAST_WRITE):
                await asyncio.to_thread(self._write)
        except TimeoutError:
            self._broken = True

    def _write(self) -> None:
        with self._writing:
            try:
                while self._waiting:
                    self._out.write(self._waiting.popleft() + "\n")
                self._out.flush()
            except (OSError, ValueError):
                # The reader went away (`mapek run | head`). The loops heal a mesh, with or without one.
                self._broken = True
                self._waiting.clear()


class JsonLines:
    """One JSON object a line; the key `event` says what it is."""

    def __init__(self, out: TextIO, elapsed: Callable[[], float]) -> None:
        self._lines = _Lines(out)
        self._elapsed = elapsed

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write one object with `event`, the seconds since the start, and the fields."""
        line = {"event": name, "at": round(self._elapsed(), 3)}
        self._lines.put(json.dumps({**line, **fields, **line}, default=str))

    async def run(self) -> None:
        """Write until cancelled."""
        await self._lines.run()

    async def finish(self, summary: Summary) -> None:
        """Write what is left, then the summary."""
        self._lines.put(json.dumps(summary.as_dict(), default=str))
        await self._lines.finish()


class PlainLines:
    """One line for each thing that happens."""

    def __init__(self, out: TextIO, elapsed: Callable[[], float]) -> None:
        self._lines = _Lines(out)
        self._elapsed = elapsed

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write one line."""
        self._lines.put(f"{self._elapsed():8.2f}  {describe_event(name, fields)}")

    async def run(self) -> None:
        """Write until cancelled."""
        await self._lines.run()

    async def finish(self, summary: Summary) -> None:
        """Write what is left, then the summary."""
        for line in summary.lines():
            self._lines.put(line)
        await self._lines.finish()


def describe_event(name: str, fields: Mapping[str, Any]) -> str:
    """An event in one line: its name, and what it carries as key=value."""
    if name == "listening" and fields.get("page"):
        # What a terminal makes a link of.
        return f"{'page':<16} {fields['page']}"
    words = [f"{name:<16}"]
    for key, value in fields.items():
        if value in (None, "", [], {}):
            continue
        shown = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
        if isinstance(shown, list | tuple):
            shown = ", ".join(str(each) for each in shown)
        words.append(f"{key}={shown}")
    # What others call their nodes, or give as a reason, must not give orders to the terminal.
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(words)).rstrip()
