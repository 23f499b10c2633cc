"""The control client against a program that is not babeld, or that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mapek_domains.mesh.babel.control import BabelControl, BabelRefused, ControlConnection
from mapek_runtime.errors import EngineUnavailable

GREETING = b"BABEL 1.0\nversion babeld-1.12.1\nhost h\nmy-id 98:a8:08:ac:11:fe:82:bc\nok\n"


@asynccontextmanager
async def server(path: Path, *, greeting: bytes = GREETING, answers: dict[str, bytes]) -> AsyncIterator[None]:
    """Answers each line as told; an empty answer closes the connection, a missing one says nothing."""
    served: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        writer.write(greeting)
        while line := (await reader.readline()).decode().strip():
            answer = answers.get(line)
            if answer == b"":
                break
            if answer is not None:
                writer.write(answer)
        writer.close()

    listening = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        listening.close()
        for writer in served:
            writer.close()
        await asyncio.sleep(0)


async def test_the_greeting_says_who_answers(tmp_path: Path) -> None:
    async with server(tmp_path / "s", answers={"dump": b"add interface a up true\nok\n"}):
        connection = await ControlConnection.open(tmp_path / "s")

        assert connection.greeting["version"] == "babeld-1.12.1"
        assert await connection.request("dump") == ("add interface a up true",)
        await connection.aclose()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400\nok\n", b"ok\n", b"BABEL 1.0\nno\n", b"BABEL 2.0\nok\n"])
async def test_a_program_that_is_not_babeld_is_refused(tmp_path: Path, greeting: bytes) -> None:
    async with server(tmp_path / "s", greeting=greeting, answers={}):
        with pytest.raises(EngineUnavailable, match=r"expected 'BABEL 1\.x'"):
            await ControlConnection.open(tmp_path / "s")


async def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"nowhere.*start it with -G"):
        await ControlConnection.open(tmp_path / "nowhere")


async def test_silence_is_an_error_and_the_connection_is_over(tmp_path: Path) -> None:
    async with server(tmp_path / "s", answers={}):
        connection = await ControlConnection.open(tmp_path / "s")

        with pytest.raises(EngineUnavailable, match=r"'dump' .* was not answered"):
            await connection.request("dump", limit=0.05)

        assert connection.closed
        await connection.aclose()


async def test_bad_and_no_are_refusals(tmp_path: Path) -> None:
    async with server(tmp_path / "s", answers={"foo": b"bad\n", "bar": b"no No such interface\n"}):
        connection = await ControlConnection.open(tmp_path / "s")

        with pytest.raises(BabelRefused, match="'foo' was answered with 'bad'"):
            await connection.request("foo")
        with pytest.raises(BabelRefused, match="'no No such interface'"):
            await connection.request("bar")
        with pytest.raises(BabelRefused, match="not one line"):
            await connection.request("dump\nquit")
        await connection.aclose()


async def test_ok_without_the_deed_is_a_refusal(tmp_path: Path) -> None:
    answers = {
        "monitor": b"ok\n",
        "flush interface a": b"ok\n",
        "interface b": b"ok\n",
        "dump": b"add interface a up true\nok\n",
    }
    async with server(tmp_path / "s", answers=answers):
        control = BabelControl(tmp_path / "s")
        await control.open()

        with pytest.raises(BabelRefused, match="'a' is still there"):
            await control.flush_interface("a")
        with pytest.raises(BabelRefused, match="'b' is not there"):
            await control.add_interface("b")
        await control.aclose()


async def test_hostile_lines_in_the_stream_are_counted(tmp_path: Path) -> None:
    hostile = (
        b"add interface a up true\n\xff\xfe\x00 x\n" + b"y" * 200_000 + b"\nadd interface b up true\nok\n"
    )
    async with server(tmp_path / "s", answers={"monitor": hostile}):
        control = BabelControl(tmp_path / "s")
        await control.open()

        assert set(control.state.interfaces) == {"a", "b"}
        assert control.state.refused >= 2
        await control.aclose()


async def test_the_end_of_the_stream_is_told(tmp_path: Path) -> None:
    async with server(tmp_path / "s", answers={"monitor": b"ok\n", "dump": b""}):
        control = BabelControl(tmp_path / "s")
        await control.open()
        assert control.path.exists()
        follow = asyncio.ensure_future(control.follow())

        with pytest.raises(EngineUnavailable):
            await control.dump()
        assert not control.lost.is_set()
        await control.aclose()
        await asyncio.wait_for(follow, 1)

        assert control.lost.is_set()
