"""The loops of the nodes in this process, and what happens to them when a node crashes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from opentelemetry.metrics import MeterProvider

from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import MapekError
from mapek_runtime.loop import Consensus, Cycle, FollowsNodes, Knowledge, Runtime, RuntimeStatistics

__all__ = ["NodeLoops", "watching"]

logger = logging.getLogger(__name__)

_WATCHING = ("monitor", "analyze", "learn")
_GRACE = 1.0
"""Seconds for what a cycle does beside its phases, and for an event loop that is busy."""


class NodeLoops:
    """One `Runtime` a node; implements the `Supervisor` that domains tell of crashes.

    A crashed node loses its loop and what it had in memory; a restarted one begins with what its
    knowledge has on disk.
    """

    def __init__(
        self,
        *,
        settings: LoopSettings,
        plugins: Callable[[str], Sequence[object]],
        knowledge: Callable[[str], Knowledge],
        halt_file: Path | None = None,
        on_cycle: Callable[[Cycle], None] | None = None,
        consensus: Callable[[], Consensus | None] = lambda: None,
        followers: Callable[[], Sequence[FollowsNodes]] = tuple,
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._knowledge = knowledge
        self._halt_file = halt_file
        self._on_cycle = on_cycle
        self._consensus = consensus
        self._followers = followers
        self.meter_provider: MeterProvider | None = None
        """Where the metrics of loops that start from now on go; None: to the global one."""
        self._running: dict[str, Runtime] = {}
        self._past: dict[str, Counter[str]] = {}
        self._lost: set[str] = set()
        """Nodes that are back, and whose loop could not be started again."""
        self._longest = _longest_cycle(settings)
        self._ending = False

    async def start(self, nodes: Sequence[str]) -> None:
        """Start the loop of each node.

        Raises `PluginError` for a plugin that cannot be used, and `KnowledgeError` when the
        knowledge of a node cannot be read.
        """
        for node_id in nodes:
            await self._start(node_id)

    async def crashed(self, node_id: str) -> None:
        """The node is gone at once: its loop ends without a farewell."""
        for follower in self._followers():
            follower.crashed(node_id)
        runtime = self._running.get(node_id)
        if runtime is not None:
            await runtime.cancel()
            await self._close(node_id, runtime)

    async def restarted(self, node_id: str) -> None:
        """The node is back: its loop starts again."""
        if self._ending or node_id in self._running:
            return
        for follower in self._followers():
            follower.restarted(node_id)
        try:
            await self._start(node_id)
            self._lost.discard(node_id)
        except MapekError:
            self._lost.add(node_id)
            # A node whose loop cannot start is a node without a loop, not the end of the others.
            logger.exception("the loop of %r could not be started again", node_id)

    def trigger(self, node_id: str, reason: str) -> None:
        """Ask for a cycle of that node's loop now; a node without a loop does not hear it."""
        runtime = self._running.get(node_id)
        if runtime is not None:
            runtime.trigger(reason)

    async def stop(self) -> None:
        """Finish the running cycle of every node and end the loops."""
        self._ending = True
        async with asyncio.TaskGroup() as group:
            for node_id, runtime in self._running.items():
                group.create_task(self._stop(node_id, runtime), name=f"stop {node_id}")

    async def cancel(self) -> None:
        """End every loop at once."""
        self._ending = True
        for node_id, runtime in tuple(self._running.items()):
            await runtime.cancel()
            await self._close(node_id, runtime)

    def statistics(self) -> dict[str, RuntimeStatistics]:
        """What happened so far on each node, over all its lives."""
        totals: dict[str, RuntimeStatistics] = {}
        for node_id in sorted({*self._past, *self._running}):
            counts = Counter(self._past.get(node_id, Counter()))
            if node_id in self._running:
                counts.update(self._running[node_id].statistics()._asdict())
            totals[node_id] = RuntimeStatistics(
                **{field: counts[field] for field in RuntimeStatistics._fields}
            )
        return totals

    def faults(self) -> dict[str, str]:
        """What is wrong with the loops that should run; not that a node has crashed, as its domain says."""
        faults = dict.fromkeys(sorted(self._lost), "its loop could not be started again")
        for node_id, runtime in self._running.items():
            silence = runtime.silence()
            if silence is None:
                faults[node_id] = "its loop has ended"
            elif silence > self._longest:
                faults[node_id] = (
                    f"no cycle has ended for {silence:.0f} s; loop.interval and the limits of the phases "
                    f"allow {self._longest:g} s"
                )
        return faults

    async def _start(self, node_id: str) -> None:
        runtime = Runtime(
            *self._plugins(node_id),
            node_id=node_id,
            knowledge=self._knowledge(node_id),
            settings=self._settings,
            halt_file=self._halt_file,
            on_cycle=self._on_cycle,
            meter_provider=self.meter_provider,
            consensus=self._consensus,
        )
        self._running[node_id] = runtime
        try:
            await runtime.__aenter__()
        except BaseException:
            self._running.pop(node_id, None)
            raise

    async def _stop(self, node_id: str, runtime: Runtime) -> None:
        await runtime.stop()
        await self._close(node_id, runtime)

    async def _close(self, node_id: str, runtime: Runtime) -> None:
        if self._running.get(node_id) is not runtime:
            return  # somebody else closes it
        del self._running[node_id]
        self._past.setdefault(node_id, Counter()).update(runtime.statistics()._asdict())
        # The loop has ended; what is left of the block is to write the knowledge and close it.
        await runtime.__aexit__(None, None, None)


def _longest_cycle(settings: LoopSettings) -> float:
    """Seconds within which a cycle ends, whatever its plugins do, from the end of the one before."""
    phases = (
        (settings.monitor_limit, settings.monitor_retries),
        (settings.analyze_limit, settings.analyze_retries),
        (settings.plan_limit, settings.plan_retries),
        (settings.execute_limit, 0),
        (settings.knowledge_limit, 0),
    )
    wait = settings.retry_delay
    limits: float = sum(limit * (tries + 1) + wait * (2.0 ** min(tries, 60) - 1) for limit, tries in phases)
    return settings.interval + settings.jitter + limits + _GRACE


class _Watching:
    """The phases of a plugin that only look."""

    def __init__(self, plugin: object, phases: Sequence[str]) -> None:
        self.name = str(getattr(plugin, "name", "") or type(plugin).__name__)
        for phase in phases:
            setattr(self, phase, getattr(plugin, phase))


def watching(plugins: Sequence[object]) -> list[object]:
    """The same plugins without Plan and Execute; those that do nothing else are left out."""
    kept = [(plugin, [phase for phase in _WATCHING if hasattr(plugin, phase)]) for plugin in plugins]
    return [_Watching(plugin, phases) for plugin, phases in kept if phases]
