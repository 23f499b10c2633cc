"""A store with a few traces in it, served with every query API on a port of loopback."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from yarl import URL

from mapek_runtime.store import TraceStore
from mapek_runtime.web import WebServer
from mapek_runtime.web.jaeger_v1 import add_jaeger_v1
from mapek_runtime.web.jaeger_v3 import add_jaeger_v3
from mapek_runtime.web.openapi import add_openapi
from mapek_runtime.web.tempo import add_tempo
from mapek_runtime.web.whole_traces import MOST_SPANS

__all__ = [
    "BASE", "CYCLE", "MS", "PROPOSAL", "REQUEST", "SERVICE", "Answer", "Served", "a_span", "fill",
    "request_of", "served",
]  # fmt: skip

MS = 1_000_000
SERVICE = "x0tta6bl4"
BASE = (time.time_ns() // 10**9 - 300) * 10**9
"""When the traces begin: five minutes ago, on a whole second."""
CYCLE, REQUEST, PROPOSAL = "c" * 32, "0" * 31 + "b", "a" * 32
Value = str | bool | int | float | bytes | list[str] | None


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self.headers
        return json.loads(self.body)


class Served:
    """A server that is asked."""

    def __init__(self, address: str, store: TraceStore, client: aiohttp.ClientSession) -> None:
        self.address = address
        self.store = store
        self._client = client

    async def get(self, path: str, accept: str = "", **parameters: str) -> Answer:
        """Ask for `path`, as it is written if there are no parameters."""
        url = URL(self.address + path, encoded=not parameters)
        headers = {"Accept": accept} if accept else {}
        async with self._client.get(url, params=parameters or None, headers=headers) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def post(self, path: str, body: bytes) -> Answer:
        """Send a body of JSON."""
        headers = {"Content-Type": "application/json"}
        async with self._client.post(self.address + path, data=body, headers=headers) as reply:
            return Answer(reply.status, reply.headers, await reply.read())


@asynccontextmanager
async def served(path: Path, *, filled: bool = True, most_spans: int = MOST_SPANS) -> AsyncIterator[Served]:
    """The APIs over a store in `path`, with the three traces of `fill` unless they are not wanted."""
    async with TraceStore(path / "traces.sqlite") as store:
        if filled:
            await fill(store)
        parts = (
            lambda app: add_jaeger_v3(app, store, most_spans=most_spans),
            lambda app: add_jaeger_v1(app, store, most_spans=most_spans),
            lambda app: add_tempo(app, store, most_spans=most_spans),
            add_openapi,
        )
        async with (
            WebServer(
                "127.0.0.1:0", metrics=_metrics, health=lambda: {"status": "ok"}, parts=parts
            ) as server,
            aiohttp.ClientSession() as client,
        ):
            yield Served(server.address, store, client)


async def fill(store: TraceStore) -> None:
    """Three traces, the oldest first: of a proposal, of a request through two services, of a cycle."""
    proposal = a_span(
        PROPOSAL, "a1", "dao.proposal_execute", start=0, length=5, success=False, error=True, attempts=3
    )
    await store.send(request_of(SERVICE, [proposal]), 1)
    await store.send(
        request_of("gateway", [a_span(REQUEST, "b1", "GET /health", start=10_000, length=20, kind=2)]), 1
    )
    await store.send(
        request_of(SERVICE, [a_span(REQUEST, "b2", "mape_k.plan", "b1", start=10_005, length=5, kind=3)]), 1
    )
    failed = a_span(
        CYCLE, "c3", "mape_k.execute", "c1", start=20_060, length=30, success=False, node_id="node-1",
        trust=1.0,
    )  # fmt: skip
    failed.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="no route"))
    failed.trace_state = "a=b"
    failed.links.add(trace_id=bytes.fromhex(PROPOSAL), span_id=bytes.fromhex("a1".rjust(16, "0")))
    event = failed.events.add(time_unix_nano=BASE + 20_065 * MS, name="exception")
    event.attributes.append(_attribute("exception.type", "OSError"))
    cycle = [
        a_span(CYCLE, "c1", "mape_k.cycle", start=20_000, length=100, kind=1, node_id="node-1"),
        a_span(
            CYCLE, "c2", "mape_k.monitor", "c1", start=20_001, length=50, node_id="node-1", nodes=5,
            ratio=0.5, success=True, peers=["a", "b"], digest=b"\x00\xff", big=1 << 60,
        ),
        failed,
    ]  # fmt: skip
    await store.send(request_of(SERVICE, cycle, region="north"), 3)


def a_span(
    trace_id: str, span_id: str, name: str, parent: str = "", *, start: int, length: int, kind: int = 1,
    **attributes: Value,
) -> Span:  # fmt: skip
    """A span; `start` and `length` in milliseconds, from `BASE`."""
    return Span(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id.rjust(16, "0")),
        parent_span_id=bytes.fromhex(parent.rjust(16, "0")) if parent else b"",
        name=name,
        kind=kind,  # type: ignore[arg-type] # protobuf takes numbers
        start_time_unix_nano=BASE + start * MS,
        end_time_unix_nano=BASE + (start + length) * MS,
        attributes=[_attribute(key, value) for key, value in attributes.items()],
    )


def request_of(service: str, spans: Iterable[Span], **resource: Value) -> bytes:
    """An ExportTraceServiceRequest of a library called `mapek`."""
    request = ExportTraceServiceRequest()
    of_service = request.resource_spans.add()
    of_service.resource.attributes.append(_attribute("service.name", service))
    of_service.resource.attributes.extend(_attribute(key, value) for key, value in resource.items())
    of_scope = of_service.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = "mapek", "1.2"
    of_scope.spans.extend(spans)
    return request.SerializeToString()


def _metrics(_accept: str) -> tuple[bytes, str]:
    return b"", "text/plain"


def _attribute(key: str, value: Value) -> KeyValue:
    return KeyValue(key=key, value=_any_value(value))


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case str():
            return AnyValue(string_value=value)
        case None:
            return AnyValue()
    found = AnyValue()
    found.array_value.values.extend(AnyValue(string_value=each) for each in value)
    return found
