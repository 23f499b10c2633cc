"""Jaeger's query API v3, as its UI and Grafana call it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from .stored_traces import (
    BASE,
    CYCLE,
    MS,
    PROPOSAL,
    REQUEST,
    SERVICE,
    Served,
    a_span,
    request_of,
    served,
)

SUMMARIES = "/api/v3/trace-summaries"
FORMS = [
    ("query.serviceName", "query.startTimeMin", "query.startTimeMax", "query.searchDepth"),
    ("query.service_name", "query.start_time_min", "query.start_time_max", "query.num_traces"),
]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as api:
        yield api


def moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(BASE / 1e9 + milliseconds / 1e3, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def found(api: Served, **parameters: str) -> list[str]:
    answer = await api.get(SUMMARIES, **{f"query.{key}": value for key, value in parameters.items()})
    assert answer.status == 200, answer.text
    return [each["traceId"] for each in answer.json["summaries"]]


async def test_services_of_an_empty_store_are_an_empty_list_and_never_null(tmp_path: Path) -> None:
    async with served(tmp_path, filled=False) as api:
        assert (await api.get("/api/v3/services")).json == {"services": []}
        assert (await api.get("/api/v3/operations?service=x")).json == {"operations": []}
        assert (await api.get(f"{SUMMARIES}?query.serviceName=x")).json == {"summaries": []}


async def test_services_and_operations_have_their_names_and_kinds(api: Served) -> None:
    assert (await api.get("/api/v3/services")).json == {"services": ["gateway", SERVICE]}

    operations = (await api.get("/api/v3/operations", service=SERVICE)).json["operations"]

    assert {"name": "mape_k.cycle", "spanKind": "internal"} in operations
    assert {"name": "mape_k.plan", "spanKind": "client"} in operations
    assert "GET /health" not in {each["name"] for each in operations}


@pytest.mark.parametrize("name", ["spanKind", "span_kind"])
async def test_operations_are_chosen_by_kind_under_both_names(api: Served, name: str) -> None:
    answer = await api.get("/api/v3/operations", **{"service": SERVICE, name: "client"})

    assert answer.json == {"operations": [{"name": "mape_k.plan", "spanKind": "client"}]}


async def test_a_span_that_says_no_kind_is_internal(tmp_path: Path) -> None:
    async with served(tmp_path, filled=False) as api:
        spans = [
            a_span("1" * 32, "1", "work", start=0, length=1, kind=0),
            a_span("1" * 32, "2", "work", start=0, length=1, kind=1),
        ]
        await api.store.send(request_of("a", spans), 2)

        answer = await api.get("/api/v3/operations?service=a&spanKind=internal")

    assert answer.json == {"operations": [{"name": "work", "spanKind": "internal"}]}


@pytest.mark.parametrize(("service", "start", "end", "depth"), FORMS, ids=["today", "before"])
async def test_a_search_gives_summaries_under_both_forms_of_names(
    api: Served, service: str, start: str, end: str, depth: str
) -> None:
    answer = await api.get(
        SUMMARIES, **{service: SERVICE, start: moment(15_000), end: moment(60_000), depth: "20"}
    )

    assert answer.json == {
        "summaries": [
            {
                "traceId": CYCLE,
                "rootServiceName": SERVICE,
                "rootOperationName": "mape_k.cycle",
                "minStartTimeUnixNano": str(BASE + 20_000 * MS),
                "maxEndTimeUnixNano": str(BASE + 20_100 * MS),
                "spanCount": 3,
                "errorSpanCount": 1,
                "orphanSpanCount": 0,
                "services": [{"name": SERVICE, "spanCount": 3, "errorSpanCount": 1}],
            }
        ]
    }


async def test_a_summary_counts_the_spans_of_every_service(api: Served) -> None:
    (summary,) = (await api.get(SUMMARIES, **{"query.serviceName": "gateway"})).json["summaries"]

    assert summary["rootServiceName"] == "gateway"
    assert sorted((each["name"], each["spanCount"]) for each in summary["services"]) == [
        ("gateway", 1),
        (SERVICE, 1),
    ]


async def test_a_search_without_times_finds_the_newest(api: Served) -> None:
    assert await found(api, serviceName=SERVICE, searchDepth="1") == [CYCLE]
    assert await found(api, serviceName=SERVICE) == [CYCLE, REQUEST, PROPOSAL]


async def test_a_time_whose_plus_arrived_as_a_space_is_read(api: Served) -> None:
    plain = datetime.fromtimestamp(BASE // 10**9 + 15, UTC).strftime("%Y-%m-%dT%H:%M:%S")

    answer = await api.get(f"{SUMMARIES}?query.serviceName={SERVICE}&query.startTimeMin={plain}+00:00")

    assert [each["traceId"] for each in answer.json["summaries"]] == [CYCLE]


@pytest.mark.parametrize(
    ("attributes", "traces"),
    [
        ({"success": "false"}, [CYCLE, PROPOSAL]),
        ({"success": "true"}, [CYCLE]),
        ({"nodes": "5"}, [CYCLE]),
        ({"ratio": "0.5"}, [CYCLE]),
        ({"trust": "1"}, [CYCLE]),
        ({"node_id": "node-1"}, [CYCLE]),
        ({"node_id": "node"}, []),
        ({"region": "north"}, [CYCLE]),
        ({"error": "true"}, [CYCLE, PROPOSAL]),
        ({"span.kind": "client"}, [REQUEST]),
        ({"otel.status_code": "ERROR"}, [CYCLE]),
        ({"otel.status_description": "no route"}, [CYCLE]),
        ({"otel.scope.name": "mapek"}, [CYCLE, REQUEST, PROPOSAL]),
        ({"success": "false", "node_id": "node-1"}, [CYCLE]),
        ({"success": "true", "node_id": "node-2"}, []),
    ],
    ids=str,
)
async def test_attributes_are_strings_that_find_values_of_every_type(
    api: Served, attributes: dict[str, str], traces: list[str]
) -> None:
    assert await found(api, serviceName=SERVICE, attributes=json.dumps(attributes)) == traces


async def test_all_conditions_are_of_one_span(api: Served) -> None:
    # The cycle has a monitor of 50 ms and a span that failed, and they are not the same.
    assert await found(api, serviceName=SERVICE, durationMin="40ms", attributes='{"success":"false"}') == []
    assert await found(api, serviceName=SERVICE, durationMin="40ms", durationMax="60ms") == [CYCLE]
    assert await found(api, serviceName=SERVICE, operationName="mape_k.plan", durationMin="5ms") == [REQUEST]
    assert await found(api, serviceName=SERVICE, operationName="mape_k.plan", durationMin="5.1ms") == []


async def test_the_traces_of_a_search_come_as_one_otlp_object(api: Served) -> None:
    answer = await api.get("/api/v3/traces", **{"query.serviceName": SERVICE})

    spans = [
        span
        for resource in answer.json["result"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted({span["traceId"] for span in spans}) == sorted([CYCLE, REQUEST, PROPOSAL])
    assert len(spans) == 6


@pytest.mark.parametrize(
    "written",
    [CYCLE, CYCLE.upper(), base64.b64encode(bytes.fromhex(CYCLE)).decode(),
     base64.urlsafe_b64encode(bytes.fromhex(CYCLE)).decode().rstrip("=")],
)  # fmt: skip
async def test_a_trace_is_found_by_its_id_in_hexadecimal_and_in_base64(api: Served, written: str) -> None:
    answer = await api.get(f"/api/v3/traces/{quote(written, safe='')}?startTime={moment(0)}&rawTraces=true")

    (of_service,) = answer.json["result"]["resourceSpans"]
    (of_scope,) = of_service["scopeSpans"]
    failed = next(span for span in of_scope["spans"] if span["name"] == "mape_k.execute")
    assert {"key": "service.name", "value": {"stringValue": SERVICE}} in of_service["resource"]["attributes"]
    assert failed["traceId"] == CYCLE
    assert failed["parentSpanId"] == "c1".rjust(16, "0")
    assert failed["kind"] == 1
    assert failed["status"]["code"] == 2
    assert failed["startTimeUnixNano"] == str(BASE + 20_060 * MS)
    assert {"key": "success", "value": {"boolValue": False}} in failed["attributes"]


async def test_a_trace_that_is_not_there_is_a_404_of_jaegers_shape(api: Served) -> None:
    for path in (f"/api/v3/traces/{'d' * 32}", "/api/v3/traces?query.serviceName=nobody"):
        answer = await api.get(path)

        assert answer.status == 404
        assert answer.json == {"error": {"httpCode": 404, "message": "No traces found"}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{SUMMARIES}?query.startTimeMin=now", "malformed parameter query.startTimeMin: 'now'"),
        (f"{SUMMARIES}?query.start_time_min=now", "malformed parameter query.start_time_min: 'now'"),
        (f"{SUMMARIES}?query.durationMin=5", "malformed parameter query.durationMin: '5'"),
        (f"{SUMMARIES}?query.searchDepth=0", "malformed parameter query.searchDepth: '0'"),
        (f"{SUMMARIES}?query.attributes=5", "malformed parameter query.attributes: '5'"),
        (f"{SUMMARIES}?query.rawTraces=yes", "malformed parameter query.rawTraces: 'yes'"),
        (f"{SUMMARIES}?query.filter=%7B%7D", "malformed parameter query.filter"),
        ("/api/v3/traces/xyz", "malformed parameter trace_id: 'xyz'"),
        (
            f"{SUMMARIES}?query.startTimeMin=2026-08-02T00:00:00Z&query.startTimeMax=2026-08-01T00:00:00Z",
            "query.startTimeMin must be before query.startTimeMax",
        ),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_names_it(api: Served, path: str, message: str) -> None:
    answer = await api.get(path)

    assert answer.status == 400
    error = answer.json["error"]
    assert error["httpCode"] == 400
    assert error["message"].startswith(message)


async def test_a_search_depth_beyond_the_highest_is_answered(api: Served) -> None:
    assert await found(api, serviceName=SERVICE, searchDepth="1000000") == [CYCLE, REQUEST, PROPOSAL]


async def test_a_trace_of_more_spans_than_an_answer_has_is_cut_and_says_so(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, most_spans=2) as api:
        answer = await api.get(f"/api/v3/traces/{CYCLE}")

    spans = answer.json["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert len(spans) == 2
    assert re.search(r"has 3 spans; only 2 of them", answer.headers["Warning"])
