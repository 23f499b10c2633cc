"""What does a cycle cost, beside the stock SDK's?

A cycle is a root span and five phases with two attributes each. The stock SDK's side runs the same
tasks with `start_as_current_span`, which is what a careful user would write by hand, in one loop and
in many at the same time. "runtime" is the whole of it: scheduler, plugins, guard rails and knowledge,
under our tracer and under the SDK's. CPU time of the loop's thread, which never waits here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from mapek_runtime import Cycle, Finding, Insight, Observation, Runtime
from mapek_runtime.loop.model import Trigger
from mapek_runtime.trace import use_provider

from . import measure, variants
from .measure import Beside, Row, Variant, clock

QUESTION = "What does a cycle cost, beside the stock SDK's?"
CYCLES = 400
"""Cycles in one round, shared by the loops; each loop runs one at least."""
TARGETS = {1: 0.30, 100: 0.30, 10_000: 0.45}
"""What was promised at so many loops: of the cycle that is written by hand with the stock SDK."""
STOCK, OURS, BARE = "stock SDK, tasks", "recorded, tasks", "bare tasks"
RUNTIME_OVER_STOCK = "runtime under the stock SDK"
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
        began = clock()
        async with asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(_by_hand(tracer, _each(loops)))
        return (clock() - began) / (_each(loops) * loops)

    return lambda: asyncio.run(run())


def _bare_tasks(loops: int) -> Callable[[], float]:
    async def run() -> float:
        began = clock()
        async with asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(_bare(_each(loops)))
        return (clock() - began) / (_each(loops) * loops)

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
        began = clock()
        for _ in range(CYCLES):
            await runtime._runner.run(triggers)
        return (clock() - began) / CYCLES

    def measured() -> float:
        with use_provider(provider):
            return asyncio.run(run())

    return measured


def _variants(loops: Sequence[int]) -> dict[str, Variant]:
    """Every number of loops, beside the SDK's at that number and beside itself at the smaller ones."""
    found: dict[str, Variant] = {}
    for place, count in enumerate(loops):
        beside = Beside(reference=_name(STOCK, count), target=TARGETS.get(count))
        runs = {
            STOCK: (_hand_written("stock SDK", count), ()),
            OURS: (_hand_written("recorded", count), (beside,)),
            BARE: (_bare_tasks(count), (Beside(reference=_name(STOCK, count)),)),
        }
        for what, (run, first) in runs.items():
            before = [Beside(reference=_name(what, fewer)) for fewer in loops[:place] if fewer > 1]
            found[_name(what, count)] = Variant(run, (*first, *before))
    return found


def _with_runtime() -> dict[str, Variant]:
    """The whole runtime, in one loop."""
    by_hand = Beside(reference=_name(STOCK, 1))
    found = {RUNTIME_OVER_STOCK: Variant(_runtime("stock SDK"), (by_hand,))}
    for name in ("recorded", "unsampled", "off"):
        beside = (by_hand, Beside(reference=RUNTIME_OVER_STOCK))
        found[f"runtime, {name}"] = Variant(_runtime(name), beside)
    return found


def _name(what: str, loops: int) -> str:
    return f"{what}, {loops:,} {'loop' if loops == 1 else 'loops'}"


def _growth(rows: Sequence[Row], few: int, many: int) -> str:
    """How much more a cycle costs among many loops: the bare tasks, ours, and the SDK's."""
    ratios = {row.name: row.ratio for row in rows if (row.reference or "").endswith(_name("", few))}
    grown = {what: ratios[_name(what, many)] or 0.0 for what in (BARE, OURS, STOCK)}
    verdict = "grows no faster" if grown[OURS] <= grown[BARE] else "grows faster"
    said = "; ".join(f"{what}: x {ratio:.2f}" for what, ratio in grown.items())
    return (
        f"what a cycle costs at {many:,} loops, of what it costs at {few:,}: {said}; ours {verdict} than bare"
    )


def main() -> None:
    """Print the table."""
    parser = measure.arguments(QUESTION, rounds=9)
    parser.add_argument(
        "--loops", type=int, nargs="+", default=[1, 100, 10_000], help="so many loops at the same time"
    )
    options = parser.parse_args()
    loops = sorted(set(options.loops))
    runs = _variants(loops) | (_with_runtime() if loops[0] == 1 else {})
    rows = measure.compare(runs, rounds=options.rounds)
    measure.report(QUESTION, rows, unit="cycle", rounds=options.rounds, as_json=options.json)
    several = [count for count in loops if count > 1]
    if len(several) > 1 and not options.json:
        print(_growth(rows, several[0], several[-1]))


if __name__ == "__main__":
    main()
