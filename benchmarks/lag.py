"""What does watching the event loop cost a program that has nothing to do?

`python -m benchmarks.lag` starts one process for each variant in each round, in rotating order: a loop
that only waits, with and without `LoopLag` at several ticks, on asyncio and on uvloop. The answer is
the processor time of the whole process, all threads, as a share of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time

from mapek_runtime.trace.watching.lag import TICK, LoopLag

__all__ = ["main"]

TICKS = (0.0, 0.05, 0.1, TICK, 0.4)
"""Seconds; 0 is without."""


def main() -> None:
    """Run the benchmark and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lag", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a variant waits in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ticks", type=float, nargs="+", default=TICKS)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--variant", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant is not None:
        print(json.dumps(_run(options.variant, options.seconds, options.loop)))
        return
    shares: dict[float, list[float]] = {tick: [] for tick in options.ticks}
    for number in range(options.rounds):
        shift = number % len(shares)
        for tick in (*options.ticks[shift:], *options.ticks[:shift]):
            shares[tick].append(_in_process(tick, options.seconds, options.loop))
    report = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {options.loop}",
        "seconds": options.seconds,
        "rounds": options.rounds,
        "percent_of_a_core": {
            str(tick): {"median": statistics.median(found), "min": min(found), "max": max(found)}
            for tick, found in shares.items()
        },
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report['machine']}; {report['python']}; {options.rounds} rounds of {options.seconds:g} s")
    for tick, found in shares.items():
        name = f"tick {tick:g} s" if tick else "without"
        print(f"{name:14}{statistics.median(found):8.4f} % of a core ({min(found):.4f} to {max(found):.4f})")


def _in_process(tick: float, seconds: float, loop: str) -> float:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.lag", "--variant", str(tick), "--seconds", str(seconds),
            "--loop", loop,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )  # fmt: skip
    return float(done.stdout)


def _run(tick: float, seconds: float, loop: str) -> float:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_wait(tick, seconds))


async def _wait(tick: float, seconds: float) -> float:
    lag = LoopLag(tick=tick) if tick else None
    if lag is not None:
        await lag.start()
    # The first looks pay for what is loaded late.
    await asyncio.sleep(0.5)
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    used, elapsed = time.process_time() - cpu, time.perf_counter() - start
    if lag is not None:
        await lag.stop()
    return 100 * used / elapsed


if __name__ == "__main__":
    main()
