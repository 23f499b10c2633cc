"""What does each domain change? The same faults with it and without it.

`python -m benchmarks.ablation` runs, for each domain and seed, the service twice at the same time: with
all domains, and with all but that one. Sockets, packets, elections and faults are real, and so is time.
A domain of which no outcome moves has no place here.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from . import measure
from .ablation_scenes import SCENES, Scene

__all__ = ["main"]

QUESTION = "What does each domain change?"
DOMAINS = ("mesh", "raft", "crdt", "fl")
_AGAIN = 5.0
"""Seconds within which a second restart of a node is the same one, done twice."""


async def _run(scene: Scene, seed: int, duration: float, domains: Sequence[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mapek-ablation-") as folder:
        chaos = ["--chaos"] if scene.script is None else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--listen", "127.0.0.1:0",
            "--nodes", str(scene.nodes), "--seed", str(seed), "--duration", str(duration), *chaos,
            "--domains", ",".join(domains), "--state", folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 24,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))},
                "MAPEK_STORE_ENABLED": "false",
                # A node that comes back has the memory of the others, or none.
                "MAPEK_KNOWLEDGE_STORE": "memory",
                **scene.environment,
            },
        )  # fmt: skip
        assert process.stdout is not None
        events: list[dict[str, Any]] = []
        page = ""
        breaking: asyncio.Task[None] | None = None
        async for line in process.stdout:
            event = json.loads(line)
            events.append(event)
            if event["event"] == "listening":
                page = event["page"]
            elif event["event"] == "started" and scene.script is not None:
                breaking = asyncio.create_task(_break(page, scene, seed, duration))
        if breaking is not None:
            await breaking
        if await process.wait():
            raise SystemExit(f"mapek run --seed {seed} of {scene.domain} ended with {process.returncode}")
    return outcomes(events)


async def _break(page: str, scene: Scene, seed: int, duration: float) -> None:
    """Make the faults of a script over the page's API."""
    assert scene.script is not None
    loop = asyncio.get_running_loop()
    began = loop.time()
    headers = {"X-Mapek": "1", "Origin": page.rstrip("/")}
    async with aiohttp.ClientSession(page, headers=headers) as client:
        for fault in scene.script(random.Random(seed), duration):
            await asyncio.sleep(began + fault.at - loop.time())
            body = {"kind": fault.kind, "target": fault.target, "seconds": fault.seconds}
            async with client.post("/page/inject", json=body) as answer:
                # 409: the one before is still there.
                if answer.status not in (200, 409):
                    raise SystemExit(f"{fault.kind} on {fault.target}: {answer.status} {await answer.text()}")


def outcomes(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of a run, from its events and the summary at their end."""
    summary = events[-1]
    return {
        "repair_ms": summary["repair_ms"]["median"] or 0.0,
        "repair_p95_ms": summary["repair_ms"]["p95"] or 0.0,
        "detection_ms": summary["detection_ms"]["median"] or 0.0,
        "link_detection_ms": statistics.median(links_noticed(events) or [0.0]),
        "delivery": summary["delivery_ratio"] or 0.0,
        "wrong_or_doubled": summary["wrong_actions"] + doubled(events),
        "actions": summary["actions"],
        "faults": summary["faults_injected"],
        "healed": summary["faults_healed"],
        "lag_p99_ms": summary["loop_lag_ms"]["p99"],
    }


def doubled(events: Sequence[Mapping[str, Any]]) -> int:
    """Links that a second node drained while they were drained, and nodes restarted twice at once."""
    count = 0
    drained: dict[str, set[str]] = {}
    restarted: dict[str, float] = {}
    for event in events:
        node, target = event.get("node", ""), event.get("target", "")
        match event["event"]:
            case "link.drained":
                holders = drained.setdefault(target, set())
                count += bool(holders - {node})
                holders.add(node)
            case "link.undrained":
                drained.get(target, set()).discard(node)
            case "node.restarted":
                count += event["at"] - restarted.get(target, -_AGAIN) < _AGAIN
                restarted[target] = event["at"]
    return count


def links_noticed(events: Sequence[Mapping[str, Any]]) -> list[float]:
    """Milliseconds from the fault of each link until somebody found something about it."""
    return [e["detection_ms"] for e in events if e["event"] == "fault.noticed" and "~" in e["target"]]


async def _compare(scene: Scene, seeds: Sequence[int], duration: float) -> list[dict[str, Any]]:
    rows = []
    others = [domain for domain in DOMAINS if domain != scene.domain]
    for seed in seeds:
        async with asyncio.TaskGroup() as group:
            on = group.create_task(_run(scene, seed, duration, DOMAINS))
            off = group.create_task(_run(scene, seed, duration, others))
        rows.append({"seed": seed, "on": on.result(), "off": off.result()})
        print(f"{scene.domain}, seed {seed}: {rows[-1]}", file=sys.stderr)
    return rows


def _show(scene: Scene, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{scene.domain}: {scene.story}")
    print(f"  {'':40} {'with':>10} {'without':>10}   with, without by seed")
    for outcome in scene.outcomes:
        on, off = ([row[name][outcome.key] for row in rows] for name in ("on", "off"))
        pairs = "  ".join(f"{_short(a)}, {_short(b)}" for a, b in zip(on, off, strict=True))
        print(
            f"  {outcome.words:40} {_short(statistics.median(on)):>10} {_short(statistics.median(off)):>10}"
            f"   {pairs}"
        )


def _short(value: float) -> str:
    return f"{value:.4f}" if 0 < value < 1 else f"{value:,.0f}"


def main() -> None:
    """Print, for each domain, the outcomes with it and without it: medians, and every seed."""
    parser = measure.arguments(QUESTION, rounds=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--duration", type=float, default=60.0, help="seconds a seed")
    parser.add_argument("--only", choices=[scene.domain for scene in SCENES], help="this domain alone")
    options = parser.parse_args()
    scenes = [scene for scene in SCENES if options.only in (None, scene.domain)]
    found = {scene.domain: asyncio.run(_compare(scene, options.seeds, options.duration)) for scene in scenes}
    if options.json:
        print(json.dumps({"question": QUESTION, **measure.machine(), "scenes": found}))
        return
    print(QUESTION)
    print(", ".join(f"{key} {value}" for key, value in measure.machine().items()))
    for scene in scenes:
        _show(scene, found[scene.domain])


if __name__ == "__main__":
    main()
