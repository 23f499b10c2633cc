"""What stands in docs/several-processes.md, done as it stands there."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import NodeProcess
from tests.integration.receiver import until
from tests.integration.running import environment

NODES = ("node-1", "node-2", "node-3")
DOCUMENT = Path(__file__).parents[2] / "docs" / "several-processes.md"

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)


def decade() -> str:
    """A number after which 1, 2 and 3 may be written to have three free ports."""
    for tens in range(1_500, 3_200):
        with ExitStack() as stack:
            try:
                for last in NODES:
                    made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    made.bind(("127.0.0.1", int(f"{tens}{last[-1]}")))
            except OSError:
                continue
            return str(tens)
    raise AssertionError("no three free ports in a row")


def configure(folder: Path) -> None:
    script, ports = blocks("sh")[0], decade()
    subprocess.run(["sh", "-e"], input=script.replace("700", ports), text=True, cwd=folder, check=True)
    written = (folder / "node-1.toml").read_text("utf-8")
    assert written == blocks("toml")[0].replace("700", ports)


async def command(folder: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapek_runtime.service.cli", *arguments),
        stdout=subprocess.PIPE,
        cwd=folder,
        env=environment(folder),
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def nodes_on(page: str) -> set[str]:
    """The nodes whose cycles a page shows to somebody who looks at it for a while."""
    seen: set[str] = set()
    with urllib.request.urlopen(f"{page}page/live", timeout=30):
        for _ in range(300):
            with urllib.request.urlopen(f"{page}page/state", timeout=30) as answer:
                seen = {node for node, cycles in json.load(answer)["cycles"].items() if cycles}
            if seen == set(NODES):
                break
            time.sleep(0.1)
    return seen


async def until_a_round_is_stored(folder: Path) -> None:
    """One store for all of them: a round is found in it as one trace, with what each node has done."""
    async with asyncio.timeout(90.0):
        while True:
            question = ("search", '{ name = "fl.aggregation" }', "--json")
            found = await command(folder, "traces", *question, "--state", "state")
            for line in found.splitlines():
                trace_id = json.loads(line)["trace_id"]
                shown = await command(folder, "traces", "show", trace_id, "--state", "state")
                if shown.count("fl.local_training") == len(NODES):
                    return
            await asyncio.sleep(1.0)


async def test_three_processes_are_what_the_document_says(tmp_path: Path) -> None:
    await asyncio.to_thread(configure, tmp_path)
    nodes: dict[str, NodeProcess] = {}

    def said(event: str) -> list[dict[str, Any]]:
        return [each for node in nodes.values() for each in node.said(event)]

    async with asyncio.TaskGroup() as group:
        try:
            for name in NODES:
                nodes[name] = await NodeProcess.start(name, tmp_path, tmp_path / f"{name}.toml")
                group.create_task(nodes[name].listen())
            assert await until(lambda: bool(said("leader.elected")), 90.0)
            assert await until(lambda: any(each["clients"] == 3 for each in said("round.finished")), 120.0)
            leader = max(said("leader.elected"), key=lambda each: int(each["term"]))["node"]
            terms = len(said("leader.elected"))
            other = next(node for name, node in nodes.items() if name != leader)
            page = other.said("listening")[0]["page"]
            seen = await asyncio.to_thread(nodes_on, page)
            # What a killed process has not yet stored is lost.
            await until_a_round_is_stored(tmp_path)

            await nodes[leader].kill()
            rest = [node for name, node in nodes.items() if name != leader]
            assert await until(lambda: len(said("leader.elected")) > terms, 90.0)
            for node in rest:
                await node.stop()
        finally:
            for node in nodes.values():
                node.end()

    assert seen == set(NODES)
