"""What does the trace store cost a service at 1,000 spans a second?

`python -m benchmarks.store_service` runs the service again and again, in turn with the store and without
it, with the same seed and loops so fast that they make about a thousand spans a second. Compared are
neighbours: the processor time of the whole process once it has started, all threads, as a share of one
core, and how late its event loop was. Needs Linux's `/proc`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import measure

__all__ = ["main"]

QUESTION = "What does the trace store cost a service at 1,000 spans a second?"
NODES = 5
INTERVAL = 0.03
"""Seconds from cycle to cycle: six spans each."""
MOST_CPU = 0.03
MOST_LAG_MS = 1.0
_SETTLED = 5.0
"""Seconds until imports and first tables are done with; what starting takes is no cost of a service."""


async def _run(seconds: float, *, store: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mapek-store-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--no-web",
            "--nodes", str(NODES), "--seed", "7", "--duration", str(seconds), "--state", folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 24,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))},
                "MAPEK_LOOP_INTERVAL": str(INTERVAL),
                "MAPEK_STORE_ENABLED": "true" if store else "false",
            },
        )  # fmt: skip
        used: list[float] = []
        watch = asyncio.create_task(_steady(process.pid, seconds, used))
        output, _ = await process.communicate()
        await watch
    if process.returncode:
        raise SystemExit(f"mapek run ended with exit code {process.returncode}")
    summary = json.loads(output.splitlines()[-1])
    spans = summary["spans"]
    return {
        "cpu": used[0],
        "lag_p99_ms": summary["loop_lag_ms"]["p99"],
        "spans_a_second": spans["ended"] / seconds,
        "dropped": sum(spans["dropped"].values()),
    }


async def _steady(pid: int, seconds: float, used: list[float]) -> None:
    """Append the share of a core that the process takes once it has started, and before it ends."""
    await asyncio.sleep(_SETTLED)
    before, began = _cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds - _SETTLED)
    used.append((_cpu_seconds(pid) - before) / (time.monotonic() - began))


def _cpu_seconds(pid: int) -> float:
    """Seconds of processor time of a process so far, all its threads, from `/proc`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _compare(rounds: int, seconds: float) -> list[dict[str, dict[str, Any]]]:
    found = []
    for number in range(rounds + 1):
        order = (True, False) if number % 2 else (False, True)
        pair = {("with" if store else "without"): await _run(seconds, store=store) for store in order}
        if number:
            # The first pair warms the machine.
            found.append(pair)
        print(f"round {number}/{rounds}: {pair}", file=sys.stderr)
    return found


def _median(pairs: list[dict[str, dict[str, Any]]], key: str) -> dict[str, float]:
    more = [pair["with"][key] - pair["without"][key] for pair in pairs]
    return {
        "with": statistics.median(pair["with"][key] for pair in pairs),
        "without": statistics.median(pair["without"][key] for pair in pairs),
        "more": statistics.median(more),
        "more_min": min(more),
        "more_max": max(more),
    }


def main() -> None:
    """Run the pairs and print the medians of their differences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_service", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each run takes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    pairs = asyncio.run(_compare(options.rounds, options.seconds))
    found = {key: _median(pairs, key) for key in ("cpu", "lag_p99_ms", "spans_a_second", "dropped")}
    if options.json:
        print(json.dumps({"question": QUESTION, **measure.machine(), **found}))
        return
    cpu, lag, spans = found["cpu"], found["lag_p99_ms"], found["spans_a_second"]
    print(QUESTION)
    print(", ".join(f"{key} {value}" for key, value in measure.machine().items()), f", {len(pairs)} pairs")
    print(f"  spans a second: {spans['with']:,.0f} with, {spans['without']:,.0f} without")
    print(
        f"  share of a core: {cpu['with']:.3f} with, {cpu['without']:.3f} without; {cpu['more']:+.3f} "
        f"({cpu['more_min']:+.3f} to {cpu['more_max']:+.3f}); at most {MOST_CPU:+g}: "
        f"{'met' if cpu['more'] <= MOST_CPU else 'not met'}"
    )
    print(
        f"  loop lag, p99: {lag['with']:.2f} ms with, {lag['without']:.2f} ms without; {lag['more']:+.2f} ms "
        f"({lag['more_min']:+.2f} to {lag['more_max']:+.2f}); at most {MOST_LAG_MS:+g} ms: "
        f"{'met' if lag['more'] <= MOST_LAG_MS else 'not met'}"
    )


if __name__ == "__main__":
    main()
