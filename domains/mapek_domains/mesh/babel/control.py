"""The control socket of one babeld: one connection watches, another commands.

babeld answers `ok` to nonsense as well (an interface that does not exist, one that exists already),
so every command is verified by a dump. Its socket takes four connections; two are ours.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from mapek_runtime.errors import EngineUnavailable

from .protocol import BabelState

__all__ = ["BabelControl", "BabelRefused", "ControlConnection"]

_ANSWERS = ("ok", "no", "bad")
_LINES_MAX = 100_000
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


class BabelRefused(EngineUnavailable):
    """babeld did not do what it was told: says the request, its answer and the state after it."""


class ControlConnection:
    """One connection: a request a line, answered by lines and then `ok`, `no` or `bad`."""

    def __init__(self, path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self.greeting: dict[str, str] = {}

    @classmethod
    async def open(cls, path: Path, limit: float = 2.0) -> ControlConnection:
        """Connect and read the greeting; raises `EngineUnavailable` when babeld does not answer."""
        try:
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_unix_connection(str(path))
                connection = cls(path, reader, writer)
                try:
                    answer, lines = await connection._answer()
                except BaseException:
                    writer.close()
                    raise
        except (OSError, TimeoutError) as error:
            raise EngineUnavailable(
                f"babeld: no answer on the control socket {str(path)!r} ({error!r}); "
                "start it with -G and that path"
            ) from error
        if answer != "ok" or not lines or not lines[0].startswith("BABEL 1."):
            writer.close()
            raise EngineUnavailable(
                f"babeld: {str(path)!r} greets with {lines[:1]!r} and {answer!r}; "
                "expected 'BABEL 1.x' and 'ok'"
            )
        for line in lines[1:]:
            key, _, value = line.partition(" ")
            connection.greeting[key] = value
        return connection

    async def request(self, line: str, limit: float = 2.0) -> tuple[str, ...]:
        """Ask one thing; returns the lines before `ok`, raises `BabelRefused` on `no` and `bad`."""
        if "\n" in line or not line.isprintable():
            raise BabelRefused(f"babeld: {line!r} is not one line of printable text; it was not sent")
        try:
            async with asyncio.timeout(limit):
                self._writer.write(line.encode() + b"\n")
                await self._writer.drain()
                answer, lines = await self._answer()
        except (OSError, TimeoutError) as error:
            # A late answer would be taken for that of the next request: this connection is over.
            self._writer.close()
            raise EngineUnavailable(
                f"babeld: {line!r} on {str(self._path)!r} was not answered ({error!r})"
            ) from error
        if answer != "ok":
            raise BabelRefused(f"babeld: {line!r} was answered with {answer!r}; expected 'ok'")
        return lines

    @property
    def closed(self) -> bool:
        """Whether nothing more can be asked here."""
        return self._writer.is_closing()

    async def lines(self, receive: Callable[[str], None]) -> None:
        """Hand every line to `receive` until babeld closes the connection."""
        while line := await self._line():
            receive(line.strip())

    async def aclose(self) -> None:
        """Close the connection; babeld keeps running."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            # The daemon was killed first; there is nothing left to close.
            return

    async def _answer(self) -> tuple[str, tuple[str, ...]]:
        lines: list[str] = []
        while raw := await self._line():
            line = raw.strip()
            word = line.partition(" ")[0]
            if word in _ANSWERS:
                return (line if word == "no" else word), tuple(lines)
            if len(lines) < _LINES_MAX:
                lines.append(line)
        raise ConnectionResetError("closed by babeld")

    async def _line(self) -> str:
        try:
            return (await self._reader.readline()).decode(errors="replace")
        except ValueError:
            # Longer than the stream's limit: what is buffered is dropped, the stream goes on.
            return "\n"


class BabelControl:
    """Reads and commands one babeld over two connections.

    `state` follows the daemon while `follow` runs. `lost` is set once the daemon no longer answers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = BabelState()
        self.lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._commands: ControlConnection | None = None
        self._watch: ControlConnection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Connect twice and take the first dump."""
        self._commands = await ControlConnection.open(self.path)
        try:
            self._watch = await ControlConnection.open(self.path)
            self.state.feed(await self._watch.request("monitor"))
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close both connections."""
        self.lost.set()
        for connection in (self._commands, self._watch):
            if connection is not None:
                await connection.aclose()
        self._commands = self._watch = None

    async def follow(self) -> None:
        """Keep `state` up until the daemon goes; run it as a task of its own."""
        assert self._watch is not None, "open() first"

        def receive(line: str) -> None:
            self.state.feed((line,))
            self._changed.set()

        try:
            await self._watch.lines(receive)
        except OSError:
            # A killed daemon resets the connection: the same as closing it.
            pass
        finally:
            self.lost.set()

    async def until(self, condition: Callable[[BabelState], bool]) -> None:
        """Wait until the tables fulfil a condition; `follow` must run beside it."""
        while not condition(self.state):
            self._changed.clear()
            await self._changed.wait()

    async def dump(self) -> BabelState:
        """The tables as they are now."""
        state = BabelState()
        state.feed(await self._request("dump"))
        return state

    async def flush_interface(self, interface: str) -> None:
        """Take an interface away: the routes over it go at once, here only."""
        _check(interface)
        try:
            await self._request(f"flush interface {interface}")
            said = "ok"
        except BabelRefused as error:
            # Said of one that is gone already; the dump decides.
            said = str(error)
        if interface in (await self.dump()).interfaces:
            raise BabelRefused(
                f"babeld: interface {interface!r} is still there after 'flush interface', "
                f"answered with {said!r}"
            )

    async def add_interface(self, interface: str, parameters: str = "") -> None:
        """Put an interface back, with parameters such as `rxcost 96`; does nothing when it is there.

        babeld ignores the parameters of an interface it has: flush first to change them.
        """
        _check(interface)
        await self._request(f"interface {interface} {parameters}".strip())
        if interface not in (await self.dump()).interfaces:
            raise BabelRefused(
                f"babeld: interface {interface!r} is not there after 'interface', "
                "which was answered with 'ok'"
            )

    async def _request(self, line: str) -> tuple[str, ...]:
        if self._commands is None:
            raise EngineUnavailable(f"babeld: the control socket {str(self.path)!r} is not open")
        async with self._turn:
            if self._commands.closed:
                self._commands = await ControlConnection.open(self.path)
            return await self._commands.request(line)


def _check(interface: str) -> None:
    if not _INTERFACE.fullmatch(interface):
        raise BabelRefused(
            f"babeld: {interface!r} is no interface name (1 to 15 letters, digits, '_', '.', ':' or '-')"
        )
