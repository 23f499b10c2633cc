"""How long is a real mesh broken: Babel alone, and with the loop beside it?

    python -m benchmarks.mesh [--rounds 5] [--faults silent,carrier,loss] [--json]
    python -m benchmarks.mesh --engine udp [--seeds 1,2,3,4,5] [--duration 60] [--json]

Every trial is a lab of its own: six namespaces, seven veth links, one babeld in each (see `mapek lab`).
A fault hits a link and direction that the requests from n1 to n6 travel, or the answers; hops take
turns. The measure is the system's own `ping -i 0.02` from n1 to n6: *outage* is the longest gap between
two answers. Under partial loss answers come all the time, so there it is *disturbed*: from the fault to
the last lost ping. Alone and with the loop are interleaved, trial by trial, in the same run.

Two configurations of babeld, because the tuned one is the honest baseline:

* hello 1: hello 1 s, update 4 s;
* tuned: hello 0.2 s, update 1 s, `link-detect true`.

Both with metric smoothing off (`smoothing-half-life 0`), alone as well as with the loop: Babel alone is
not slower for it.

Beside it stands what it costs: bytes a second on each link, both directions, frames included, from the
counters of the interfaces, before the fault and without the ping. Exit 2 says what is missing here.

`--engine udp` asks the same of the UDP mesh, which needs no rights: see `mesh_udp`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
from dataclasses import asdict

from mapek_domains.mesh.lab import BabelSettings, enter_user_namespace, sweep
from mapek_runtime.errors import EngineUnavailable

from .mesh_trial import FAULTS, PING_INTERVAL, PROBE_INTERVAL, Trial, run_trial
from .mesh_udp import measure_udp, print_udp

__all__ = ["main"]

CONFIGURATIONS = {
    "hello 1": BabelSettings(hello=1.0, update=4.0),
    "tuned": BabelSettings(hello=0.2, update=1.0, link_detect=True),
}
_Results = dict[tuple[str, str, bool], list[Trial]]


async def measure(rounds: int, faults: tuple[str, ...], configurations: tuple[str, ...]) -> _Results:
    """Run every combination `rounds` times, interleaved."""
    await sweep()
    results: _Results = {}
    for number in range(rounds):
        for configuration in configurations:
            for fault in faults:
                for loop in (False, True):
                    trial = await run_trial(CONFIGURATIONS[configuration], fault, loop=loop, number=number)
                    results.setdefault((configuration, fault, loop), []).append(trial)
                    print(
                        f"{number + 1}/{rounds} {configuration:8} {fault:8} {'loop ' if loop else 'alone'} "
                        f"{trial.link} outage {trial.outage * 1e3:6.0f} ms, "
                        f"disturbed {trial.disturbed * 1e3:6.0f} ms"
                        + ("" if trial.restored else ", NOT restored")
                        + (f", drained {', '.join(trial.drains)}" if loop else ""),
                        file=sys.stderr,
                        flush=True,
                    )
    return results


def measure_of(trial: Trial) -> float:
    """What counts for that fault."""
    return trial.disturbed if trial.fault == "loss" else trial.outage


def report(results: _Results) -> list[dict[str, object]]:
    """One row for each configuration and fault."""
    rows: list[dict[str, object]] = []
    for configuration, fault in dict.fromkeys((c, f) for c, f, _ in results):
        alone, loop = results[configuration, fault, False], results[configuration, fault, True]
        times = {"alone": [measure_of(t) for t in alone], "loop": [measure_of(t) for t in loop]}
        medians = {name: statistics.median(values) for name, values in times.items()}
        rows.append(
            {
                "configuration": configuration,
                "fault": fault,
                "measure": "disturbed" if fault == "loss" else "outage",
                **{f"{name}_median_ms": round(median * 1e3, 1) for name, median in medians.items()},
                **{f"{name}_min_ms": round(min(values) * 1e3, 1) for name, values in times.items()},
                **{f"{name}_max_ms": round(max(values) * 1e3, 1) for name, values in times.items()},
                "ratio": round(medians["alone"] / medians["loop"], 2) if medians["loop"] else None,
                "difference_ms": round((medians["loop"] - medians["alone"]) * 1e3, 1),
                "wrong_drains": sum(t.wrong_drains for t in loop),
                "not_restored": {
                    "alone": sum(not t.restored for t in alone),
                    "loop": sum(not t.restored for t in loop),
                },
                "alone_bytes_per_link": round(statistics.median(t.bytes_per_link for t in alone)),
                "loop_bytes_per_link": round(statistics.median(t.bytes_per_link for t in loop)),
                "rounds": len(loop),
            }
        )
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mesh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument(
        "--configurations", default=",".join(CONFIGURATIONS), help=f"of {', '.join(CONFIGURATIONS)}"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--engine", choices=("babel", "udp"), default="babel")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="of the UDP mesh")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of each run of the UDP mesh")
    arguments = parser.parse_args()
    if arguments.engine == "udp":
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        found = asyncio.run(measure_udp(seeds, arguments.duration))
        print(json.dumps({"machine": _machine(), "rows": found})) if arguments.json else print_udp(found)
        return
    faults = tuple(arguments.faults.split(","))
    configurations = tuple(arguments.configurations.split(","))
    unknown = [*(set(faults) - set(FAULTS)), *(set(configurations) - set(CONFIGURATIONS))]
    if unknown or arguments.rounds < 1:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "--rounds must be at least 1")
    try:
        enter_user_namespace()
    except EngineUnavailable as error:
        print(f"benchmarks.mesh: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    results = asyncio.run(measure(arguments.rounds, faults, configurations))
    rows = report(results)
    if arguments.json:
        trials = [
            {"configuration": configuration, "loop": loop, **asdict(trial)}
            for (configuration, _, loop), found in results.items()
            for trial in found
        ]
        print(json.dumps({"machine": _machine(), "rows": rows, "trials": trials}))
        return
    print(f"{_machine()}; ping every {PING_INTERVAL * 1e3:g} ms, probes every {PROBE_INTERVAL * 1e3:g} ms")
    print(
        f"{'babeld':9}{'fault':9}{'measure':11}{'alone, ms (min-max)':>24}{'with the loop, ms':>24}"
        f"{'ratio':>8}{'wrong':>7}{'B/s a link alone':>18}{'with loop':>11}"
    )
    for row in rows:
        print(
            f"{row['configuration']:9}{row['fault']:9}{row['measure']:11}{_span(row, 'alone'):>24}"
            f"{_span(row, 'loop'):>24}{row['ratio']!s:>8}{row['wrong_drains']:>7}"
            f"{row['alone_bytes_per_link']:>18}{row['loop_bytes_per_link']:>11}"
        )


def _span(row: dict[str, object], name: str) -> str:
    return f"{row[f'{name}_median_ms']:.0f} ({row[f'{name}_min_ms']:.0f}-{row[f'{name}_max_ms']:.0f})"


def _machine() -> str:
    return (
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"
    )


if __name__ == "__main__":
    main()
