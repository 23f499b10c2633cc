"""Information sharing: two loops decide for themselves, and know what both have learned.

Runs `mapek run --config sharing.toml`, then asks the traces what each node did, and how what one of them
learned came to the other.
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
MERGED = '{ name = "mape_k.knowledge" && span.node_id = "node-1" } >> { name = "crdt.merge" }'
REJECTED = (
    '{ name = "mape_k.plan" && span.node_id = "node-2" && event.rule = "does not help" }'
    " | select(event.action, event.reason)"
)


async def main(folder: Path) -> None:
    """Play it, and print what was done."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--config", "sharing.toml"),
        *("--state", str(folder), "--no-web", "--json"),
        cwd=HERE,
        env={**os.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            async for event in events(process):
                if event["event"] == "cycle":
                    for line in event["actions"] + event["learned"]:
                        print(f"{event['node']}: {line}")
                    if event["node"] == "node-2" and event["learned"]:
                        break
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()
    await ask(folder / "traces.sqlite")


async def events(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    """What the run tells, line by line."""
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


async def ask(file: Path) -> None:
    """Why node-2 did what it did, and how it came to know."""
    async with TraceStore(file, read_only=True) as store:
        (refused,) = (await store.search(parse(REJECTED), limit=1)).traces
        (plan,) = refused.sets[0].spans
        reasons = dict(zip(plan.selected["event.action"], plan.selected["event.reason"], strict=True))
        print(f"node-2 did not reboot it: {reasons['reboot']}")
        merges = [
            span
            for found in (await store.search(parse(MERGED), limit=100)).traces
            for chosen in found.sets
            for span in chosen.spans
            if span.attributes["replica_id"] == "node-2"
        ]
        changes = sum(int(span.attributes["changes"]) for span in merges)
        print(f"node-2 merged {changes} things in the traces of the cycles in which node-1 learned them")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
