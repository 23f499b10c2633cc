"""`mapek run` as a process, and where it listens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["address_of", "environment", "start"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))}
    return {**plain, "XDG_STATE_HOME": str(folder), **more}


async def start(folder: Path, *arguments: str, **more: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", *arguments)
    return await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(folder, **more),
    )


async def address_of(process: asyncio.subprocess.Process, lines: list[dict[str, Any]]) -> str:
    """Where it listens; what it said before goes to `lines`."""
    assert process.stdout is not None
    while True:
        line = await process.stdout.readline()
        assert line, await process.communicate()
        lines.append(json.loads(line))
        if lines[-1]["event"] == "listening":
            return str(lines[-1]["address"])
