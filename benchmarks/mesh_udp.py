"""The UDP part of `benchmarks.mesh`: messages lost with healing and without, over the same faults.

Each seed is `mapek run --chaos --seed N --json`, once as it is and once with `--no-heal`, both at the
same time, so that whatever the machine does happens to both. Real sockets, real packets, real time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

__all__ = ["measure_udp", "print_udp", "udp_row"]

_MAIN = "from mapek_runtime.service.cli import main; main()"


async def measure_udp(seeds: Sequence[int], duration: float) -> list[dict[str, Any]]:
    """One row for each seed, with both summaries."""
    rows = []
    for seed in seeds:
        heal, alone = await asyncio.gather(_run(seed, duration), _run(seed, duration, "--no-heal"))
        row = udp_row(seed, heal, alone)
        print(
            f"seed {seed}: lost {row['lost_heal']} of {row['sent_heal']} with healing, "
            f"{row['lost_alone']} of {row['sent_alone']} without",
            file=sys.stderr,
            flush=True,
        )
        rows.append(row)
    return rows


def udp_row(seed: int, heal: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """What the two summaries of one seed say."""
    return {
        "seed": seed,
        "faults": heal["faults_injected"],
        "sent_heal": heal["messages_sent"],
        "lost_heal": heal["messages_sent"] - heal["messages_delivered"],
        "sent_alone": alone["messages_sent"],
        "lost_alone": alone["messages_sent"] - alone["messages_delivered"],
        "repair_median_ms": heal["repair_ms"]["median"],
        "repair_p95_ms": heal["repair_ms"]["p95"],
        "repair_alone_median_ms": alone["repair_ms"]["median"],
        "wrong_actions": heal["wrong_actions"],
    }


def print_udp(rows: Sequence[dict[str, Any]]) -> None:
    """The table, and the ratio over all seeds."""
    print("UDP mesh: five nodes on loopback, the same faults with healing and with --no-heal")
    print(
        f"{'seed':>6}{'faults':>8}{'lost healing':>14}{'lost alone':>12}{'repair ms (p95)':>18}"
        f"{'alone ms':>10}{'wrong':>7}"
    )
    for row in rows:
        repair = f"{_ms(row['repair_median_ms'])} ({_ms(row['repair_p95_ms'])})"
        print(
            f"{row['seed']:>6}{row['faults']:>8}{row['lost_heal']:>14}{row['lost_alone']:>12}{repair:>18}"
            f"{_ms(row['repair_alone_median_ms']):>10}{row['wrong_actions']:>7}"
        )
    heal, alone = sum(row["lost_heal"] for row in rows), sum(row["lost_alone"] for row in rows)
    share = f"{heal / alone:.2f} of" if alone else "against none of"
    print(f"all seeds: {heal} lost with healing, {alone} without: {share} what the mesh alone loses")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


async def _run(seed: int, duration: float, *options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mapek-bench-") as state:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, "run", "--chaos", "--seed", str(seed), "--json"),
            *("--duration", str(duration), "--state", state, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    lines = output.decode().splitlines()
    if process.returncode != 0 or not lines:
        raise RuntimeError(
            f"mapek run --seed {seed} ended with {process.returncode}: {errors.decode()[-2000:]}"
        )
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary
