"""Hierarchical control: a link flaps, and a slow loop tells the fast ones to let links rest longer.

Runs `mapek run --config hierarchical.toml` twice at the same time, with the slow loop and without it,
then says what became of the link and of the messages, and who followed the goal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

HERE = Path(__file__).parent
ONE_FAILURE = 2.5
"""Both ends of a link may drain it for one failure."""
SET = '{ name = "mape_k.execute" && span.node_id = "region" && span.actions_executed > 0 }'
FOLLOWED = '{ name = "mape_k.cycle" && span.trigger =~ "goal mesh.cool_down.*" } | select(link:spanID)'


async def main(folder: Path, seconds: float) -> None:
    """Run both, and compare."""
    async with asyncio.TaskGroup() as group:
        runs = {
            "with the slow loop": group.create_task(run(folder / "with", seconds, enabled=True)),
            "without it": group.create_task(run(folder / "without", seconds, enabled=False)),
        }
    for name, task in runs.items():
        print(f"{name}: {describe(task.result())}")
    for event in runs["with the slow loop"].result():
        if event["event"] == "goal.set":
            print(f"{event['at']:.0f} s: {event['goal']} is {event['value']:g} s (was {event['before']:g} s)")
    print(await followers(folder / "with" / "traces.sqlite"))


async def run(folder: Path, seconds: float, *, enabled: bool) -> list[dict[str, Any]]:
    """What one run tells, the summary last."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--config", "hierarchical.toml"),
        *("--state", str(folder), "--duration", str(seconds), "--no-web", "--json"),
        cwd=HERE,
        env={**os.environ, "MAPEK_HIERARCHY_ENABLED": str(enabled).lower()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return [json.loads(line) for line in out.splitlines()]


def describe(events: list[dict[str, Any]]) -> str:
    """What became of the links, and of the messages."""
    summary = events[-1]
    drained = [(event["target"], event["at"]) for event in events if event["event"] == "link.drained"]
    failures = 0
    for link in {link for link, _ in drained}:
        times = [at for each, at in drained if each == link]
        failures += 1 + sum(b - a > ONE_FAILURE for a, b in pairwise(times))
    lost = summary["messages_sent"] - summary["messages_delivered"]
    return (
        f"links failed {failures} times in use, {summary['actions']} actions "
        f"({summary['wrong_actions']} wrong), {lost} of {summary['messages_sent']:,} messages lost"
    )


async def followers(file: Path) -> str:
    """Which nodes had a cycle that is linked to a span that set the goal."""
    async with TraceStore(file, read_only=True) as store:
        setters = {
            span.span_id
            for found in (await store.search(parse(SET), limit=100)).traces
            for chosen in found.sets
            for span in chosen.spans
        }
        nodes = {
            str(span.attributes["node_id"])
            for found in (await store.search(parse(FOLLOWED), limit=100)).traces
            for chosen in found.sets
            for span in chosen.spans
            if setters.intersection(span.selected["link:spanID"])
        }
    return f"cycles linked to the span that set it: on {', '.join(sorted(nodes))}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder), float(sys.argv[1]) if len(sys.argv) > 1 else 180.0))
