"""A server that says how to sample, on a real socket: what it says is followed, and its absence is borne."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk import trace as stock
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mapek_runtime
from mapek_runtime import TracerProvider
from mapek_runtime.config import Configuration, SamplerSettings, Settings
from mapek_runtime.service.polling import MOST_BYTES, Poller
from mapek_runtime.service.tracing import open_tracing
from mapek_runtime.trace.sampling import JaegerRemoteSampler
from mapek_runtime.trace.sampling.remote import find_remote
from mapek_runtime.trace.sampling.strategy import PerOperation, Probabilistic, RateLimiting, Strategy

SHARE = {"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0.42}}
RATE = {"strategyType": "RATE_LIMITING", "rateLimitingSampling": {"maxTracesPerSecond": 42}}
OPERATIONS = {
    "operationSampling": {
        "defaultSamplingProbability": 0,
        "perOperationStrategies": [
            {"operation": "mape_k.cycle", "probabilisticSampling": {"samplingRate": 1}}
        ],
    }
}
FAST = 0.02
LIMIT = 10.0

logger_name = "mapek_runtime.service.polling"


class Server:
    """A sampling server that answers what `body` and `status` are at the moment."""

    def __init__(self) -> None:
        self.body = json.dumps(SHARE).encode()
        self.status = 200
        self.extra = ""
        self.silent = False
        self.targets: list[str] = []
        self.heads: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, strategy: dict[str, Any]) -> None:
        self.body = json.dumps(strategy).encode()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self.targets.append(head.split(" ")[1])
                if self.silent:
                    await asyncio.Event().wait()
                reply = f"HTTP/1.1 {self.status} Word\r\nContent-Length: {len(self.body)}\r\n{self.extra}\r\n"
                writer.write(reply.encode() + self.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    try:
        yield server
    finally:
        await server.die()


@asynccontextmanager
async def sampling(server: Server, interval: float = FAST) -> AsyncIterator[JaegerRemoteSampler]:
    """A sampler that polls `server`, from the beginning of the block to its end."""
    poller = Poller(f"{server.url}/sampling", interval)
    sampler = JaegerRemoteSampler("shop & till", source=poller, initial_rate=0)
    poller.start(sampler)
    try:
        yield sampler
    finally:
        await poller.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - it watches the outside, which sets no event
            await asyncio.sleep(0.005)


async def followed(sampler: JaegerRemoteSampler, strategy: Strategy) -> None:
    await until(lambda: sampler.strategy == strategy)


def polling_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "mapek-sampling"]


async def test_what_the_server_says_is_followed() -> None:
    async with serving() as server, sampling(server) as sampler:
        await followed(sampler, Probabilistic(0.42))

        server.says(RATE)
        await followed(sampler, RateLimiting(42))

        server.says(OPERATIONS)
        await followed(sampler, PerOperation(default=0, operations={"mape_k.cycle": 1}))

    assert parse_qs(urlsplit(server.targets[0]).query) == {"service": ["shop & till"]}
    assert {urlsplit(target).path for target in server.targets} == {"/sampling"}


async def test_a_share_of_42_in_a_hundred_is_kept() -> None:
    async with serving() as server, sampling(server) as sampler:
        await followed(sampler, Probabilistic(0.42))
        tracer = TracerProvider(sampler, shutdown_on_exit=False).get_tracer("x")

        kept = sum(tracer.start_span("x").is_recording() for _ in range(20_000))

    # Five standard deviations.
    assert kept / 20_000 == pytest.approx(0.42, abs=0.0175)


async def test_the_last_good_strategy_outlives_server_and_garbage_with_one_line_for_each_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger_name)
    async with serving() as server, sampling(server) as sampler:
        await followed(sampler, Probabilistic(0.42))

        await server.die()
        await until(lambda: len(caplog.messages) == 2)
        await asyncio.sleep(10 * FAST)
        assert sampler.strategy == Probabilistic(0.42)

        server.body = b'{"probabilisticSampling":{"samplingRate":7}}'
        await server.start()
        await until(lambda: len(caplog.messages) == 3)
        asked = len(server.targets)
        await until(lambda: len(server.targets) > asked + 3)
        assert sampler.strategy == Probabilistic(0.42)

        server.says(RATE)
        await followed(sampler, RateLimiting(42))

    first, away, nonsense, back = (message for message in caplog.messages)
    assert first == f"sampling by the strategy of {server.url}/sampling: probabilistic 0.42"
    assert "is away" in away
    assert away.endswith("sampling stays at probabilistic 0.42")
    assert "samplingRate" in nonsense
    assert back.endswith("rate limiting 42/s")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": 404}, "it answered 404"),
        ({"body": b" " * (MOST_BYTES + 1)}, f"longer than {MOST_BYTES} bytes"),
        ({"extra": "Content-Encoding: gzip\r\n"}, "compressed"),
    ],
    ids=["not found", "too long", "compressed"],
)
async def test_an_answer_that_is_none_changes_nothing(
    change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        vars(server).update(change)
        async with sampling(server) as sampler:
            await until(lambda: len(server.targets) > 2)

            assert sampler.strategy == Probabilistic(0)

    (message,) = caplog.messages
    assert reason in message


async def test_a_decision_never_waits_for_a_server_that_says_nothing() -> None:
    async with serving() as server:
        server.silent = True
        async with sampling(server) as sampler:
            await until(lambda: bool(server.targets))

            tracer = TracerProvider(sampler, shutdown_on_exit=False).get_tracer("x")
            tracer.start_span("x").end()

        assert polling_tasks() == []


async def test_polling_makes_no_span_and_belongs_to_none() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    try:
        async with serving() as server:
            with provider.get_tracer("x").start_as_current_span("open"):
                async with sampling(server) as sampler:
                    await followed(sampler, Probabilistic(0.42))
    finally:
        HTTPXClientInstrumentor().uninstrument()

    assert [span.name for span in exporter.get_finished_spans()] == ["open"]
    assert not any("traceparent" in head.lower() for head in server.heads)


async def test_polling_keeps_nothing_of_the_context_in_which_it_began() -> None:
    class Request:
        """What a request handler has in its context."""

    request = Request()
    gone = weakref.ref(request)
    current: ContextVar[Request | None] = ContextVar("current", default=None)
    async with serving() as server:
        sampler = JaegerRemoteSampler("shop", source=(poller := Poller(f"{server.url}/sampling", FAST)))
        current.set(request)
        poller.start(sampler)
        current.set(None)
        await followed(sampler, Probabilistic(0.42))

        del request
        gc.collect()

        assert gone() is None
        await poller.stop()


@pytest.mark.parametrize("kind", [TracerProvider, stock.TracerProvider], ids=["ours", "stock"])
async def test_a_provider_that_nobody_looks_after_polls_from_its_first_root_on(
    kind: type[stock.TracerProvider],
) -> None:
    async with serving() as server:
        sampler = JaegerRemoteSampler("shop", source=Poller(f"{server.url}/sampling", FAST), initial_rate=0)
        tracer = kind(sampler, shutdown_on_exit=False).get_tracer("x")
        assert polling_tasks() == []

        assert not tracer.start_span("x").is_recording()
        await followed(sampler, Probabilistic(0.42))
        for _ in range(100):
            tracer.start_span("x")

        assert len(polling_tasks()) == 1
        (task,) = polling_tasks()
        task.cancel()
        await asyncio.wait({task})
        tracer.start_span("x")
        (again,) = polling_tasks()
        again.cancel()
        await asyncio.wait({again})


async def test_polling_ends_when_nobody_holds_the_sampler() -> None:
    async with serving() as server:
        sampler = JaegerRemoteSampler("shop", source=Poller(f"{server.url}/sampling", FAST))
        TracerProvider(sampler, shutdown_on_exit=False).get_tracer("x").start_span("x").end()
        await followed(sampler, Probabilistic(0.42))

        del sampler
        gc.collect()

        await until(lambda: not polling_tasks())


def test_each_loop_gets_a_poller_of_its_own_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    poller = Poller("", FAST)
    sampler = JaegerRemoteSampler("shop", source=poller, initial_rate=0)

    async def one(strategy: dict[str, Any], expected: Strategy) -> None:
        async with serving() as server:
            server.says(strategy)
            poller.url = f"{server.url}/sampling"
            poller.attend(sampler)
            await followed(sampler, expected)

    asyncio.run(one(SHARE, Probabilistic(0.42)))
    asyncio.run(one(RATE, RateLimiting(42)))

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_without_a_loop_one_line_says_that_nobody_polls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger_name)
    sampler = JaegerRemoteSampler("shop", source=Poller("http://127.0.0.1:9/sampling", FAST), initial_rate=1)
    tracer = TracerProvider(sampler, shutdown_on_exit=False).get_tracer("x")

    assert all(tracer.start_span("x").is_recording() for _ in range(3))

    (message,) = caplog.messages
    assert "no event loop runs" in message


async def test_the_service_polls_from_its_start_to_its_end() -> None:
    async with serving() as server:
        settings = Settings(
            service_name="shop", sampler=SamplerSettings(type="remote", endpoint=server.url, interval=FAST)
        )
        async with open_tracing(Configuration(settings=settings), instrument=True) as tracing:
            remote = find_remote(tracing.provider.sampler)
            assert remote is not None
            await followed(remote, Probabilistic(0.42))
            assert len(polling_tasks()) == 1

        assert polling_tasks() == []
        assert tracing.statistics().ended == 0
        tracing.provider.get_tracer("late").start_span("x")
        assert polling_tasks() == []

    assert parse_qs(urlsplit(server.targets[0]).query) == {"service": ["shop"]}


async def test_the_variables_of_opentelemetry_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        server.says(OPERATIONS)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote")
        monkeypatch.setenv(
            "OTEL_TRACES_SAMPLER_ARG", f"endpoint={server.url},pollingIntervalMs=20,initialSamplingRate=0"
        )
        async with mapek_runtime.tracing(service_name="shop") as provider:
            tracer = provider.get_tracer("x")
            await until(lambda: tracer.start_span("mape_k.cycle").is_recording())

            assert not tracer.start_span("other").is_recording()


async def test_a_plain_provider_needs_nothing_but_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        server.says(OPERATIONS)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "jaeger_remote")
        monkeypatch.setenv(
            "OTEL_TRACES_SAMPLER_ARG", f"endpoint={server.url},pollingIntervalMs=20,initialSamplingRate=0"
        )
        resource = Resource({"service.name": "shop"})
        tracer = TracerProvider(resource=resource, shutdown_on_exit=False).get_tracer("x")

        await until(lambda: tracer.start_span("mape_k.cycle").is_recording())

        (task,) = polling_tasks()
        task.cancel()
        await asyncio.wait({task})
    assert parse_qs(urlsplit(server.targets[0]).query) == {"service": ["shop"]}
