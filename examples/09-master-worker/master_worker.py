"""Master and workers: each site is watched by one node, as the master wants it, and the master is killed.

Runs `mapek run --config master_worker.toml` once for each of three nodes, kills the process of the one that
leads, then asks the traces who planned and who did it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

HERE = Path(__file__).parent
NODES = ("node-1", "node-2", "node-3")
SITES = 6
SET = '{ name = "mape_k.execute" && span.node_id =~ "master@.*" && span.actions_executed > 0 }'
DONE = (
    '{ name = "mape_k.cycle" && span.trigger =~ "goal sites.watch.*" && span.actions_executed > 0 }'
    " | select(link:spanID)"
)


class Sites:
    """The sites, and which nodes have asked each of them lately."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._asked: dict[str, list[str]] = {}
        self._more = asyncio.Event()

    @asynccontextmanager
    async def open(self, count: int) -> AsyncIterator[None]:
        """Serve that many."""
        async with AsyncExitStack() as stack:
            for _ in range(count):
                server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
                await stack.enter_async_context(server)
                self.addresses.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            yield

    async def until(self, condition: Callable[[list[set[str]]], bool]) -> list[str]:
        """Until that is true of who has asked each site, of its last four requests; then who watches each."""
        async with asyncio.timeout(60):
            while True:
                self._more.clear()
                lately = [set(self._asked.get(site, [])[-4:]) for site in self.addresses]
                if all(len(nodes) == 1 for nodes in lately) and condition(lately):
                    return [node for nodes in lately for node in nodes]
                await self._more.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("sockname")[:2]
        with_name = (await reader.readuntil(b"\r\n\r\n")).decode().split("User-Agent: ")[1]
        self._asked.setdefault(f"{host}:{port}", []).append(with_name.split()[0])
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()
        self._more.set()


async def main(folder: Path) -> None:
    """Play it, and print who did what."""
    sites, leaders = Sites(), Leaders()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sites.open(SITES))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        processes = await start(folder, sites.addresses)
        try:
            for process in processes.values():
                group.create_task(leaders.follow(process))
            shown = await sites.until(lambda lately: even(lately, NODES))
            print(f"{len(set(shown))} workers watch {len(shown)} sites, each one of them")
            killed = leaders.latest
            processes[killed].kill()
            left = [node for node in NODES if node != killed]
            shown = await sites.until(lambda lately: even(lately, left))
            print(f"{killed} was master and is killed: {len(set(shown))} workers watch {len(shown)} sites")
        finally:
            for process in processes.values():
                if process.returncode is None:
                    process.send_signal(signal.SIGINT)
    followed = await ask(folder)
    for master in sorted(followed, key=lambda name: name != f"master@{killed}"):
        print(f"{master} is followed by {', '.join(sorted(followed[master]))}")


def even(lately: list[set[str]], nodes: tuple[str, ...] | list[str]) -> bool:
    """Whether these nodes have as many sites each."""
    owners = [node for owner in lately for node in owner]
    return all(owners.count(node) == SITES // len(nodes) for node in nodes)


class Leaders:
    """Who leads, as the processes tell."""

    latest = ""

    async def follow(self, process: asyncio.subprocess.Process) -> None:
        """Note what a process tells, until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "leader.elected":
                self.latest = event["node"]
        await process.wait()


async def start(folder: Path, sites: list[str]) -> dict[str, asyncio.subprocess.Process]:
    """A process for each node."""
    common = (HERE / "master_worker.toml").read_text()
    addresses = dict(zip(NODES, free_addresses(len(NODES)), strict=True))
    processes: dict[str, asyncio.subprocess.Process] = {}
    for node, address in addresses.items():
        peers = "".join(f'{peer} = "{at}"\n' for peer, at in addresses.items() if peer != node)
        config = folder / f"{node}.toml"
        config.write_text(
            f"{common}\n[master]\nsites = {json.dumps(sites)}\n"
            f'[node]\nid = "{node}"\n[raft]\nmembers = {json.dumps(NODES)}\n'
            f'[mesh]\nlisten = "{address}"\n[mesh.peers]\n{peers}'
        )
        processes[node] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--config", str(config)),
            *("--state", str(folder / node), "--no-web", "--json"),
            cwd=HERE,
            env={**os.environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    return processes


def free_addresses(count: int) -> list[str]:
    """UDP addresses that nobody has."""
    sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def ask(folder: Path) -> dict[str, set[str]]:
    """Which nodes had cycles that are linked to the span in which a master set a goal, by the master."""
    setters: dict[str, str] = {}
    links: list[tuple[str, str]] = []
    for node in NODES:
        for span in await spans(folder / node, SET):
            setters[span.span_id] = str(span.attributes["node_id"])
        for span in await spans(folder / node, DONE):
            linked = span.selected["link:spanID"]
            links += [
                (node, str(each)) for each in (linked if isinstance(linked, list | tuple) else [linked])
            ]
    followed: dict[str, set[str]] = {}
    for node, link in links:
        if link in setters:
            followed.setdefault(setters[link], set()).add(node)
    return followed


async def spans(folder: Path, query: str) -> list[Any]:
    """What a node has kept of the spans that a query chooses."""
    async with TraceStore(folder / "traces.sqlite", read_only=True) as store:
        found = await store.search(parse(query), limit=1000)
    return [span for trace in found.traces for chosen in trace.sets for span in chosen.spans]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
