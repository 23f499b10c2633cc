"""One run: tracing, domains, a loop for each node, chaos, output, and an orderly end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.export.account import Statistics
from mapek_runtime.loop import (
    Consensus,
    Cycle,
    DomainContext,
    FaultInjector,
    FaultReport,
    FollowsNodes,
    Knowledge,
    RuntimeStatistics,
    Topology,
)
from mapek_runtime.loop.knowledge_sqlite import SqliteStore
from mapek_runtime.trace.watching.lag import LoopLag

from .chaos import run_chaos
from .detection import Detection
from .exporters import describe_exporters
from .hierarchy import open_hierarchy, slow_loop
from .listening import Listening, listening
from .metrics import METER, Metering, TraceCounter, open_metrics
from .nodes import NodeLoops, watching
from .output import Output
from .prepare import Prepared
from .serving import Shown, serving, store_obstacle
from .sessions import Sessions
from .state import halt_file, knowledge_file
from .stop import Stop
from .store_metrics import observe_store
from .storing import open_store
from .summary import Summary
from .tracing import NOTHING, Tracing, open_tracing

if TYPE_CHECKING:
    from mapek_runtime.store import TraceStore

    from .paging import Feed, RunControls

__all__ = ["Run"]

logger = logging.getLogger(__name__)
events = structlog.stdlib.get_logger("mapek.events")

_FLUSH = 2.0
"""Seconds that the page waits for spans that have ended to be stored."""
_RESERVED = frozenset({"event", "level", "exc_info", "stack_info", "extra", "timestamp", "logger"})
"""Keys of a log line that a field of an event must not take."""


class Run:
    """A run of the service. `run()` it once, in the main task of its loop."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.sessions = Sessions()
        self.loops = NodeLoops(
            settings=prepared.settings.loop,
            plugins=self._plugins_of,
            knowledge=self._knowledge_of,
            halt_file=halt_file(prepared.state),
            on_cycle=self._on_cycle,
            consensus=lambda: self.sessions.find(Consensus),
            followers=lambda: self.sessions.all(FollowsNodes),
        )
        self._folder: Path | None = None
        self._output: Output | None = None
        self._reports: Sequence[FaultReport] = ()
        self._detection = Detection(time.monotonic)
        self._lag = LoopLag()
        self._started = 0.0
        self._closing_since: float | None = None
        self._stop = Stop()
        self._store: TraceStore | None = None
        self._tracing: Tracing | None = None
        self._feed: Feed | None = None
        self._controls: RunControls | None = None
        self._has_started = False
        self.page = ""
        """The address of the page, for a browser of this machine; empty where nothing is served."""

    async def run(self, make_output: Callable[[Run], Output]) -> Summary:
        """Run until it is told to stop, or until `run.duration` is over; then finish, flush and sum up.

        Raises `ConfigError`, `PluginError`, `EngineUnavailable` or `KnowledgeError` when it cannot
        start; whatever fails while running is raised as it is.
        """
        settings = self.prepared.settings
        self._started = asyncio.get_running_loop().time()
        async with AsyncExitStack() as outer:
            outer.enter_context(self._stop)
            if settings.knowledge.store != "memory":
                self._folder = self.prepared.state
                if self.prepared.demonstration and settings.knowledge.store == "auto":
                    self._folder = Path(
                        outer.enter_context(
                            tempfile.TemporaryDirectory(prefix="mapek-", ignore_cleanup_errors=True)
                        )
                    )
            async with AsyncExitStack() as inner:
                # Closed after the spans are sent, so that the last counts are told too.
                where = listening(settings, os.environ)
                metering = await inner.enter_async_context(
                    open_metrics(settings, self._time_to_close, pages=where is not None)
                )
                self._store = await inner.enter_async_context(
                    open_store(self.prepared.configuration, os.environ, by_default=True)
                )
                tracing = await inner.enter_async_context(
                    open_tracing(
                        self.prepared.configuration,
                        instrument=True,
                        console=sys.stderr,
                        spool=True,
                        store=self._store,
                        meter_provider=metering.provider if metering is not None else None,
                    )
                )
                inner.callback(self._begin_to_close)
                logger.info("spans go to %s", describe_exporters(tracing.exporters))
                if metering is not None:
                    self._measure(metering, tracing)
                output = self._output = make_output(self)
                await inner.enter_async_context(_background(output.run(), "output"))
                self._tracing = tracing
                if where is not None and metering is not None:
                    await self._serve(inner, where, metering, tracing)
                # From here on: what a server imports holds up no loop, because none runs yet.
                await inner.enter_async_context(self._lag)
                await self._run_domains(inner)
                seconds = self.elapsed()
            # Everything is closed and flushed: only now is the account of the spans final.
            summary = Summary(
                seconds=seconds,
                nodes=self.loops.statistics(),
                reports=self._reports,
                detection=self._detection.seconds,
                spans=tracing.statistics(),
                loop_lag_ms=self._lag.milliseconds(),
                loop_blockers=self._lag.blockers(),
            )
            await output.finish(summary)
        return summary

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return asyncio.get_running_loop().time() - self._started

    def injectors(self) -> Sequence[FaultInjector]:
        """The domains that can make faults."""
        return self.sessions.all(FaultInjector)

    def topologies(self) -> Sequence[Topology]:
        """The domains that know who is connected to whom."""
        return self.sessions.all(Topology)

    def leader(self) -> str:
        """The node that leads, as most nodes of this process know; empty while none does."""
        return self.sessions.leader(self.prepared.nodes)

    def statistics(self) -> Mapping[str, RuntimeStatistics]:
        """The counts of each node's loop."""
        return self.loops.statistics()

    def spans(self) -> Statistics:
        """Every term of the law, as it is now."""
        return NOTHING if self._tracing is None else self._tracing.statistics()

    def loop_lag_ms(self) -> Mapping[str, float]:
        """How late the event loop was so far: median, 99th percentile and longest."""
        return self._lag.milliseconds()

    def stop(self) -> None:
        """End the run in an orderly way; what a second and a third call do, `Stop` says."""
        self._stop.tell()

    def _begin_to_close(self) -> None:
        self._closing_since = self.elapsed()

    def _time_to_close(self) -> float:
        """Seconds left of `export.shutdown`, which is for spans and metrics together."""
        limit = self.prepared.settings.export.shutdown
        return limit if self._closing_since is None else limit - (self.elapsed() - self._closing_since)

    def _measure(self, metering: Metering, tracing: Tracing) -> None:
        traces = TraceCounter()
        tracing.provider.add_span_processor(traces)
        metering.observe_spans(tracing.statistics, traces)
        if self._store is not None:
            observe_store(metering.provider.get_meter(METER), self._store.statistics)
        self._lag.histogram = metering.lag_histogram()
        self.loops.meter_provider = metering.provider

    async def _serve(
        self,
        stack: AsyncExitStack,
        where: Listening,
        metering: Metering,
        tracing: Tracing,
    ) -> None:
        assert metering.pages is not None, "metrics have pages where something is served"
        # In a thread: it imports much. A run that is not to be asked does not load it.
        make_page = (await asyncio.to_thread(import_module, "mapek_runtime.service.paging")).make_page
        feed, controls = make_page(self.prepared, self, self._store, self._emit)
        self._feed, self._controls = feed, controls
        await stack.enter_async_context(_background(feed.run(), "feed"))
        shown = Shown(
            metrics=metering.pages.render,
            health=self.health,
            obstacles=self._obstacles,
            store=self._store,
            meter=metering.provider.get_meter(METER),
            flush=lambda: tracing.provider.aforce_flush(_FLUSH),
            source=feed,
            controls=controls,
        )
        server = await stack.enter_async_context(serving(where, self.prepared.settings.web, shown))
        self.page = server.page
        logger.info("serving on %s", server.address)
        self._emit("listening", {"address": server.address, "page": server.page})

    async def _obstacles(self) -> Mapping[str, str]:
        if self._stop.asked.is_set():
            return {"loops": "they were told to stop"}
        if not self._has_started:
            return {"loops": "they have not started yet"}
        found = {f"loop of {node}": why for node, why in self.loops.faults().items()}
        if self._store is not None and (why := await store_obstacle(self._store)):
            found["store"] = why
        return found

    def health(self) -> Mapping[str, Any]:
        """Whether it is well, and what is wrong with which loop: what `/health` answers."""
        faults = {} if self._stop.asked.is_set() else self.loops.faults()
        status = "failing" if faults else "stopping" if self._stop.asked.is_set() else "ok"
        return {
            "status": status,
            "faults": faults,
            "uptime_seconds": round(self.elapsed(), 3),
            "cycles": {node: counts.cycles for node, counts in self.loops.statistics().items()},
            "loop_lag_ms": self._lag.milliseconds(),
        }

    async def _run_domains(self, stack: AsyncExitStack) -> None:
        settings = self.prepared.settings
        rng = random.Random(settings.run.seed)
        for domain in self.prepared.domains:
            section = self.prepared.configuration.sections[domain.name]
            self.sessions.add(await stack.enter_async_context(domain.open(section, self._context(rng))))
        slow = slow_loop(
            self.prepared,
            knowledge=self._knowledge_of,
            on_cycle=self._on_cycle,
            meter_provider=self.loops.meter_provider,
        )
        # After all domains: one of them may keep the goals.
        self.sessions.add(await stack.enter_async_context(open_hierarchy(self._context(rng), slow)))
        injectors = self.injectors()
        if settings.run.chaos and not injectors:
            names = ", ".join(domain.name for domain in self.prepared.domains) or "none"
            raise EngineUnavailable(
                f"--chaos: no running domain can make faults here (domains: {names}); the embedded mesh can, "
                "as a demonstration: leave out --config, or add --nodes 5"
            )
        try:
            await self.loops.start(self.prepared.nodes)
            self._has_started = True
            self._emit(
                "started",
                {
                    "nodes": list(self.prepared.nodes),
                    "domains": [domain.name for domain in self.prepared.domains],
                    "seed": settings.run.seed,
                    "heal": settings.run.heal,
                    "dry_run": settings.loop.dry_run,
                },
            )
            async with AsyncExitStack() as chaos:
                if self._controls is not None:
                    # Its faults are cleared like those of chaos, while the domains are still there.
                    await chaos.enter_async_context(self._controls)
                if settings.run.chaos:
                    await chaos.enter_async_context(
                        _background(
                            run_chaos(injectors, settings.run.seed, settings.run.duration, self._emit),
                            "chaos",
                        )
                    )
                with suppress(TimeoutError):
                    async with asyncio.timeout(settings.run.duration):
                        await self._stop.asked.wait()
                self._stop.asked.set()
                await self._finish_cycles()
                # Before the faults in force are cleared: that would look like a repair.
                self._reports = [each.report() for each in injectors]
        finally:
            await self.loops.cancel()

    def _context(self, rng: random.Random) -> DomainContext:
        return DomainContext(
            nodes=self.prepared.nodes,
            supervisor=self.loops,
            rng=random.Random(rng.getrandbits(64)),
            state=self._folder,
            heal=self.prepared.settings.run.heal,
            emit=self._emit,
            trigger=self.loops.trigger,
            find=self.sessions.find,
        )

    async def _finish_cycles(self) -> None:
        stopping = asyncio.create_task(self.loops.stop(), name="stop", context=contextvars.Context())
        hurry = asyncio.create_task(self._stop.hurried.wait(), name="hurry")
        try:
            await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            self._stop.hurried.set()
            # Without effect when it is done; else the running cycles are cancelled and say so.
            stopping.cancel()
            await asyncio.wait((stopping,))
        if not stopping.cancelled():
            stopping.result()

    def _plugins_of(self, node_id: str) -> Sequence[object]:
        plugins = [*self.sessions.plugins(node_id), *self.prepared.make_plugins()]
        return plugins if self.prepared.settings.run.heal else watching(plugins)

    def _knowledge_of(self, node_id: str) -> Knowledge:
        return Knowledge(None if self._folder is None else SqliteStore(knowledge_file(self._folder, node_id)))

    def _on_cycle(self, cycle: Cycle) -> None:
        if cycle.node_id in self.prepared.nodes:
            # A slow loop has it from those that have noticed.
            for noticed in self._detection.found(cycle.findings):
                self._emit("fault.noticed", noticed)
        if self._feed is not None:
            self._feed.cycle(cycle)
        about_actions = [insight for insight in cycle.insights if insight.link is not None]
        if not (cycle.outcomes or about_actions or cycle.failures or (cycle.dry_run and cycle.actions)):
            return
        fields: dict[str, Any] = {
            "node": cycle.node_id,
            "cycle": cycle.number,
            "actions": [f"{a.name} {a.target}" for a in cycle.actions],
            "learned": [f"{i.name} {i.target}".strip() for i in about_actions],
            "errors": [
                f"{phase} {plugin}: {type(e).__name__}: {e}" for phase, plugin, e in cycle.failures
            ] + [f"{o.action.name} {o.action.target}: {o.error}" for o in cycle.outcomes if o.error],
            "success": cycle.success,
            "duration_ms": round(cycle.duration * 1000, 3),
        }  # fmt: skip
        if cycle.dry_run:
            fields["dry_run"] = True
        if cycle.span_context is not None and cycle.span_context.is_valid:
            fields["trace_id"] = f"{cycle.span_context.trace_id:032x}"
        self._emit("cycle", fields)

    def _emit(self, name: str, fields: Mapping[str, Any]) -> None:
        self._detection.event(name, fields)
        if self._output is not None:
            self._output.event(name, fields)
        if self._feed is not None:
            self._feed.event(name, fields)
        # Standard output tells it to people already, unless it is for machines.
        level = logging.INFO if self.prepared.settings.run.json else logging.DEBUG
        events.log(level, name, **{f"{k}_" if k in _RESERVED else k: v for k, v in fields.items()})


@asynccontextmanager
async def _background(work: Any, name: str) -> AsyncIterator[None]:
    """A task that lives as long as the block; if it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name, context=contextvars.Context())
        try:
            yield
        finally:
            task.cancel()
