"""The part of `benchmarks.linkmodel` in real time: `mapek run` under mild faults, with learning and without.

Both runs of a seed go at the same time, so that whatever the machine does happens to both. A third has no
faults at all: whatever it does is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

__all__ = ["measure_real", "print_real"]

_MAIN = "from mapek_runtime.service.cli import main; main()"
_DURATION = 90.0
_NAMES = {"learning": "mesh,fl", "thresholds alone": "mesh"}


async def measure_real(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each seed and each way to run."""
    rows = []
    for seed in seeds:
        async with asyncio.TaskGroup() as group:
            runs = {
                name: group.create_task(_run(seed, domains, "--chaos")) for name, domains in _NAMES.items()
            }
            runs["learning, no faults"] = group.create_task(_run(seed, "mesh,fl"))
        rows += [{"seed": seed, "name": name, **run.result()} for name, run in runs.items()]
        print(f"seed {seed} in real time: done", file=sys.stderr, flush=True)
    return rows


def print_real(rows: Sequence[dict[str, Any]]) -> None:
    """The table."""
    print(f"\nin real time, {_DURATION:g} s a run, mild faults over the UDP mesh")
    print(
        f"{'seed':>4} {'':22}{'faults':>7}{'healed':>7}{'noticed after, ms':>19}"
        f"{'delivered':>11}{'actions':>9}{'wrong':>7}"
    )
    for row in rows:
        noticed = row["detection_ms"]["median"]
        print(
            f"{row['seed']:>4} {row['name']:22}{row['faults_injected']:>7}{row['faults_healed']:>7}"
            f"{'-' if noticed is None else f'{noticed:.0f}':>19}{row['delivery_ratio']:>11.4f}"
            f"{row['actions']:>9}{row['wrong_actions']:>7}"
        )


async def _run(seed: int, domains: str, *options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mapek-bench-") as state:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, "run", "--json", "--no-web", "--seed", str(seed)),
            *("--domains", domains, "--duration", str(_DURATION), "--state", state, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "MAPEK_MESH_CHAOS": "mild"},
        )
        output, errors = await process.communicate()
    lines = output.decode().splitlines()
    if process.returncode or not lines:
        raise RuntimeError(
            f"mapek run --seed {seed} ended with {process.returncode}: {errors.decode()[-2000:]}"
        )
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary
