"""A request that finds the shelf empty starts a cycle that fills it, linked to the request."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor

from mapek_runtime.testing import Recorder


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shop", Path(__file__).parent / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shop"] = module
    spec.loader.exec_module(module)
    return module


# The instrumentation subclasses web.Application, which aiohttp discourages.
@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
async def test_an_empty_shelf_is_refilled_by_a_cycle_linked_to_the_request(recorder: Recorder) -> None:
    instrumentor = AioHttpServerInstrumentor()
    instrumentor.instrument(tracer_provider=recorder.provider)
    try:
        shop = load()
        app = shop.application()
        async with TestServer(app) as server, ClientSession() as session:
            statuses = []
            for _ in range(3):
                async with session.post(server.make_url("/buy/apple")) as answer:
                    statuses.append(answer.status)
            await app[shop.RUNTIME].wait(cycles=1)
            async with session.post(server.make_url("/buy/apple")) as answer:
                statuses.append(answer.status)
    finally:
        instrumentor.uninstrument()

    assert statuses == [200, 200, 503, 200]
    asked = next(s for s in recorder.named("mape_k.cycle") if (s.attributes or {})["trigger"] == "sold out")
    refused = next(s for s in recorder.spans if (s.attributes or {}).get("http.status_code") == 503)
    assert refused.context in [link.context for link in asked.links]
    assert asked.parent is None
