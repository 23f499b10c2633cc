"""`initialize_tracing(app=…)`: requests to a web application open spans."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.trace import SpanKind

from mapek_runtime import monitoring
from mapek_runtime.errors import ConfigError, EngineUnavailable
from mapek_runtime.monitoring import get_network_spans, initialize_tracing
from mapek_runtime.service.instrument import instrumented
from mapek_runtime.testing import Recorder, tree
from mapek_runtime.trace import active_provider

FASTAPI_INSTRUMENTATION = importlib.util.find_spec("opentelemetry.instrumentation.fastapi") is not None
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(monitoring, "_service", None)
    with Recorder() as recorder:
        yield recorder


async def look(request: web.Request) -> web.Response:
    async with get_network_spans().node_discovery(request.match_info["node"]) as span:
        span.set(discovered_nodes=3)
    return web.Response(text="seen")


def application() -> web.Application:
    app = web.Application()
    app.router.add_get("/nodes/{node}", look)
    return app


async def ask(app: web.Application, **headers: str) -> None:
    async with TestClient(TestServer(app)) as client, client.get("/nodes/a", headers=headers) as response:
        assert await response.text() == "seen"


async def test_a_request_to_an_aiohttp_application_is_a_span(recorder: Recorder) -> None:
    app = application()
    kind = web.Application

    initialize_tracing("shop", app=app)
    await ask(app, traceparent=PARENT)

    seen, request = recorder.spans
    assert recorder.children(request) == (seen,)
    assert (seen.name, request.name) == ("mesh.node_discovery", "GET /nodes/{node}")
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}" == PARENT[3:35]
    # Only the one that was given: the class of all others is as it was.
    assert web.Application is kind


async def test_another_application_is_left_alone(recorder: Recorder) -> None:
    initialize_tracing("shop", app=application())

    await ask(application())

    assert recorder.tree() == tree("mesh.node_discovery")


async def test_an_application_that_opens_spans_already_opens_one_a_request(recorder: Recorder) -> None:
    with instrumented(recorder.provider):
        app = application()

        initialize_tracing("shop", app=app)
        await ask(app)

    kinds = [span.kind for span in recorder.spans]
    assert kinds == [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT]


async def test_a_second_call_does_not_instrument_again(recorder: Recorder) -> None:
    app = application()

    initialize_tracing("shop", app=app)
    initialize_tracing("shop", app=app)
    await ask(app)

    assert [span.kind for span in recorder.spans] == [SpanKind.INTERNAL, SpanKind.SERVER]


@pytest.mark.usefixtures("recorder")
async def test_an_application_that_is_running_is_refused() -> None:
    app = application()
    async with TestServer(app):
        with pytest.raises(ConfigError, match="already running; give it to initialize_tracing before"):
            initialize_tracing("shop", app=app)

    assert monitoring._service is None


@pytest.mark.usefixtures("recorder")
def test_without_its_instrumentation_a_fastapi_application_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fastapi = pytest.importorskip("fastapi")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)

    with pytest.raises(EngineUnavailable, match="pip install opentelemetry-instrumentation-fastapi"):
        initialize_tracing("shop", app=fastapi.FastAPI())

    assert monitoring._service is None


@pytest.mark.skipif(not FASTAPI_INSTRUMENTATION, reason="the instrumentation of FastAPI is not installed")
async def test_a_request_to_a_fastapi_application_is_a_span(recorder: Recorder) -> None:
    fastapi = pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    app = fastapi.FastAPI()

    async def look_there(node: str) -> str:
        with get_network_spans().node_discovery(node):
            return node

    app.get("/nodes/{node}")(look_there)
    initialize_tracing("shop", app=app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/nodes/a")).json() == "a"

    assert active_provider() is recorder.provider
    (request,) = [span for span in recorder.spans if span.kind is SpanKind.SERVER]
    assert request.name == "GET /nodes/{node}"
    assert "mesh.node_discovery" in [span.name for span in recorder.children(request)]
