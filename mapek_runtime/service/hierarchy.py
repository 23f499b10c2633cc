"""Loops over loops: a slow one that sets goals, and the fast ones that follow them (hierarchical control).

    fast loops ── incidents ──▶ slow loop
         ▲                         │ sets a goal, in a span of its own
         └──── goal and span ──────┘

The hierarchy is opened like a domain, after all of them, and gives each node of this process a plugin. The
plugin hands what the node knows to the slow loop, where this process runs it, and follows goals: one that
has changed starts a cycle of the node, linked to the span that set it. Goals are part of what a node knows,
and reach the nodes of other processes where a domain shares that.

With `leader_only` the slow loop is where the leader is, so that one that is lost is followed by another (a
master and its workers). It begins anew there: what it needs is in the knowledge of the nodes.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from opentelemetry.metrics import MeterProvider

from mapek_runtime.config import HierarchySettings, LoopSettings, Settings
from mapek_runtime.errors import ConfigError
from mapek_runtime.loop import Consensus, Cycle, DomainContext, Goals, Knowledge, RuntimeStatistics
from mapek_runtime.loop.plugin import Registry

from .discovery import PluginSource, find_plugin
from .gather import Gather
from .goals import FollowsGoals, GoalsInKnowledge, Known
from .nodes import NodeLoops, watching
from .state import halt_file

if TYPE_CHECKING:
    from .prepare import Prepared

__all__ = [
    "Hierarchy",
    "Oversees",
    "SlowLoop",
    "open_hierarchy",
    "plugins_above",
    "slow_loop",
]

logger = logging.getLogger(__name__)

_LAST_CYCLE = 2.0
"""Seconds that the running cycle of the slow loop has at the end."""
_LOOK = 0.2
"""Seconds between two looks at who leads."""


@runtime_checkable
class Oversees(Protocol):
    """A plugin of the slow loop that wants to know what it oversees."""

    def oversee(self, context: DomainContext) -> None:
        """Called once, before the first cycle: the nodes of this process, and `find`.

        Of a slow loop that is where the leader is, the leader is the first of the nodes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLoop:
    """What the slow loop is made of."""

    settings: HierarchySettings
    loop: LoopSettings
    plugins: Callable[[], Sequence[object]]
    knowledge: Callable[[str], Knowledge] = lambda node: Knowledge(node=node)
    on_cycle: Callable[[Cycle], None] | None = None
    halt_file: Path | None = None
    meter_provider: MeterProvider | None = None


class Hierarchy:
    """A session that joins the loops of this process with those above and below them."""

    def __init__(self, context: DomainContext, slow: SlowLoop | None = None) -> None:
        self._context = context
        self._slow = slow
        self._loops: NodeLoops | None = None
        self._leader = ""
        """The node of this process for which the slow loop runs, where it is where the leader is."""
        self.known: Known = {}

    def plugins(self, node_id: str) -> Sequence[object]:
        """What joins a fast loop with those above it."""
        return (FollowsGoals(node_id, self._context, self.known),)

    def statistics(self) -> Mapping[str, RuntimeStatistics]:
        """The counts of the slow loop, where this process runs it."""
        return {} if self._loops is None else self._loops.statistics()

    def faults(self) -> Mapping[str, str]:
        """What is wrong with the slow loop, where this process runs it."""
        return {} if self._loops is None else self._loops.faults()

    async def start(self) -> None:
        """Start the slow loop, if there is one; raises `PluginError` for a plugin that cannot be used."""
        slow = self._slow
        if slow is None:
            return
        changed = msgspec.structs.replace(slow.loop, interval=slow.settings.interval)
        self._loops = NodeLoops(
            settings=changed,
            plugins=self._plugins_above,
            knowledge=slow.knowledge,
            halt_file=slow.halt_file,
            on_cycle=slow.on_cycle,
        )
        self._loops.meter_provider = slow.meter_provider
        if slow.settings.leader_only:
            # What cannot be used is known now, not when the first of these nodes leads.
            Registry(slow.plugins())
        else:
            await self._loops.start((slow.settings.node,))

    @asynccontextmanager
    async def following_leader(self) -> AsyncIterator[None]:
        """Run the slow loop whenever a node of this process leads, until the block is left."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                self._follow_leader(), name="follow the leader", context=contextvars.Context()
            )
            try:
                yield
            finally:
                task.cancel()

    async def stop(self) -> None:
        """Finish its running cycle, or end it where that takes too long."""
        if self._loops is None:
            return
        try:
            async with asyncio.timeout(_LAST_CYCLE):
                await self._loops.stop()
        except TimeoutError:
            logger.warning("the slow loop did not end within %g s", _LAST_CYCLE)
        finally:
            await self._loops.cancel()

    async def _follow_leader(self) -> None:
        assert self._slow is not None
        assert self._loops is not None
        name = self._slow.settings.node
        while True:
            leader = self._who_leads()
            if leader != self._leader:
                if self._leader:
                    # At once: who does not lead any more plans nothing more.
                    await self._loops.crashed(f"{name}@{self._leader}")
                self._leader = leader
                if leader:
                    await self._loops.restarted(f"{name}@{leader}")
            await asyncio.sleep(_LOOK)

    def _who_leads(self) -> str:
        """The node of this process that leads; of two that think so the one that did before."""
        consensus = self._context.find(Consensus)
        if consensus is None:
            return ""
        leading = [node for node in self._context.nodes if consensus.leader(node) == node]
        return self._leader if self._leader in leading else next(iter(leading), "")

    def _plugins_above(self, _node: str) -> Sequence[object]:
        assert self._slow is not None
        plugins = list(self._slow.plugins())
        nodes = sorted(self._context.nodes, key=lambda node: node != self._leader)
        context = replace(self._context, nodes=tuple(nodes)) if self._leader else self._context
        for plugin in plugins:
            if isinstance(plugin, Oversees):
                plugin.oversee(context)
        # First: the others read what it brings.
        gathered = [Gather(self.known, self._slow.settings.nodes), *plugins]
        return gathered if self._context.heal else watching(gathered)


class _Keeping(Hierarchy, GoalsInKnowledge):
    """Offers `Goals` itself."""

    def __init__(self, context: DomainContext, slow: SlowLoop | None) -> None:
        Hierarchy.__init__(self, context, slow)
        GoalsInKnowledge.__init__(self, context, self.known)


def plugins_above(settings: Settings) -> list[PluginSource]:
    """The plugins of the slow loop, by their names; none where this process runs none.

    Raises `PluginError`.
    """
    above = settings.hierarchy
    return [find_plugin(name) for name in above.plugins] if above.enabled else []


def slow_loop(
    prepared: Prepared,
    *,
    knowledge: Callable[[str], Knowledge],
    on_cycle: Callable[[Cycle], None],
    meter_provider: MeterProvider | None,
) -> SlowLoop | None:
    """The slow loop of a run, as its configuration has it; None where this process runs none."""
    settings = prepared.settings
    if not settings.hierarchy.enabled:
        return None
    sources, sections = plugins_above(settings), prepared.configuration.sections
    return SlowLoop(
        settings=settings.hierarchy,
        loop=settings.loop,
        plugins=lambda: [source.make(sections.get(source.name)) for source in sources],
        knowledge=knowledge,
        on_cycle=on_cycle,
        halt_file=halt_file(prepared.state),
        meter_provider=meter_provider,
    )


@asynccontextmanager
async def open_hierarchy(context: DomainContext, slow: SlowLoop | None = None) -> AsyncIterator[Hierarchy]:
    """The slow loop runs until the block is left; without `slow` this process only follows goals.

    It offers `Goals` where no domain does. Raises `ConfigError` for a name that is a node's and for one that
    follows a leader whom nobody elects, and `PluginError` for a plugin that cannot be used.
    """
    if slow is not None and slow.settings.node in context.nodes:
        raise ConfigError(
            f"[hierarchy] node is {slow.settings.node!r}, and so is a node of this process; "
            "give the slow loop another name"
        )
    leader_only = slow is not None and slow.settings.leader_only
    if leader_only and context.find(Consensus) is None:
        raise ConfigError(
            "[hierarchy] leader_only is true, and no domain of this run elects a leader; add raft to domains"
        )
    hierarchy = _Keeping(context, slow) if context.find(Goals) is None else Hierarchy(context, slow)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(hierarchy.stop)
        await hierarchy.start()
        if leader_only:
            await stack.enter_async_context(hierarchy.following_leader())
        yield hierarchy
