"""The description of the service, and the service held against it by schemathesis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from aiohttp.web_app import Application
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from mapek_runtime.store import TraceStore
from mapek_runtime.web.jaeger_v1 import add_jaeger_v1
from mapek_runtime.web.jaeger_v3 import add_jaeger_v3
from mapek_runtime.web.openapi import add_openapi, describe
from mapek_runtime.web.tempo import add_tempo

from .stored_traces import CYCLE, Served, served

EXAMPLES, MORE = 4, 100
"""How many requests each route gets."""
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
LIMIT = 20.0


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as api:
        yield api


def every_api(path: Path) -> Application:
    app, store = Application(), TraceStore(path / "unopened.sqlite")
    add_jaeger_v3(app, store)
    add_jaeger_v1(app, store)
    add_tempo(app, store)
    add_openapi(app)
    return app


def test_every_route_is_described_and_nothing_else_is(tmp_path: Path) -> None:
    app = every_api(tmp_path)

    described = {(path, method) for path, each in describe(app)["paths"].items() for method in each}

    assert described == {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


def test_what_is_not_served_is_not_described() -> None:
    app = Application()
    add_openapi(app)

    assert set(describe(app)["paths"]) == {"/openapi.json"}


async def test_the_description_is_valid_and_its_references_lead_somewhere(api: Served) -> None:
    description = (await api.get("/openapi.json")).json

    assert description["openapi"] == "3.1.0"
    for schema in description["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({**schema, "components": description["components"]})
    wanted = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert wanted == set(description["components"]["schemas"])
    for path, operations in description["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


async def test_routes_that_need_no_token_say_so(api: Served) -> None:
    paths = (await api.get("/openapi.json")).json["paths"]

    assert paths["/health"]["get"]["security"] == []
    assert "security" not in paths["/api/services"]["get"]


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        (f"/api/traces/{CYCLE}", "JaegerTraces"),
        (f"/api/v3/traces/{CYCLE}", "JaegerResult"),
        (f"/api/v2/traces/{CYCLE}", "TempoTrace"),
        ("/api/v3/trace-summaries", "JaegerSummaries"),
        ("/api/search?q=%7B%20span.success%20%3D%20false%20%7D", "TempoSearch"),
        ("/api/v2/search/tag/span.node_id/values", "TempoTagValues"),
        ("/api/dependencies", "JaegerDependencies"),
        ("/api/metrics/calls?service=x0tta6bl4&spanKind=internal", "JaegerMetrics"),
        ("/api/traces", "JaegerFailure"),
        ("/api/v3/traces/xyz", "JaegerError"),
    ],
)
async def test_answers_with_something_in_them_are_as_described(api: Served, path: str, schema: str) -> None:
    components = (await api.get("/openapi.json")).json["components"]
    validator = jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": components}
    )

    answer = (await api.get(path)).json

    assert [error.message for error in validator.iter_errors(answer)] == []
    assert not validator.is_valid({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
async def test_no_request_makes_the_service_fail_or_say_what_it_does_not_describe(api: Served) -> None:
    description = (await api.get("/openapi.json")).json

    asked = await asyncio.to_thread(fuzz, description, api.address, EXAMPLES)

    assert asked > EXAMPLES * 10
    assert len((await api.get("/api/traces?service=x0tta6bl4")).json["data"]) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_no_request_of_many_makes_the_service_fail(api: Served) -> None:
    description = (await api.get("/openapi.json")).json

    assert await asyncio.to_thread(fuzz, description, api.address, MORE) > MORE * 10


def fuzz(description: Mapping[str, Any], address: str, examples: int) -> int:
    """Ask each route that often, with what its description allows and with what it does not."""
    asked = 0
    for found in schemathesis.openapi.from_dict(dict(description)).get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        for mode in modes(operation):

            @seed(1)
            @settings(
                max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case[Any]) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(base_url=address, checks=list(CHECKS), timeout=LIMIT)

            with suppress(Unsatisfiable):
                # Where a parameter may be any text, none is wrong.
                ask()
    return asked


def modes(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> list[schemathesis.GenerationMode]:
    """A route without parameters has nothing that could be wrong."""
    right, wrong = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    named = operation.definition.raw
    return [right, wrong] if named.get("parameters") or named.get("requestBody") else [right]
