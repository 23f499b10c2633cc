"""The instrumentation packages make the same spans with our provider as with the stock SDK's.

Each scenario runs once with each provider, over real sockets, and the two trees are compared: names,
kinds, parents, attributes, status, events, and who made the span.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import fastapi
import httpx
import pytest
import requests
import uvicorn
from aiohttp import ClientConnectionError, ClientSession, web
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanKind

from mapek_runtime.service.instrument import without_advice
from tests.unit.trace.both import exporter, ours, stock, traced_by

Scenario = Callable[[trace.Tracer, str], Awaitable[None]]


class Made(NamedTuple):
    """A span without what differs from run to run, and its children."""

    name: str
    kind: str
    attributes: dict[str, Any]
    status: str
    events: list[tuple[str, dict[str, Any]]]
    links: int
    scope: tuple[str, str]
    remote: bool | None
    children: list[Made]


@contextmanager
def instrumented(provider: sdk.TracerProvider, *kinds: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for kind in kinds:
            with without_advice():
                kind().instrument(tracer_provider=provider)
            stack.callback(kind().uninstrument)
        yield


@asynccontextmanager
async def server(seen: list[dict[str, str]], tracer: trace.Tracer) -> AsyncIterator[str]:
    """An aiohttp server on a real socket; `seen` gets the headers of each request."""

    async def look(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        with tracer.start_as_current_span("work") as span:
            span.set_attribute("user", str(baggage.get_baggage("user")))
            await asyncio.sleep(0)
        if request.match_info["what"] == "broken":
            raise ValueError("broken")
        if request.match_info["what"] == "missing":
            raise web.HTTPNotFound
        return web.Response(text="seen")

    app = web.Application()
    app.router.add_get("/{what}", look)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def normal(attributes: Any) -> dict[str, Any]:
    """Without ports and stack traces, which differ from run to run."""
    plain = {}
    for key, value in sorted(dict(attributes or {}).items()):
        if key == "exception.stacktrace" or key.endswith(".port"):
            plain[key] = "-"
        elif isinstance(value, str) and "127.0.0.1:" in value:
            plain[key] = ":".join(part.lstrip("0123456789") for part in value.split(":"))
        else:
            plain[key] = value
    return plain


def forest(spans: tuple[sdk.ReadableSpan, ...]) -> list[Made]:
    """The spans as trees, in an order that does not depend on time."""
    known = {span.context.span_id for span in spans if span.context}

    def below(parent: int | None) -> list[Made]:
        found = [s for s in spans if (s.parent.span_id if s.parent else None) == parent]
        made = [made_of(span) for span in found]
        return sorted(made, key=repr)

    def made_of(span: sdk.ReadableSpan) -> Made:
        scope, context = span.instrumentation_scope, span.context
        assert scope is not None
        assert context is not None
        return Made(
            span.name,
            span.kind.name,
            normal(span.attributes),
            f"{span.status.status_code.name} {span.status.description}",
            [(event.name, normal(event.attributes)) for event in span.events],
            len(span.links),
            (scope.name, scope.version or ""),
            span.parent.is_remote if span.parent else None,
            below(context.span_id),
        )

    lost = [span.name for span in spans if span.parent and span.parent.span_id not in known]
    assert lost == [], "every parent is in the trace"
    return below(None)


async def run(scenario: Scenario, who: str, *kinds: Any) -> list[Made]:
    provider = ours if who == "ours" else stock
    with traced_by(who) as tracer, instrumented(provider, *kinds):
        await scenario(tracer, who)
    for span in exporter.get_finished_spans():
        assert isinstance(span, sdk.ReadableSpan)
    return forest(exporter.get_finished_spans())


async def same(scenario: Scenario, *kinds: Any) -> list[Made]:
    """What the scenario makes with our provider, which is what it makes with the stock one."""
    made = [await run(scenario, who, *kinds) for who in ("ours", "stock")]
    assert made[0] == made[1]
    return made[0]


def drawn(made: list[Made], depth: int = 0) -> str:
    return "".join(
        f"{'  ' * depth}{one.name} {one.kind}\n{drawn(one.children, depth + 1)}"
        for one in sorted(made, key=lambda each: each.name)
    )


def client_contexts() -> list[str]:
    """The headers that the client spans stand for, in the order of their start."""
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    return [
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        for span in spans
        if span.kind is SpanKind.CLIENT and span.context
    ]


async def test_aiohttp_client_and_server_make_one_trace() -> None:
    async def scenario(tracer: trace.Tracer, _who: str) -> None:
        seen: list[dict[str, str]] = []
        token = context.attach(baggage.set_baggage("user", "ada"))
        try:
            with tracer.start_as_current_span("job"):
                async with server(seen, tracer) as url, ClientSession() as session:
                    for what in ("well", "missing", "broken"):
                        async with session.get(f"{url}/{what}") as response:
                            await response.read()
        finally:
            context.detach(token)
        assert [headers["traceparent"] for headers in seen] == client_contexts()
        assert {headers["baggage"] for headers in seen} == {"user=ada"}

    made = await same(scenario, AioHttpClientInstrumentor, AioHttpServerInstrumentor)

    one = "  GET CLIENT\n    GET /{what} SERVER\n      work INTERNAL\n"
    assert drawn(made) == "job INTERNAL\n" + one * 3
    requests_made = [child for client in made[0].children for child in client.children]
    assert {request.remote for request in requests_made} == {True}
    assert sorted(request.status.split()[0] for request in requests_made) == ["ERROR", "UNSET", "UNSET"]


async def test_a_connection_that_is_refused_is_recorded_alike() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def scenario(_tracer: trace.Tracer, _who: str) -> None:
            async with ClientSession() as session:
                with pytest.raises(ClientConnectionError):
                    await session.get(f"http://127.0.0.1:{port}/")

        (made,) = await same(scenario, AioHttpClientInstrumentor)

    assert made.status.startswith("ERROR")


async def test_httpx_carries_the_trace_over() -> None:
    async def scenario(tracer: trace.Tracer, _who: str) -> None:
        seen: list[dict[str, str]] = []

        def ask(url: str) -> None:
            with httpx.Client() as client:
                client.get(f"{url}/plain")

        async with server(seen, tracer) as url, httpx.AsyncClient() as client:
            with tracer.start_as_current_span("job"):
                await client.get(f"{url}/missing")
                await asyncio.to_thread(ask, url)
        assert [headers["traceparent"] for headers in seen] == client_contexts()

    made = await same(scenario, HTTPXClientInstrumentor, AioHttpServerInstrumentor)

    one = "  GET CLIENT\n    GET /{what} SERVER\n      work INTERNAL\n"
    assert drawn(made) == "job INTERNAL\n" + one * 2


async def test_requests_carries_the_trace_over() -> None:
    async def scenario(tracer: trace.Tracer, _who: str) -> None:
        seen: list[dict[str, str]] = []

        def ask(url: str) -> None:
            with tracer.start_as_current_span("job"), requests.Session() as session:
                session.get(f"{url}/well", timeout=10)
                session.get(f"{url}/broken", timeout=10)

        async with server(seen, tracer) as url:
            await asyncio.to_thread(ask, url)
        assert [headers["traceparent"] for headers in seen] == client_contexts()

    made = await same(scenario, RequestsInstrumentor, AioHttpServerInstrumentor)

    one = "  GET CLIENT\n    GET /{what} SERVER\n      work INTERNAL\n"
    assert drawn(made) == "job INTERNAL\n" + one * 2


@asynccontextmanager
async def served(app: fastapi.FastAPI) -> AsyncIterator[str]:
    """The application on a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        there = uvicorn.Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(there.serve(sockets=[listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                there.should_exit = True


async def test_fastapi_goes_on_with_the_trace_of_its_client() -> None:
    async def scenario(tracer: trace.Tracer, who: str) -> None:
        app = fastapi.FastAPI()

        async def look(node: str) -> dict[str, str]:
            with tracer.start_as_current_span("work"):
                await asyncio.sleep(0)
            if node == "missing":
                raise fastapi.HTTPException(404)
            return {
                "node": node,
                "trace": format(trace.get_current_span().get_span_context().trace_id, "032x"),
            }

        def wait(node: str) -> str:  # FastAPI calls it in a thread of its own
            with tracer.start_as_current_span("threaded work"):
                return node

        app.get("/nodes/{node}")(look)
        app.get("/threads/{node}")(wait)
        FastAPIInstrumentor.instrument_app(app, tracer_provider=ours if who == "ours" else stock)
        async with served(app) as url, httpx.AsyncClient() as client:
            with tracer.start_as_current_span("job") as job:
                answer = (await client.get(f"{url}/nodes/a")).json()
                await client.get(f"{url}/nodes/missing")
                await client.get(f"{url}/threads/a")
        FastAPIInstrumentor.uninstrument_app(app)
        assert answer["trace"] == format(job.get_span_context().trace_id, "032x")

    made = await same(scenario, HTTPXClientInstrumentor)

    drawing = drawn(made)
    assert drawing.count("  GET CLIENT\n    GET /nodes/{node} SERVER\n      GET /nodes/{node} http send") == 2
    assert "    GET /threads/{node} SERVER\n" in drawing
    assert drawing.count("      work INTERNAL\n") == 2
    assert drawing.count("      threaded work INTERNAL\n") == 1


async def test_asyncio_spans_have_the_right_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE", "step,fail,hang")
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE", "grind")
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED", "true")

    async def scenario(tracer: trace.Tracer, _who: str) -> None:
        async def step() -> None:
            with tracer.start_as_current_span("inside"):
                await asyncio.sleep(0)

        async def fail() -> None:
            raise ValueError("no")

        async def hang() -> None:
            await asyncio.sleep(60)

        def grind() -> None:
            with tracer.start_as_current_span("ground"):
                pass

        with tracer.start_as_current_span("gather"):
            await asyncio.gather(step(), step(), fail(), return_exceptions=True)
        with tracer.start_as_current_span("task"):
            await asyncio.create_task(step())
        with tracer.start_as_current_span("group"):
            async with asyncio.TaskGroup() as group:
                group.create_task(step())
        with tracer.start_as_current_span("limit"), pytest.raises(TimeoutError):
            await asyncio.wait_for(hang(), 0.01)
        with tracer.start_as_current_span("thread"):
            await asyncio.to_thread(grind)
        with tracer.start_as_current_span("future"):
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, None)
            await asyncio.gather(future)
            await asyncio.sleep(0)

    made = await same(scenario, AsyncioInstrumentor)

    tops = {one.name: drawn(one.children) for one in made}
    assert tops == {
        "future": "asyncio future INTERNAL\n",
        "gather": "asyncio coro-fail INTERNAL\nasyncio coro-step INTERNAL\nasyncio coro-step INTERNAL\n"
        "inside INTERNAL\ninside INTERNAL\n",
        "group": "asyncio coro-step INTERNAL\ninside INTERNAL\n",
        "limit": "asyncio coro-hang INTERNAL\n",
        "task": "asyncio coro-step INTERNAL\ninside INTERNAL\n",
        "thread": "asyncio to_thread-grind INTERNAL\nground INTERNAL\n",
    }


async def test_threads_go_on_with_the_span_that_started_them() -> None:
    async def scenario(tracer: trace.Tracer, _who: str) -> None:
        def work(name: str) -> None:
            with tracer.start_as_current_span(name):
                pass

        def start() -> None:
            with tracer.start_as_current_span("job"):
                for thread in (
                    threading.Thread(target=work, args=("thread",)),
                    threading.Timer(0.01, work, ("timer",)),
                ):
                    thread.start()
                    thread.join()
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(work, "pool").result()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(work, "alone").result()

        await asyncio.to_thread(start)

    made = await same(scenario, ThreadingInstrumentor)

    assert drawn(made) == (
        "alone INTERNAL\njob INTERNAL\n  pool INTERNAL\n  thread INTERNAL\n  timer INTERNAL\n"
    )
