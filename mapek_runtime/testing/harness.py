"""`run_cycle`: one cycle without a scheduler."""

from __future__ import annotations

from mapek_runtime.config import LoopSettings
from mapek_runtime.loop import Consensus, Cycle, Knowledge, Trigger
from mapek_runtime.loop.cycle import CycleRunner
from mapek_runtime.loop.plugin import Registry

__all__ = ["run_cycle"]


async def run_cycle(
    *plugins: object,
    node: str = "node-1",
    knowledge: Knowledge | None = None,
    settings: LoopSettings | None = None,
    trigger: str = "manual",
    consensus: Consensus | None = None,
) -> Cycle:
    """Run one cycle of `plugins` and give it back: what it saw, found, planned, did and learned.

    Phases, limits, guard rails and spans are those of a real loop; only the clock does not start it.
    `consensus` is asked before an action that the nodes must agree on.
    Raises what `Runtime` raises for a plugin that cannot be used.
    """
    runner = CycleRunner(
        node,
        Registry(plugins),
        settings or LoopSettings(),
        knowledge or Knowledge(),
        halted=None,
        consensus=lambda: consensus,
    )
    return await runner.run((Trigger(reason=trigger),))
