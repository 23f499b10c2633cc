"""A loop keeps its own traces in a file and is asked about them, without a collector.

A room that is too hot is cooled. The store is an exporter like any other; what it has kept is asked for
in the seed's syntax and in TraceQL.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource

from mapek_runtime import (
    Action,
    BatchSpanProcessor,
    Cycle,
    Finding,
    Observation,
    Outcome,
    Runtime,
    TracerProvider,
)
from mapek_runtime.store import TraceStore
from mapek_runtime.store.query import parse

ACTED = 'name="mape_k.cycle" AND actions_executed >= 1'
WORKED = '{ name = "mape_k.knowledge" && link.insight = "repair.verified" } | select(link:traceID)'


class Room:
    """Cools itself when it is too hot."""

    handles = ("cool",)
    temperature = 31.0

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """How warm it is."""
        return [Observation(name="temperature", value=self.temperature, unit="Cel", target="room")]

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """More than 25 degrees is a finding."""
        return [Finding(target=t, problem="hot") for t, v in cycle.readings("temperature").items() if v > 25]

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        """Cool it."""
        return [Action(name="cool", target=finding.target, finding=finding) for finding in cycle.findings]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Ten degrees less."""
        self.temperature -= 10
        return Outcome(action=action, success=True, changed=f"{self.temperature} degrees")


async def main(file: Path) -> None:
    """Run two cycles with their spans going to `file`, then ask for them."""
    store = TraceStore(file)
    async with traced(store), Runtime(Room(), interval=0.1) as runtime:
        await runtime.wait(cycles=2)

    async with TraceStore(file, read_only=True) as asked:
        (acted,) = (await asked.search(parse(ACTED))).traces
        (cycle,) = acted.sets[0].spans
        print(f"{ACTED}\n  cycle {cycle.attributes['cycle']} acted; its trace has {acted.spans} spans")

        (worked,) = (await asked.search(parse(WORKED))).traces
        (learned,) = worked.sets[0].spans
        assert learned.selected["link:traceID"] == acted.trace_id
        print(f"{WORKED}\n  a cycle after it saw that it worked, and is linked to it")


@asynccontextmanager
async def traced(store: TraceStore) -> AsyncIterator[None]:
    """Every span of the block goes to `store`, and is in its file when the block is left."""
    provider = TracerProvider(resource=Resource({"service.name": "room"}))
    provider.add_span_processor(BatchSpanProcessor(store))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # It closes the store, too.
        await provider.ashutdown(5)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(Path(folder) / "traces.sqlite"))
