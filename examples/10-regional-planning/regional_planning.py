"""Regional planning: two regions upgrade their machines, and agree on whose gateway is down.

Runs `mapek run --config regional.toml` once for each of four machines, two of which run their region's
planner, until all are upgraded, then asks the traces who planned and who agreed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

HERE = Path(__file__).parent
REGIONS: Mapping[str, tuple[str, ...]] = {"north": ("north-1", "north-2"), "south": ("south-1", "south-2")}
NODES = [node for nodes in REGIONS.values() for node in nodes]
PLANNED = '{ name = "mape_k.execute" && span.node_id = "REGION" && span.actions_executed > 0 }'
FOLLOWED = (
    '{ name = "mape_k.cycle" && span.trigger =~ "goal machine.version.*" && span.actions_executed > 0 }'
    " | select(link:spanID)"
)
PLAN = '{ name = "mape_k.plan" && span.node_id = "REGION" }'
AGREED = '{ name = "raft.commit" }'
REFUSED = (
    '{ name = "mape_k.plan" && span.node_id = "REGION" && event.rule = "shared with other regions" }'
    " | select(event.reason)"
)


async def main(folder: Path) -> None:
    """Play it, and print who did what."""
    machines = folder / "machines"
    machines.mkdir()
    for node in NODES:
        (machines / f"{node}.version").write_text("1.0\n")
    processes = await start(folder, machines)
    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            upgraded = [group.create_task(until_upgraded(process)) for process in processes.values()]
            await asyncio.wait(upgraded)
            # A moment for the planners to see it.
            await asyncio.sleep(2)
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.communicate()
    print("the machines:", "; ".join((machines / "journal").read_text().splitlines()))
    for region, nodes in REGIONS.items():
        await ask(folder, region, nodes)


async def until_upgraded(process: asyncio.subprocess.Process) -> None:
    """Read what a machine tells until it has run its installer. Raises where it ends before."""
    assert process.stdout is not None
    async for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "cycle" and any(each.startswith("install") for each in event["actions"]):
            return
    raise RuntimeError(f"a process ended with {await process.wait()}")


async def start(folder: Path, machines: Path) -> dict[str, asyncio.subprocess.Process]:
    """A process for each machine; the first of each region runs its planner too."""
    common, planner = ((HERE / name).read_text() for name in ("regional.toml", "planner.toml"))
    addresses = dict(zip(NODES, free_addresses(len(NODES)), strict=True))
    processes: dict[str, asyncio.subprocess.Process] = {}
    for node, address in addresses.items():
        region = node.partition("-")[0]
        peers = "".join(f'{peer} = "{at}"\n' for peer, at in addresses.items() if peer != node)
        config = folder / f"{node}.toml"
        config.write_text(
            f"{common}\n{planner if node == REGIONS[region][0] else ''}\n"
            f'[node]\nid = "{node}"\n[raft]\nmembers = {json.dumps(NODES)}\n'
            f'[mesh]\nlisten = "{address}"\n[mesh.peers]\n{peers}'
        )
        processes[node] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--config", str(config)),
            *("--state", str(folder / node), "--no-web", "--json"),
            cwd=HERE,
            env={
                **os.environ,
                "MAPEK_HIERARCHY_NODE": region,
                "MAPEK_HIERARCHY_NODES": ",".join(REGIONS[region]),
                "MACHINES": str(machines),
                "INSTALL": str(HERE / "install.sh"),
            },
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


async def ask(folder: Path, region: str, nodes: Sequence[str]) -> None:
    """What a planner agreed on and set, and which cycles of its machines are linked to that."""
    planner = folder / nodes[0]
    set_in = {span.span_id for span in await spans(planner, PLANNED.replace("REGION", region))}
    plans = {span.trace_id for span in await spans(planner, PLAN.replace("REGION", region))}
    # Whoever leads writes it down, in the trace of the plan that asked.
    agreed = {span.trace_id for node in NODES for span in await spans(folder / node, AGREED)}
    refused = {
        str(reason)
        for span in await spans(planner, REFUSED.replace("REGION", region))
        for reason in several(span.selected["event.reason"])
        if "has another gateway down" in str(reason)
    }
    linked = [
        node
        for node in nodes
        for span in await spans(folder / node, FOLLOWED)
        if set_in & {str(link) for link in several(span.selected["link:spanID"])}
    ]
    print(f"{region}: {', '.join(linked)} did what was planned")
    print(f"{region}: {'agreed with the other region' if plans & agreed else 'asked nobody'}")
    for reason in sorted(refused):
        print(f"{region} waited: {reason}")


async def spans(folder: Path, query: str) -> list[Any]:
    """What a node has kept of the spans that a query chooses."""
    async with TraceStore(folder / "traces.sqlite", read_only=True) as store:
        found = await store.search(parse(query), limit=1000)
    return [span for trace in found.traces for chosen in trace.sets for span in chosen.spans]


def several(value: object) -> list[object]:
    """One value or several."""
    return list(value) if isinstance(value, list | tuple) else [value]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
