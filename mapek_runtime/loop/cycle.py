"""One cycle: a root span with five phases below it, each an asyncio task.

Counts and verdicts are written when a phase ends, from what really happened. A phase that does not
run still has its span, marked `skipped` with the reason: a cycle always has five children.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from opentelemetry.context.context import Context
from opentelemetry.trace import SpanContext, StatusCode

from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import KnowledgeError, PhaseFailed

from . import explain, spans
from .agreement import Agreement, nobody_agrees
from .domain import Consensus
from .executor import Executor
from .guard import GuardRails
from .knowledge import Knowledge
from .metrics import LoopMetrics, Measuring, loop_metrics
from .model import Action, Cycle, Finding, Insight, Observation, Rejection, Trigger
from .phase import Failures, Phase, Ran, gather, run
from .plugin import Registry
from .repair import Repairs

__all__ = ["CycleRunner"]

_ORDER = ("monitor", "analyze", "plan", "execute", "knowledge")
_SPANS: dict[str, Callable[[str], Any]] = {
    "monitor": spans.monitor_phase,
    "analyze": spans.analyze_phase,
    "plan": spans.plan_phase,
    "execute": spans.execute_phase,
    "knowledge": spans.knowledge_phase,
}
_SAVE_EVERY = 1.0


class CycleRunner:
    """Runs the cycles of one node, one after another or, where overlap cancels, one instead of another."""

    def __init__(
        self,
        node_id: str,
        registry: Registry,
        settings: LoopSettings,
        knowledge: Knowledge,
        halted: Callable[[], str | None] | None,
        metrics: LoopMetrics | None = None,
        consensus: Callable[[], Consensus | None] = nobody_agrees,
    ) -> None:
        self.node_id = node_id
        self.count = 0
        self.previous: SpanContext | None = None
        """What the next cycle is linked to: the cycle before it."""
        self.latest: Cycle | None = None
        self._registry = registry
        self._settings = settings
        self._knowledge = knowledge
        self._halted = halted
        self._rails = GuardRails(settings.guard)
        self._repairs = Repairs()
        self._undo: list[Action] = []
        self._saved = float("-inf")
        self._begun = ""
        self._metrics = metrics or loop_metrics()
        self._measured: Measuring | None = None
        self._agreement = Agreement(node_id, consensus)
        self._executor = Executor(registry, self._rails, self._repairs, self._agreement)
        s, delay = settings, settings.retry_delay
        self._phases = {
            "monitor": Phase(name="monitor", limit=s.monitor_limit, retries=s.monitor_retries, delay=delay),
            "analyze": Phase(name="analyze", limit=s.analyze_limit, retries=s.analyze_retries, delay=delay),
            "plan": Phase(name="plan", limit=s.plan_limit, retries=s.plan_retries, delay=delay),
            "execute": Phase(name="execute", limit=s.execute_limit),
            "knowledge": Phase(name="knowledge", limit=s.knowledge_limit),
        }

    async def run(self, triggers: Sequence[Trigger]) -> Cycle:
        """One cycle from Monitor to Knowledge. Only cancellation is raised."""
        loop = asyncio.get_running_loop()
        self.count += 1
        cycle = Cycle(
            node_id=self.node_id,
            number=self.count,
            triggers=tuple(triggers),
            started=loop.time(),
            knowledge=self._knowledge,
            dry_run=self._settings.dry_run,
        )
        self.latest = cycle
        scope = spans.cycle(self.node_id, self.count, triggers[0].reason)
        # A root of its own, whoever asked for it: an endless loop never becomes an endless trace.
        scope.under(Context()).linked(self.previous, *(trigger.span_context for trigger in triggers))
        work = {
            "monitor": self._monitor,
            "analyze": self._analyze,
            "plan": self._plan,
            "execute": self._execute,
            "knowledge": self._learn,
        }
        left = list(_ORDER)
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        self._begun = ""
        # Left after the span has ended: only then is it decided whether its trace is kept.
        with self._metrics.measure(cycle) as self._measured, scope as self._measured.span:
            span = self._measured.span
            cycle.span_context = self.previous = span.get_span_context()
            if len(triggers) > 1:
                span.set_attribute("triggers", [trigger.reason for trigger in triggers])
            try:
                while left:
                    phase = left[0]
                    reason = self._reason_to_skip(phase, cycle)
                    if reason is None:
                        # A task of its own, so that a phase has its own context and can be cancelled;
                        # asyncio's, because an anyio task group costs three times as much.
                        await asyncio.create_task(
                            self._run(phase, cycle, work[phase]), name=f"mape_k.{phase}"
                        )
                        if task.cancelling() > cancellations:
                            # A plugin swallowed the cancellation; the cycle does not.
                            raise asyncio.CancelledError
                    else:
                        self._skip(phase, cycle, reason)
                    left.pop(0)
            except asyncio.CancelledError:
                cycle.success = False
                # A phase whose task was cancelled before its first step has no span yet.
                for phase in left[1 if self._begun == left[0] else 0 :]:
                    self._skip(phase, cycle, "the cycle was cancelled")
                raise
            finally:
                cycle.duration = loop.time() - cycle.started
                span.set(
                    anomalies=cycle.anomalies,
                    actions=len(cycle.actions),
                    actions_executed=len(cycle.outcomes),
                    success=cycle.success,
                )
                if not cycle.success:
                    span.set_status(StatusCode.ERROR, explain.why_failed(cycle))
        return cycle

    def _reason_to_skip(self, phase: str, cycle: Cycle) -> str | None:
        if phase == "knowledge":
            return None
        if cycle.failed:
            return f"{cycle.failed[0]} failed"
        if phase == "execute":
            if not cycle.actions:
                return "no actions"
            return "dry run" if cycle.dry_run else None
        if phase == "plan":
            if self._undo:
                return None
            if not cycle.findings:
                return "no findings"
        return None if self._registry.parts(phase) else f"no plugin has the method {phase!r}"

    def _skip(self, phase: str, cycle: Cycle, reason: str) -> None:
        with _SPANS[phase](self.node_id) as span:
            span.set_attribute("skipped", True)
            span.set_attribute("reason", reason)
        cycle.skipped = {**cycle.skipped, phase: reason}

    async def _run(
        self, name: str, cycle: Cycle, work: Callable[[Cycle, Any, Failures], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._begun = name
        with _SPANS[name](self.node_id) as span:
            ran: Ran = await run(self._phases[name], span, lambda failures: work(cycle, span, failures))
            if ran.failures:
                cycle.failures = (*cycle.failures, *ran.failures)
                cycle.success = False
            if not ran.ok:
                cycle.failed = (*cycle.failed, name)
                if name == "execute":
                    span.set(success=False)
        seconds = loop.time() - began
        cycle.phase_seconds = {**cycle.phase_seconds, name: seconds}
        if self._measured is not None:
            self._measured.phase(name, seconds, span)

    # The five phases

    async def _monitor(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        parts = self._registry.parts("monitor")
        cycle.observations = await gather("monitor", parts, cycle, Observation, failures, together=True)
        span.set(metrics_collected=len(cycle.observations))

    async def _analyze(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        cycle.findings = await gather("analyze", self._registry.parts("analyze"), cycle, Finding, failures)
        self._rails.observe(cycle.findings)
        self._repairs.observe(cycle.findings, cycle.started)
        if cycle.findings:
            span.set(
                anomalies=cycle.anomalies,
                confidence=max(finding.confidence for finding in cycle.findings),
            )
            explain.findings(span, cycle.findings)

    async def _plan(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        options = await gather("plan", self._registry.parts("plan"), cycle, (Action, Rejection), failures)
        wanted = [*self._undo, *(option for option in options if isinstance(option, Action))]
        rejected = [option for option in options if isinstance(option, Rejection)]
        halted = None
        if wanted and self._halted is not None:
            # It reads a file.
            halted = await asyncio.to_thread(self._halted)
        admitted, refused = self._rails.admit(
            wanted,
            cycle=cycle,
            now=asyncio.get_running_loop().time(),
            pending=self._repairs.targets,
            halted=halted,
            domain=self._registry.guards,
            agree=self._agreement.refusal,
        )
        cycle.actions = admitted
        cycle.rejections = (*rejected, *refused)
        span.set(actions=len(admitted))
        explain.plan(span, cycle)

    async def _execute(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        try:
            await self._executor.run(cycle, span, failures)
        finally:
            # What a rail refused to undo, or what did not succeed, is asked for again.
            done = [outcome.action for outcome in cycle.outcomes if outcome.success]
            self._undo = [action for action in self._undo if action not in done]

    async def _learn(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        now = asyncio.get_running_loop().time()
        worked, failed = await self._repairs.settle(
            cycle, now, limit=self._settings.knowledge_limit / 2, failures=failures
        )
        insights: list[Insight] = []
        for repair in worked:
            self._knowledge.close(repair.incident(now, success=True))
            self._metrics.repaired(now - repair.found, repair.span_context)
            if not repair.action.restorative:
                # To give back what was taken proves nothing of the trouble before it.
                self._rails.repaired(repair.target)
            insights.append(explain.verified(repair, now))
        for repair in failed:
            self._knowledge.close(repair.incident(now, success=False))
            escalated = self._rails.failed(repair.target, now)
            undo = explain.inverse(repair.action)
            if undo is not None and not escalated and undo not in self._undo:
                self._undo.append(undo)
            insights.append(explain.not_repaired(repair, now, escalated=escalated))
        every_learner_failed: PhaseFailed | None = None
        try:
            insights.extend(await gather("learn", self._registry.parts("learn"), cycle, Insight, failures))
        except PhaseFailed as failed_all:
            # What the runtime itself has learned is kept all the same.
            every_learner_failed = failed_all
        finally:
            cycle.insights = insights
            if insights:
                span.set(insights=len(insights))
                explain.insights(span, insights)
        await self._save(now, failures)
        if every_learner_failed is not None:
            raise every_learner_failed

    async def _save(self, now: float, failures: Failures) -> None:
        if not self._knowledge.unsaved or now - self._saved < _SAVE_EVERY:
            return
        self._saved = now
        try:
            await self._knowledge.save()
        except KnowledgeError as error:
            failures.append(("knowledge", "store", error))
