"""What does a cycle cost, beside the stock SDK's?

A cycle is a root span and five phases with two attributes each. The stock SDK's side runs the same
tasks with `start_as_current_span`, which is what a careful user would write by hand, in one loop and
in many at the same time. "runtime" is the whole of it: scheduler, plugins, guard rails and knowledge,
under our tracer and under the SDK's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from mapek_runtime import Cycle, Finding, Insight, Observation, Runtime
from mapek_runtime.loop.model import Trigger
from mapek_runtime.trace import use_provider

from . import measure, variants

QUESTION = "What does a cycle cost, beside the stock SDK's?"
CYCLES = 400
"""Cycles in one round, shared by the loops; each loop runs one at least."""
PHASES = ("monitor", "analyze", "plan", "execute", "knowledge")


async def _phase(tracer: Tracer, name: str) -> None:
    with tracer.start_as_current_span(name, attributes={"node_id": "node-1", "count": 3}):
        pass


async def _bare_phase() -> None:
    pass


async def _by_hand(tracer: Tracer, cycles: int) -> None:
    for number in range(cycles):
        with tracer.start_as_current_span(
            "mape_k.cycle", context=Context(), attributes={"node_id": "node-1", "cycle": number}
        ):
            for name in PHASES:
                await asyncio.create_task(_phase(tracer, name))


async def _bare(cycles: int) -> None:
    for _ in range(cycles):
        for _ in PHASES:
            await asyncio.create_task(_bare_phase())


def _each(loops: int) -> int:
    return max(1, CYCLES // loops)


def _hand_written(name: str, loops: int) -> Callable[[], float]:
    tracer = variants.tracer(name)

    async def run() -> float:
        began = time.perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(_by_hand(tracer, _each(loops)))
        return (time.perf_counter_ns() - began) / (_each(loops) * loops)

    return lambda: asyncio.run(run())


def _bare_tasks(loops: int) -> Callable[[], float]:
    async def run() -> float:
        began = time.perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(_bare(_each(loops)))
        return (time.perf_counter_ns() - began) / (_each(loops) * loops)

    return lambda: asyncio.run(run())


class _Quiet:
    """A plugin of every phase on a quiet day."""

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return (Observation(name="load", value=0.1, target=cycle.node_id),)

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return ()

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        return ()


def _runtime(name: str) -> Callable[[], float]:
    provider = variants.PROVIDERS[name]()

    async def run() -> float:
        runtime = Runtime(_Quiet())
        triggers = (Trigger(reason="interval"),)
        began = time.perf_counter_ns()
        for _ in range(CYCLES):
            await runtime._runner.run(triggers)
        return (time.perf_counter_ns() - began) / CYCLES

    def measured() -> float:
        with use_provider(provider):
            return asyncio.run(run())

    return measured


def main() -> None:
    """Print the table."""
    parser = measure.arguments(QUESTION, rounds=9)
    parser.add_argument(
        "--loops", type=int, nargs="+", default=[1, 100, 10_000], help="so many loops at the same time"
    )
    options = parser.parse_args()
    for loops in options.loops:
        runs = {
            "stock SDK, tasks by hand": _hand_written("stock SDK", loops),
            "recorded, tasks by hand": _hand_written("recorded", loops),
            "bare tasks, no tracing": _bare_tasks(loops),
        }
        if loops == 1:
            runs |= {
                "runtime under the stock SDK": _runtime("stock SDK"),
                "runtime, recorded": _runtime("recorded"),
                "runtime, unsampled": _runtime("unsampled"),
                "runtime, off": _runtime("off"),
            }
        rows = measure.compare(runs, reference="stock SDK, tasks by hand", rounds=options.rounds)
        question = f"{QUESTION} ({loops:,} {'loop' if loops == 1 else 'loops'})"
        measure.report(question, rows, unit="cycle", rounds=options.rounds, as_json=options.json)


if __name__ == "__main__":
    main()
