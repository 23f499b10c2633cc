"""Loops over loops: a slow one that sets goals, and the fast ones that follow them (hierarchical control).

    fast loops ── incidents ──▶ slow loop
         ▲                         │ sets a goal, in a span of its own
         └──── goal and span ──────┘

The hierarchy is opened like a domain, after all of them, and gives each node of this process a plugin. The
plugin hands what the node knows to the slow loop, where this process runs it, and follows goals: one that
has changed starts a cycle of the node, linked to the span that set it. Goals are part of what a node knows,
and reach the nodes of other processes where a domain shares that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from opentelemetry.metrics import MeterProvider

from mapek_runtime.config import HierarchySettings, LoopSettings, Settings
from mapek_runtime.errors import ConfigError
from mapek_runtime.loop import Cycle, DomainContext, Goals, Knowledge, Observation, RuntimeStatistics

from .discovery import PluginSource, find_plugin
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


@runtime_checkable
class Oversees(Protocol):
    """A plugin of the slow loop that wants to know what it oversees."""

    def oversee(self, context: DomainContext) -> None:
        """Called once, before the first cycle: the nodes of this process, and `find`."""


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
        await self._loops.start((slow.settings.node,))

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

    def _plugins_above(self, _node: str) -> Sequence[object]:
        assert self._slow is not None
        plugins = list(self._slow.plugins())
        for plugin in plugins:
            if isinstance(plugin, Oversees):
                plugin.oversee(self._context)
        # First: the others read what it brings.
        gathered = [_Gather(self.known), *plugins]
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

    It offers `Goals` where no domain does. Raises `ConfigError` for a name that is a node's, and
    `PluginError` for a plugin that cannot be used.
    """
    if slow is not None and slow.settings.node in context.nodes:
        raise ConfigError(
            f"[hierarchy] node is {slow.settings.node!r}, and so is a node of this process; "
            "give the slow loop another name"
        )
    hierarchy = _Keeping(context, slow) if context.find(Goals) is None else Hierarchy(context, slow)
    try:
        await hierarchy.start()
        yield hierarchy
    finally:
        await hierarchy.stop()


class _Gather:
    """Brings to the slow loop what the nodes of this process know, of themselves and of others."""

    name = "hierarchy.gather"

    def __init__(self, known: Known) -> None:
        self._known = known

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """Take in every incident that is not known here; one that several nodes tell comes in once."""
        for node, knowledge in self._known.items():
            for incident in knowledge.incidents():
                cycle.knowledge.absorb(incident, incident.node or node)
        return ()
