"""A cycle's trace goes on in other services: `webhook` and `http_probe` over real HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from mapek_runtime import Action, Cycle, Finding, Knowledge, Runtime
from mapek_runtime.config import Configuration, ExportSettings, Settings
from mapek_runtime.export import MemorySpanExporter
from mapek_runtime.service.builtin.http_probe import HttpProbe, HttpProbeSettings
from mapek_runtime.service.builtin.webhook import Webhook, WebhookSettings
from mapek_runtime.service.tracing import Tracing, open_tracing

OTHER = """
import asyncio, sys
import mapek_runtime

async def main():
    async with mapek_runtime.tracing(service_name="other", instrument=True):
        from aiohttp import web

        async def take(request):
            action = await request.json()
            return web.Response(text=f"{action['action']} {action['target']} of {action['node']}")

        application = web.Application()
        application.add_routes([web.post("/act", take)])
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()

asyncio.run(main())
"""


class Judge:
    """Finds one thing and plans one action, once."""

    def __init__(self) -> None:
        self.done = False

    async def analyze(self, cycle: Cycle) -> list[Finding]:
        return [] if self.done else [Finding(target="lamp", problem="dark")]

    async def plan(self, cycle: Cycle) -> list[Action]:
        self.done = True
        return [Action(name="switch", target="lamp", finding=finding) for finding in cycle.findings]


@asynccontextmanager
async def traced() -> AsyncIterator[tuple[Tracing, MemorySpanExporter]]:
    settings = Settings(export=ExportSettings(exporter="memory"))
    async with open_tracing(Configuration(settings=settings), instrument=True) as tracing:
        assert isinstance(tracing.exporter, MemorySpanExporter)
        yield tracing, tracing.exporter


async def one_cycle(*plugins: object) -> Cycle:
    async with Runtime(*plugins, interval=60.0, knowledge=Knowledge()) as runtime:
        return await runtime.wait(cycles=1)


def by_name(exporter: MemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in exporter.finished_spans}


async def test_an_action_is_one_trace_into_the_other_process() -> None:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))}
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**plain, "MAPEK_EXPORT_EXPORTER": "console"},
    )  # fmt: skip
    assert other.stdout is not None
    try:
        async with asyncio.timeout(30):
            port = int(await other.stdout.readline())
            settings = WebhookSettings(url=f"http://127.0.0.1:{port}/act", actions=("switch",))
            async with traced() as (tracing, exporter):
                cycle = await one_cycle(Judge(), Webhook(settings))
                await tracing.provider.aforce_flush()
            # End of its standard input: the other process flushes and ends.
            told, _ = await other.communicate(b"")
    finally:
        if other.returncode is None:
            other.kill()

    assert [outcome.changed for outcome in cycle.outcomes] == ["switch lamp of node-1"]
    execute = by_name(exporter)["mape_k.execute"]
    (client,) = [span for span in exporter.finished_spans if span.kind is SpanKind.CLIENT]
    assert client.parent is not None
    assert client.parent.span_id == execute.context.span_id
    assert client.context is not None
    (server,) = [line.split() for line in told.decode().splitlines() if line]
    trace_id, _span_id, parent_id = server[:3]
    assert trace_id == format_trace_id(execute.context.trace_id)
    assert parent_id == format_span_id(client.context.span_id)
    assert other.returncode == 0


@asynccontextmanager
async def server(status: int) -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="no")

    application = web.Application()
    application.add_routes([web.route("*", "/", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_an_answer_that_is_no_success_fails_the_action_and_its_span() -> None:
    async with traced() as (tracing, exporter):
        async with server(503) as url:
            cycle = await one_cycle(Judge(), Webhook(WebhookSettings(url=url)))
        await tracing.provider.aforce_flush()

    (outcome,) = cycle.outcomes
    assert not outcome.success
    assert "503" in outcome.error
    execute = by_name(exporter)["mape_k.execute"]
    assert execute.status.status_code is StatusCode.ERROR
    assert execute.attributes["success"] is False


async def test_a_service_that_is_not_there_fails_the_action_not_the_loop(unused_port: int) -> None:
    cycle = await one_cycle(Judge(), Webhook(WebhookSettings(url=f"http://127.0.0.1:{unused_port}/")))

    assert cycle.outcomes[0].error.startswith("ConnectError")
    assert cycle.failed == ()


@pytest.fixture
async def unused_port() -> int:
    taken = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = taken.sockets[0].getsockname()[1]
    taken.close()
    await taken.wait_closed()
    return port


async def test_an_address_that_fails_is_found_after_so_many_questions(unused_port: int) -> None:
    async with server(200) as good, server(500) as bad:
        urls = (good, bad, f"http://127.0.0.1:{unused_port}/")
        probe = HttpProbe(HttpProbeSettings(urls=urls, every=0.01, failures=2))
        async with Runtime(probe, interval=0.05) as runtime:
            first = await runtime.wait(cycles=1)
            later = await runtime.wait(cycles=2)

    assert first.findings == []
    assert {finding.target for finding in later.findings} == set(urls[1:])
    assert {finding.problem for finding in later.findings} == {"http.down"}
    assert later.findings[0].evidence[0].threshold == 2
    assert later.readings("http.answered") == {good: 1.0, urls[1]: 0.0, urls[2]: 0.0}
    assert set(later.readings("http.latency")) == {good, bad}


async def test_a_question_is_a_client_span_below_monitor() -> None:
    async with traced() as (tracing, exporter):
        async with server(200) as url:
            await one_cycle(HttpProbe(HttpProbeSettings(urls=(url,))))
        await tracing.provider.aforce_flush()

    monitor = by_name(exporter)["mape_k.monitor"]
    (client,) = [span for span in exporter.finished_spans if span.kind is SpanKind.CLIENT]
    assert client.parent is not None
    assert client.parent.span_id == monitor.context.span_id
