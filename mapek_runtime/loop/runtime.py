"""`Runtime`: the autonomic loop of one node."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider

from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import ConfigError, KnowledgeError

from .agreement import nobody_agrees
from .cycle import CycleRunner
from .domain import Consensus
from .knowledge import Knowledge
from .metrics import loop_metrics
from .model import Cycle, Trigger
from .plugin import Registry
from .scheduler import Scheduler

__all__ = ["Runtime", "RuntimeStatistics"]

logger = logging.getLogger(__name__)


class RuntimeStatistics(NamedTuple):
    """Counts since the start of one runtime."""

    cycles: int
    failed: int
    cancelled: int
    ticks_skipped: int
    coalesced: int
    actions: int
    actions_failed: int
    rejected: int


class Runtime:
    """Runs the loop of one node with its plugins, from entering the block to leaving it.

        async with Runtime(Thermometer(), Judge(), interval=0.5) as runtime:
            await runtime.wait(cycles=3)

    Settings may be given as `LoopSettings`, as keywords of it, or as both (keywords win). Leaving
    the block finishes the running cycle, then writes Knowledge. `on_cycle` is called with each
    cycle that ended; what it raises is logged, not propagated. The loop's metrics go to
    `meter_provider`, else to OpenTelemetry's global one. `consensus` finds who is asked before an action
    that the nodes must agree on.

    Raises `PluginContractError` or `PluginConflict` for a plugin that cannot be used, and
    `ConfigError` for a setting that cannot be.
    """

    def __init__(
        self,
        *plugins: object,
        node_id: str = "node-1",
        knowledge: Knowledge | None = None,
        settings: LoopSettings | None = None,
        halt_file: Path | None = None,
        on_cycle: Callable[[Cycle], None] | None = None,
        meter_provider: MeterProvider | None = None,
        consensus: Callable[[], Consensus | None] = nobody_agrees,
        **changes: Any,
    ) -> None:
        self.node_id = node_id
        self.knowledge = knowledge if knowledge is not None else Knowledge()
        self.settings = _settings(settings or LoopSettings(), changes)
        self._halt_file = halt_file
        self._on_cycle = on_cycle
        self._registry = Registry(plugins)
        self._metrics = loop_metrics(meter_provider)
        self._runner = CycleRunner(
            node_id,
            self._registry,
            self.settings,
            self.knowledge,
            self.halted if halt_file is not None else None,
            self._metrics,
            consensus,
        )
        self._scheduler: Scheduler | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._last: Cycle | None = None
        self._heard = 0.0
        self._counts = dict.fromkeys(RuntimeStatistics._fields, 0)

    # Lifetime

    async def __aenter__(self) -> Runtime:
        if self._task is not None:
            raise RuntimeError(f"the runtime of {self.node_id!r} runs already")
        await self.knowledge.load()
        self._scheduler = Scheduler(
            self._cycle,
            interval=self.settings.interval,
            jitter=self.settings.jitter,
            overlap=self.settings.overlap,
            on_count=self._metrics.tick,
        )
        spawner = trace.get_current_span().get_span_context()
        if spawner.is_valid:
            # The first cycle is linked to where the loop was started, each later one to the one before.
            self._runner.previous = spawner
        self._heard = asyncio.get_running_loop().time()
        # Owned by this block; born in an empty context, or every cycle would inherit what is open here.
        self._task = asyncio.get_running_loop().create_task(
            self._scheduler.run(), name=f"mapek {self.node_id}", context=contextvars.Context()
        )
        self._task.add_done_callback(self._loop_ended, context=contextvars.Context())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                await self.stop()
            else:
                await self.cancel()
        finally:
            try:
                await self.knowledge.aclose()
            except KnowledgeError as error:
                logger.error("%s", error)  # noqa: TRY400 - the message says it all

    async def stop(self) -> None:
        """Finish the running cycle and end the loop."""
        task, self._task = self._task, None
        if task is None or self._scheduler is None:
            return
        self._scheduler.stop()
        try:
            await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise

    async def cancel(self) -> None:
        """End the loop and the running cycle at once; its spans are marked cancelled."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    # Steering

    def trigger(self, reason: str) -> None:
        """Ask for a cycle now; it is linked to the span that is current here.

        A runtime that is not running ignores it.
        """
        if self._scheduler is None or self._task is None:
            return
        context = trace.get_current_span().get_span_context()
        self._scheduler.trigger(Trigger(reason=reason, span_context=context if context.is_valid else None))

    def pause(self) -> None:
        """Start no further cycle until `resume`."""
        self._started().pause()

    def resume(self) -> None:
        """Start cycles again."""
        self._heard = asyncio.get_running_loop().time()
        self._started().resume()

    async def wait(self, *, cycles: int = 1) -> Cycle:
        """Wait until that many further cycles have ended; returns the last one."""
        goal = self._counts["cycles"] + cycles
        task = self._task
        while self._counts["cycles"] < goal:
            if task is None or task.done():
                raise RuntimeError(f"the loop of {self.node_id!r} ended before {cycles} cycles had")
            ended = asyncio.get_running_loop().create_future()
            self._waiting.add(ended)
            try:
                await ended
            finally:
                self._waiting.discard(ended)
        assert self._last is not None
        return self._last

    def halted(self) -> str | None:
        """Why an operator has halted the loop (`mapek halt`); None when it may act."""
        if self._halt_file is None:
            return None
        try:
            return self._halt_file.read_text("utf-8").strip() or "no reason given"
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self._halt_file} cannot be read ({error}); the loop stays careful"

    def silence(self) -> float | None:
        """Seconds since a cycle last ended, or since the start; None when the loop runs no more."""
        if self._scheduler is None or self._scheduler.paused:
            return 0.0
        if self._task is None or self._task.done():
            return None
        return asyncio.get_running_loop().time() - self._heard

    def statistics(self) -> RuntimeStatistics:
        """What happened so far."""
        scheduler = self._scheduler
        counts = dict(self._counts)
        if scheduler is not None:
            counts["ticks_skipped"], counts["coalesced"] = scheduler.skipped, scheduler.coalesced
        return RuntimeStatistics(**counts)

    def _started(self) -> Scheduler:
        if self._scheduler is None:
            raise RuntimeError(f"the runtime of {self.node_id!r} is not running; enter it with `async with`")
        return self._scheduler

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Raised again when the block is left; until then nobody would know.
            logger.error("the loop of %r has failed", self.node_id, exc_info=error)
        self._wake()

    def _wake(self) -> None:
        for ended in self._waiting:
            if not ended.done():
                ended.set_result(None)

    async def _cycle(self, triggers: Sequence[Trigger]) -> None:
        counts = self._counts
        try:
            cycle = await self._runner.run(triggers)
        except asyncio.CancelledError:
            counts["cancelled"] += 1
            raise
        finally:
            counts["cycles"] += 1
            self._heard = asyncio.get_running_loop().time()
            self._last = self._runner.latest
            self._wake()
        counts["failed"] += not cycle.success
        counts["actions"] += len(cycle.outcomes)
        counts["actions_failed"] += sum(not outcome.success for outcome in cycle.outcomes)
        counts["rejected"] += len(cycle.rejections)
        if self._on_cycle is not None:
            try:
                self._on_cycle(cycle)
            except Exception:
                logger.exception("on_cycle of %r failed", self.node_id)


def _settings(base: LoopSettings, changes: dict[str, Any]) -> LoopSettings:
    if not isinstance(base, LoopSettings):
        raise ConfigError(f"Runtime(settings={base!r}): it must be LoopSettings")
    known = msgspec.structs.asdict(base)
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"Runtime has no setting {name}={value!r}; it has {', '.join(sorted(known))}")
    try:
        # Converted even when nothing changes: a Struct does not judge what it is made with.
        settings = msgspec.convert(
            {**{key: msgspec.to_builtins(value) for key, value in known.items()},
             **{key: msgspec.to_builtins(value) for key, value in changes.items()}},
            LoopSettings,
        )  # fmt: skip
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(
            f"Runtime({', '.join(f'{k}={v!r}' for k, v in changes.items())}): {error}"
        ) from None
    for name in ("interval", "jitter"):
        if not math.isfinite(getattr(settings, name)):
            raise ConfigError(
                f"Runtime({name}={getattr(settings, name)!r}): it must be a finite number of seconds"
            )
    return settings
