"""`mapek run` and its operator: every way to stop it, closed streams, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .collector import collector
from .running import environment
from .stubborn import black_hole

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork and no signals"),
]

LIMIT = 45.0
RUN = (sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--nodes", "1")


async def start(
    folder: Path, *arguments: str, before: Callable[[], object] | None = None, **more: str
) -> Process:
    return await asyncio.create_subprocess_exec(
        *RUN, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=folder,
        env=environment(folder, **more), preexec_fn=before,
    )  # fmt: skip


def close(numbers: tuple[int, ...]) -> None:
    for number in numbers:
        os.close(number)


async def until(process: Process, stream: asyncio.StreamReader | None, word: str) -> None:
    """Read until a line says that."""
    assert stream is not None
    while word not in (line := (await stream.readline()).decode()):
        assert line, (word, await process.communicate())


async def finish(process: Process) -> tuple[int | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """The exit code, what it wrote, and what it logged."""
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log = [json.loads(line) for line in err.decode().splitlines() if line.startswith("{")]
    return process.returncode, [json.loads(line) for line in out.splitlines()], log


async def test_a_terminal_that_is_closed_ends_the_run_in_order(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), collector() as there:
        process = await start(tmp_path, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.url)
        await until(process, process.stdout, '"started"')
        process.send_signal(signal.SIGHUP)
        code, lines, log = await finish(process)

    assert code == 0
    assert lines[-1]["spans"]["exported"] == lines[-1]["spans"]["ended"] == len(there.names) > 0
    assert "SIGHUP: stopping; the running cycles are finished first" in [line["event"] for line in log]


async def test_a_run_whose_terminal_is_torn_away_sends_everything_first(tmp_path: Path) -> None:
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    async with asyncio.timeout(LIMIT), collector() as there:
        ours, its = pty.openpty()

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "run", "--nodes", "1",
            stdin=its, stdout=its, stderr=its, cwd=tmp_path, preexec_fn=own_terminal,
            env=environment(tmp_path, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.url),
        )  # fmt: skip
        os.close(its)
        try:
            shown = b""
            # The table of the live view.
            while b"node-1" not in shown:
                shown += await asyncio.to_thread(os.read, ours, 65_536)
            os.close(ours)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert code == 0
    assert "mape_k.cycle" in there.names


async def test_a_run_that_does_not_hear_its_terminal_goes_on(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        process = await start(
            tmp_path, "--duration", "2", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
        )
        await until(process, process.stdout, '"started"')
        process.send_signal(signal.SIGHUP)
        code, lines, log = await finish(process)

    assert code == 0
    assert lines[-1]["seconds"] >= 2
    assert not [line for line in log if "stopping" in line["event"]]


@pytest.mark.slow
async def test_a_third_signal_ends_a_closing_that_lasts_too_long(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), black_hole() as nobody:
        process = await start(
            tmp_path, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=nobody, MAPEK_SPOOL_ENABLED="false",
            MAPEK_EXPORT_SHUTDOWN="600",
        )  # fmt: skip
        await until(process, process.stdout, '"started"')
        for said in ("finished first", "are cancelled", "closing is cancelled"):
            process.send_signal(signal.SIGTERM)
            await until(process, process.stderr, said)
        _, err = await process.communicate()

    assert process.returncode == 1
    assert b"mapek: cancelled while closing; not everything was flushed" in err


@pytest.mark.parametrize(
    "closed",
    [
        pytest.param((2,), id="error", marks=pytest.mark.slow),
        pytest.param((1,), id="output", marks=pytest.mark.slow),
        pytest.param((1, 2), id="output and error", marks=pytest.mark.slow),
        pytest.param((0, 1, 2), id="all"),
    ],
)
async def test_without_its_standard_streams_a_run_does_its_work(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    async with asyncio.timeout(LIMIT), collector() as there:
        process = await start(
            tmp_path, "--duration", "1", before=lambda: close(closed),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.url,
        )  # fmt: skip
        out, err = await process.communicate()

    assert process.returncode == 0, err
    assert len(there.names) > 10
    assert (out == b"") == (1 in closed)
    assert (err == b"") == (2 in closed)


async def test_a_run_says_where_its_spans_go_and_keeps_its_secrets(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), collector() as there:
        spool = tmp_path / "mapek" / "spool"
        process = await start(
            tmp_path, "--duration", "1", OTEL_TRACES_EXPORTER="otlp,console",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=there.url.replace("//", "//me:hunter2@"),
            OTEL_EXPORTER_OTLP_HEADERS="authorization=hunter2",
        )  # fmt: skip
        code, _, log = await finish(process)

    (said,) = [line["event"] for line in log if line["event"].startswith("spans go to ")]
    assert code == 0
    assert said.startswith(f"spans go to {there.url} by OTLPSpanExporter (while it is away: {spool}/")
    store = tmp_path / "mapek" / "traces.sqlite"
    assert said.endswith(f") and the console and {store} by TraceStore")
    assert "hunter2" not in json.dumps(log)
