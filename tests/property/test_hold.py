"""Held spans: the law at every instant, whole traces, and counts without bias, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.memory import MemorySpanExporter
from mapek_runtime.trace import TracerProvider
from mapek_runtime.trace.leaving import LeavingPropagator
from mapek_runtime.trace.sampling import CycleSampler
from tests.unit.trace.sampling.held import Held, Luck

LEAVING = LeavingPropagator(TraceContextTextMapPropagator())
RESOURCE = Resource({"service.name": "test"})
MOST_HELD = 20


class Holding(RuleBasedStateMachine):
    """Cycles that begin, grow, leave, come back, end in any order or never, behind a small processor."""

    spans = Bundle("spans")

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.memory = MemorySpanExporter(capacity=100_000)
        self.luck = Luck()
        self.sampler = CycleSampler(most_spans_per_cycle=6, most_held_spans=MOST_HELD)
        self.processor = BatchSpanProcessor(
            self.memory,
            max_queue_size=2_000,
            max_export_batch_size=5,
            schedule_delay_millis=1,
            holds=self.sampler.holds,
        )
        self.provider = TracerProvider(self.sampler, RESOURCE, shutdown_on_exit=False, id_generator=self.luck)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("holding")
        self.loop = asyncio.new_event_loop()
        self.ended = 0
        self.open: dict[int, Any] = {}
        self.left: dict[int, bool] = {}
        """By trace: whether the context that left first was sampled."""
        self.stopped = False

    @rule(target=spans, lucky=st.booleans())
    def begin_a_cycle(self, lucky: bool) -> Any:
        self.luck.lucky = lucky
        return self.started(self.tracer.start_span("mape_k.cycle", Context()))

    @rule(
        target=spans,
        parent=spans,
        name=st.sampled_from(["work", "mape_k.analyze"]),
        found=st.booleans(),
    )
    def begin_a_child(self, parent: Any, name: str, found: bool) -> Any:
        below = set_span_in_context(parent, Context())
        attributes = {"anomalies_detected": int(found)}
        return self.started(self.tracer.start_span(name, below, attributes=attributes))

    @rule(target=spans, span=spans)
    def call_out_and_be_called_back(self, span: Any) -> Any:
        carrier: dict[str, str] = {}
        LEAVING.inject(carrier, set_span_in_context(span, Context()))
        arrived = LEAVING.extract(carrier, Context())
        sampled = carrier["traceparent"].endswith(("01", "03"))
        # What was once said of a trace is said of it for ever.
        assert self.left.setdefault(span.get_span_context().trace_id, sampled) is sampled
        server = self.tracer.start_span("server", arrived)
        assert server.is_recording() is sampled
        return self.started(server)

    @rule(span=spans, error=st.booleans())
    def end(self, span: Any, error: bool) -> None:
        if not span.is_recording():
            return
        if error:
            span.set_status(StatusCode.ERROR)
        span.end()
        self.ended += 1
        del self.open[span._span_id]
        self.the_law_holds()

    @rule()
    def let_the_loop_turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def flush(self) -> None:
        before = self.processor.statistics().held
        self.loop.run_until_complete(self.processor.aforce_flush(1))
        assert self.processor.statistics().held == before

    @precondition(lambda self: self.ended > 10 and not self.stopped)
    @rule()
    def shut_down(self) -> None:
        self.stopped = True
        self.loop.run_until_complete(self.processor.ashutdown(1))
        assert self.processor.statistics().held == 0

    @invariant()
    def the_law_holds(self) -> None:
        statistics = self.processor.statistics()
        assert statistics.balanced, statistics
        assert statistics.ended == self.ended
        assert 0 <= statistics.held <= MOST_HELD
        assert not (self.stopped and statistics.held)

    def started(self, span: Any) -> Any:
        if span.is_recording():
            self.open[span._span_id] = span
        return span

    def teardown(self) -> None:
        for span in list(self.open.values()):
            self.end(span, error=False)
        self.loop.run_until_complete(self.processor.ashutdown(1))
        self.loop.close()
        self.the_law_holds()
        exported = self.memory.finished_spans
        known: set[int] = {span.context.span_id for span in exported}
        assert len(known) == len(exported)
        for span in exported:
            assert span.context.trace_flags.sampled
            # What ends after a shutdown is not exported, whoever its children are.
            if span.parent is not None and not self.stopped:
                assert span.parent.span_id in known
        logging.disable(logging.NOTSET)


TestHolding = Holding.TestCase
TestHolding.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

CAUSES = {"anomalies_detected": 1, "actions_planned": 1, "actions_executed": 1, "success": False}
STEP = st.sampled_from(["quiet", "leave", "anomaly", "error", "many"])


@settings(deadline=None)
@given(st.lists(STEP, max_size=6), st.sampled_from([None, *CAUSES]))
def test_every_cycle_counts_once_in_expectation(steps: list[str], found: str | None) -> None:
    # The same cycle with luck and without: what is kept of it, weighted by the odds, is one cycle.
    expected = 0.0
    for lucky, odds in ((True, 0.01), (False, 0.99)):
        held = Held(DEFAULT_ON, most_spans_per_cycle=8)
        held.luck.lucky = lucky
        root = held.root()
        for step in steps:
            match step:
                case "quiet":
                    held.child(root).end()
                case "many":
                    for _ in range(4):
                        held.child(root).end()
                case "leave":
                    LEAVING.inject({}, set_span_in_context(root, Context()))
                case "anomaly":
                    held.child(root, "mape_k.analyze", anomalies_detected=2).end()
                case "error":
                    child = held.child(root)
                    child.set_status(StatusCode.ERROR)
                    child.end()
        if found is not None:
            root.set_attribute(found, CAUSES[found])
        root.end()
        kept = [span for span in held.spans if span.parent is None]
        # All of it or nothing, and one threshold on all.
        assert len({span.get_span_context().trace_state.get("ot") for span in held.spans}) <= 1  # type: ignore[union-attr]
        assert bool(kept) is bool(held.spans)
        for span in kept:
            count = (span.attributes or {})["sampling.adjusted_count"]
            assert isinstance(count, float)
            expected += odds * count

    assert abs(expected - 1) < 1e-9
