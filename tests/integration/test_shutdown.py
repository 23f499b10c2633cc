"""A shutdown ends in time whatever the collector does, and the loop keeps its rhythm meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from tests.integration.collector import collector, end_spans
from tests.integration.stubborn import STUBBORN, heartbeat

pytestmark = pytest.mark.slow

LIMIT = 0.5
GRACE = 0.2
"""What a shutdown may take beyond its timeout."""
RHYTHM = 0.5
"""Seconds that the heartbeat may miss on a machine that has much else to do."""
SPANS = 1_000


class Sleeper(SpanExporter):
    """A synchronous exporter that hangs, and takes no notice of its shutdown."""

    def __init__(self) -> None:
        self.wake = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.wake.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.wake.wait(30)


async def ends_in_time(processor: BatchSpanProcessor) -> bool:
    """Shut down while spans are on their way; what the shutdown said."""
    async with heartbeat() as beat:
        end_spans(processor, SPANS)
        # So that requests are under way.
        await asyncio.sleep(0.1)
        start = time.monotonic()
        done = await processor.ashutdown(LIMIT)
        lasted = time.monotonic() - start

    assert lasted <= LIMIT + GRACE, f"{lasted:.3f} s"
    assert beat.worst <= RHYTHM, f"{beat.worst:.3f} s"
    assert processor.statistics().balanced
    return done


@pytest.mark.parametrize("kind", STUBBORN)
async def test_a_shutdown_ends_in_time_and_counts_what_was_not_sent(kind: str) -> None:
    async with STUBBORN[kind]() as url:
        processor = BatchSpanProcessor(OTLPSpanExporter(url))

        assert await ends_in_time(processor) is False

    assert processor.statistics().dropped == {"timeout": SPANS}
    (sink,) = processor.statistics().sinks.values()
    assert sum(sink.dropped.values()) + sink.exported == sink.accepted


async def test_a_shutdown_ends_in_time_for_all_of_them_at_once_and_the_healthy_one_gets_everything() -> None:
    sleeper = Sleeper()
    try:
        async with AsyncExitStack() as stack:
            there = await stack.enter_async_context(collector())
            urls = [await stack.enter_async_context(start()) for start in STUBBORN.values()]
            processor = BatchSpanProcessor(
                sleeper, *(OTLPSpanExporter(url) for url in (*urls, there.url)), max_queue_size=10 * SPANS
            )

            assert await ends_in_time(processor) is False

            assert len(there.names) == len(set(there.names)) == SPANS
            assert processor.statistics().exported == SPANS
            accounts = list(processor.statistics().sinks.values())
            assert [sink.exported for sink in accounts] == [0] * (len(urls) + 1) + [SPANS]
            assert [sum(sink.dropped.values()) for sink in accounts] == [SPANS] * (len(urls) + 1) + [0]
    finally:
        sleeper.wake.set()


async def test_a_synchronous_exporter_that_hangs_holds_nothing_up() -> None:
    sleeper = Sleeper()
    try:
        processor = BatchSpanProcessor(sleeper)

        assert await ends_in_time(processor) is False

        assert processor.statistics().dropped == {"timeout": SPANS}
    finally:
        sleeper.wake.set()


@pytest.mark.parametrize("what", ["shutdown", "force_flush"])
async def test_in_another_thread_the_synchronous_call_waits_for_its_timeout(what: str) -> None:
    async with STUBBORN["black hole"]() as url:
        processor = BatchSpanProcessor(OTLPSpanExporter(url))
        end_spans(processor, 10)
        async with heartbeat() as beat:
            start = time.monotonic()
            await asyncio.to_thread(getattr(processor, what), int(LIMIT * 1000))
            lasted = time.monotonic() - start

        assert lasted <= LIMIT + GRACE, f"{lasted:.3f} s"
        assert beat.worst <= RHYTHM
        seen = processor.statistics()
        assert seen.balanced
        assert seen.dropped == ({"timeout": 10} if what == "shutdown" else {})
        await processor.ashutdown(0.1)


@pytest.mark.parametrize("what", ["shutdown", "force_flush"])
async def test_on_the_loops_thread_the_synchronous_call_waits_for_nothing(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with STUBBORN["black hole"]() as url:
        processor = BatchSpanProcessor(OTLPSpanExporter(url))
        end_spans(processor, 10)

        start = time.monotonic()
        getattr(processor, what)(5_000)
        lasted = time.monotonic() - start

        assert lasted < LIMIT
        assert f"use await a{what}()" in caplog.text
        await processor.ashutdown(0.1)


@pytest.mark.parametrize("what", ["shutdown", "force_flush"])
def test_without_a_loop_the_synchronous_call_waits_for_its_timeout(what: str) -> None:
    with asyncio.Runner() as runner:
        hole = STUBBORN["black hole"]()
        url = runner.run(hole.__aenter__())
        try:
            processor = BatchSpanProcessor(OTLPSpanExporter(url))
            end_spans(processor, 10)

            start = time.monotonic()
            getattr(processor, what)(int(LIMIT * 1000))
            lasted = time.monotonic() - start

            assert lasted <= LIMIT + GRACE, f"{lasted:.3f} s"
            processor.shutdown(100)
            assert processor.statistics().dropped == {"timeout": 10}
        finally:
            runner.run(hole.__aexit__(None, None, None))


PLAIN = """
import mapek_runtime, sys
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
provider = {provider}(ALWAYS_ON{options})
provider.add_span_processor(mapek_runtime.BatchSpanProcessor(mapek_runtime.OTLPSpanExporter(sys.argv[1])))
tracer = provider.get_tracer("t")
for number in range(100):
    tracer.start_span(f"span-{{number}}").end()
"""
PROVIDERS = {
    "ours": PLAIN.format(provider="mapek_runtime.TracerProvider", options=""),
    "ours without its exit handler": PLAIN.format(
        provider="mapek_runtime.TracerProvider", options=", shutdown_on_exit=False"
    ),
    "the SDK's": "import opentelemetry.sdk.trace as sdk\n"
    + PLAIN.format(provider="sdk.TracerProvider", options=""),
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_end_of_a_program_without_a_loop_sends_everything(provider: str) -> None:
    async with collector() as there:
        done = await asyncio.to_thread(run, PROVIDERS[provider], there.url)

        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(there.names) == sorted(f"span-{number}" for number in range(100))


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUBBORN)
async def test_the_end_of_a_program_is_not_held_up_for_longer_than_a_shutdown(kind: str) -> None:
    async with STUBBORN[kind]() as url:
        start = time.monotonic()
        done = await asyncio.to_thread(run, PROVIDERS["ours"], url)

        assert done.returncode == 0
        assert "100" in done.stderr
        assert time.monotonic() - start < 12


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}
    return subprocess.run(
        [sys.executable, "-c", program, url],
        env=kept, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
