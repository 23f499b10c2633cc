"""What does the loop save, beside the mesh's own link-state protocol?

For each seed the same schedule of faults runs twice at the same time, once with the loop and once with
`--no-heal`: real sockets, real packets, real time. Reported are messages lost, time to repair (until
the metric recovered) and wrong actions.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
from typing import Any

from . import measure

QUESTION = "What does the loop save, beside the mesh's own link-state protocol?"


async def _run(seed: int, duration: float, *options: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--chaos",
        "--seed", str(seed), "--duration", str(duration), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 24,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"mapek run --seed {seed} ended with exit code {process.returncode}")
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


async def _compare(seeds: list[int], duration: float) -> list[dict[str, Any]]:
    rows = []
    for seed in seeds:
        async with asyncio.TaskGroup() as group:
            healed = group.create_task(_run(seed, duration))
            alone = group.create_task(_run(seed, duration, "--no-heal"))
        rows.append({"seed": seed, "loop": healed.result(), "alone": alone.result()})
        print(f"seed {seed} done", file=sys.stderr)
    return rows


def _lost(summary: dict[str, Any]) -> int:
    return int(summary["messages_sent"] - summary["messages_delivered"])


def main() -> None:
    """Print one line a seed and the sums."""
    parser = measure.arguments(QUESTION, rounds=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--duration", type=float, default=60.0, help="seconds a seed")
    options = parser.parse_args()
    rows = asyncio.run(_compare(options.seeds, options.duration))
    if options.json:
        print(json.dumps({"question": QUESTION, "rows": rows}))
        return
    print(QUESTION)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}")
    print("seed          faults  healed  repair ms, median / p95    lost of sent       wrong actions")
    for row in rows:
        for name in ("loop", "alone"):
            summary = row[name]
            repair = summary["repair_ms"]
            times = f"{repair['median'] or 0:,.0f} / {repair['p95'] or 0:,.0f}"
            lost = f"{_lost(summary)} of {summary['messages_sent']}"
            print(
                f"{row['seed']:>4} {name:8} {summary['faults_injected']:>6}  {summary['faults_healed']:>6}  "
                f"{times:>24}  {lost:>14}  {summary['wrong_actions']:>13}"
            )
    loop, alone = (sum(_lost(row[name]) for row in rows) for name in ("loop", "alone"))
    ratios = [_lost(row["loop"]) / max(1, _lost(row["alone"])) for row in rows]
    print(
        f"lost with the loop {loop}, alone {alone}: {loop / max(1, alone):.2f} of it "
        f"(by seed {min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
