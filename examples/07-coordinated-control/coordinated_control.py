"""Coordinated control: three nodes find the same problem, and agree on who deals with it.

Runs `mapek run --config coordinated.toml`, takes the database's primary away once somebody leads, and
then asks the traces who did what, and why the others did nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

HERE = Path(__file__).parent
PLANNED = '{ name = "mape_k.plan" && event.action = "fail_over" } | select(event.rule, event.reason)'
AGREED = '{ name = "mape_k.execute" && span.actions_executed > 0 } >> { name =~ "raft\\\\..*" }'


async def main(folder: Path) -> None:
    """Play it, and print what was done."""
    journal = folder / "database"
    journal.write_text("primary up\n")
    broken = False
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--config", "coordinated.toml"),
        *("--state", str(folder), "--no-web", "--json"),
        cwd=HERE,
        env={**os.environ, "DATABASE": str(journal)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            async for event in events(process):
                if event["event"] == "leader.elected":
                    print(f"{event['node']} leads")
                    if not broken:
                        broken = journal.write_text("primary down\n") > 0
                if event["event"] == "cycle" and event["learned"]:
                    break
            # A moment for the others to look again.
            await asyncio.sleep(1)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()
    print("the database:", "; ".join(journal.read_text().splitlines()))
    await ask(folder / "traces.sqlite")


async def events(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    """What the run tells, line by line."""
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


async def ask(file: Path) -> None:
    """Who planned what, and what the action was agreed by."""
    async with TraceStore(file, read_only=True) as store:
        plans = {
            (
                str(span.attributes["node_id"]),
                span.attributes["actions_planned"],
                span.selected["event.reason"],
            )
            for found in (await store.search(parse(PLANNED), limit=1000)).traces
            for chosen in found.sets
            for span in chosen.spans
        }
        for node, planned, reason in sorted(plans, key=str):
            print(f"{node}: {'planned it' if planned else reason}")
        (acted,) = (await store.search(parse(AGREED))).traces
        names = sorted({span.name for chosen in acted.sets for span in chosen.spans})
        print("the action has in its trace:", ", ".join(names))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
