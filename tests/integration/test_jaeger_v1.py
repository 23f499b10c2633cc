"""Jaeger's query API v1, as Grafana calls it, and Jaeger's UI for one trace."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

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

LINKED = "a1".rjust(16, "0")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as api:
        yield api


async def found(api: Served, **parameters: str) -> list[str]:
    answer = await api.get("/api/traces", **parameters)
    assert answer.status == 200, answer.text
    return [each["traceID"] for each in answer.json["data"]]


def tags_of(tags: list[dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {each["key"]: (each["type"], each["value"]) for each in tags}


async def cycle_of(api: Served) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The trace of the cycle, and its spans by name."""
    (trace,) = (await api.get(f"/api/traces/{CYCLE}")).json["data"]
    return trace, {span["operationName"]: span for span in trace["spans"]}


async def test_lists_have_jaegers_envelope_and_are_never_null(api: Served, tmp_path: Path) -> None:
    assert (await api.get("/api/services")).json == {
        "data": ["gateway", SERVICE], "total": 2, "limit": 0, "offset": 0, "errors": None,
    }  # fmt: skip
    (tmp_path / "empty").mkdir()
    async with served(tmp_path / "empty", filled=False) as empty:
        assert (await empty.get("/api/services")).json["data"] == []
        assert (await empty.get("/api/traces?service=x")).json["data"] == []


async def test_a_service_with_any_signs_in_its_name_has_operations(tmp_path: Path) -> None:
    async with served(tmp_path, filled=False) as api:
        await api.store.send(request_of("a/b {c}\n", [a_span("1" * 32, "1", "work", start=0, length=1)]), 1)

        answer = await api.get("/api/services/a%2Fb%20%7Bc%7D%0A/operations")

    assert answer.json["data"] == ["work"]


async def test_operations_are_names_or_names_with_kinds(api: Served) -> None:
    assert "mape_k.plan" in (await api.get(f"/api/services/{SERVICE}/operations")).json["data"]

    operations = (await api.get("/api/operations", service=SERVICE, spanKind="client")).json["data"]

    assert operations == [{"name": "mape_k.plan", "spanKind": "client"}]


async def test_a_trace_is_one_element_with_its_spans_and_processes(api: Served) -> None:
    trace, spans = await cycle_of(api)

    assert trace["traceID"] == CYCLE
    assert trace["warnings"] is None
    assert trace["processes"] == {
        "p1": {"serviceName": SERVICE, "tags": [{"key": "region", "type": "string", "value": "north"}]}
    }
    root = spans["mape_k.cycle"]
    assert root["references"] == []
    assert (root["startTime"], root["duration"]) == ((BASE + 20_000 * MS) // 1000, 100_000)
    assert {span["processID"] for span in trace["spans"]} == {"p1"}
    assert len(trace["spans"]) == 3


async def test_a_trace_through_two_services_has_two_processes(api: Served) -> None:
    (trace,) = (await api.get(f"/api/traces/{REQUEST}")).json["data"]

    names = {
        span["operationName"]: trace["processes"][span["processID"]]["serviceName"] for span in trace["spans"]
    }
    assert names == {"GET /health": "gateway", "mape_k.plan": SERVICE}


async def test_the_types_of_attributes_become_the_types_of_tags(api: Served) -> None:
    _, spans = await cycle_of(api)

    tags = tags_of(spans["mape_k.monitor"]["tags"])

    assert tags["node_id"] == ("string", "node-1")
    assert tags["success"] == ("bool", True)
    assert tags["nodes"] == ("int64", 5)
    assert tags["ratio"] == ("float64", 0.5)
    assert tags["digest"] == ("binary", base64.b64encode(b"\x00\xff").decode())
    assert tags["peers"] == ("string", '["a","b"]')
    # JavaScript could not read it exactly.
    assert tags["big"] == ("int64", str(1 << 60))


async def test_what_otlp_has_in_fields_becomes_tags(api: Served) -> None:
    _, spans = await cycle_of(api)

    tags = tags_of(spans["mape_k.execute"]["tags"])

    assert tags["span.kind"] == ("string", "internal")
    assert tags["otel.scope.name"] == ("string", "mapek")
    assert tags["otel.scope.version"] == ("string", "1.2")
    assert tags["otel.status_code"] == ("string", "ERROR")
    assert tags["otel.status_description"] == ("string", "no route")
    assert tags["error"] == ("bool", True)
    assert tags["w3c.tracestate"] == ("string", "a=b")
    assert "error" not in tags_of(spans["mape_k.monitor"]["tags"])


async def test_parents_links_and_events_have_jaegers_shape(api: Served) -> None:
    _, spans = await cycle_of(api)

    failed = spans["mape_k.execute"]

    assert failed["references"] == [
        {"refType": "CHILD_OF", "traceID": CYCLE, "spanID": "c1".rjust(16, "0")},
        {"refType": "FOLLOWS_FROM", "traceID": PROPOSAL, "spanID": LINKED},
    ]
    assert failed["logs"] == [
        {
            "timestamp": (BASE + 20_065 * MS) // 1000,
            "fields": [
                {"key": "event", "type": "string", "value": "exception"},
                {"key": "exception.type", "type": "string", "value": "OSError"},
            ],
        }
    ]


async def test_a_trace_that_is_not_there_is_a_404_and_never_an_empty_list(api: Served) -> None:
    answer = await api.get(f"/api/traces/{'d' * 32}")

    assert answer.status == 404
    assert answer.json == {"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}


async def test_a_trace_is_found_by_an_id_without_its_zeros_and_with_times(api: Served) -> None:
    start, end = BASE // 1000, BASE // 1000 + 60_000_000

    answer = await api.get(f"/api/traces/b?start={start}&end={end}")

    assert answer.json["data"][0]["traceID"] == REQUEST


async def test_who_accepts_protobuf_gets_the_bare_trace_of_tempo(api: Served) -> None:
    answer = await api.get(f"/api/traces/{CYCLE}", accept="application/protobuf")

    assert answer.headers["Content-Type"] == "application/protobuf"
    data = TracesData.FromString(answer.body)
    spans = [span for r in data.resource_spans for s in r.scope_spans for span in s.spans]
    assert [span.name for span in spans] == ["mape_k.cycle", "mape_k.monitor", "mape_k.execute"]
    missing = await api.get(f"/api/traces/{'d' * 32}", accept="application/protobuf")
    assert (missing.status, missing.headers["Content-Type"].split(";")[0]) == (404, "text/plain")


@pytest.mark.parametrize(
    ("parameters", "traces"),
    [
        ({}, [CYCLE, REQUEST, PROPOSAL]),
        ({"limit": "1"}, [CYCLE]),
        ({"limit": "100000"}, [CYCLE, REQUEST, PROPOSAL]),
        ({"operation": "mape_k.plan"}, [REQUEST]),
        ({"tags": '{"success":"false"}'}, [CYCLE, PROPOSAL]),
        ({"tags": '{"attempts":"3"}'}, [PROPOSAL]),
        ({"tag": "success:false"}, [CYCLE, PROPOSAL]),
        ({"tag": "success:false", "tags": '{"node_id":"node-1"}'}, [CYCLE]),
        ({"tags": '{"error":"true"}'}, [CYCLE, PROPOSAL]),
        ({"minDuration": "50ms"}, [CYCLE]),
        ({"minDuration": "6ms", "maxDuration": "40ms"}, [CYCLE]),
        ({"maxDuration": "5ms"}, [REQUEST, PROPOSAL]),
        ({"start": str(BASE // 1000 + 5_000_000)}, [CYCLE, REQUEST]),
        ({"end": str(BASE // 1000 + 5_000_000)}, [PROPOSAL]),
        ({"operation": "mape_k.monitor", "tags": '{"node_id":"node-1"}', "minDuration": "10ms"}, [CYCLE]),
    ],
    # Numbered: moments are in what is asked, and the names of tests must be the same in every process.
    ids=map(str, itertools.count()),
)
async def test_a_search_finds_what_its_parameters_say(
    api: Served, parameters: dict[str, str], traces: list[str]
) -> None:
    assert await found(api, service=SERVICE, **parameters) == traces


async def test_several_tags_must_all_hold(api: Served) -> None:
    answer = await api.get(f"/api/traces?service={SERVICE}&tag=success:false&tag=node_id:node-1")

    assert [each["traceID"] for each in answer.json["data"]] == [CYCLE]


async def test_traces_are_asked_for_by_id_and_the_missing_ones_are_told(api: Served) -> None:
    answer = await api.get(f"/api/traces?traceID={CYCLE}&traceID={'d' * 32}&traceID=b")

    assert [each["traceID"] for each in answer.json["data"]] == [CYCLE, REQUEST]
    assert answer.json["errors"] == [{"code": 404, "msg": "trace not found", "traceID": "d" * 32}]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/traces", "parameter 'service' is required"),
        ("/api/operations", "parameter 'service' is required"),
        ("/api/traces?service=a&start=now", "malformed parameter start: 'now'"),
        ("/api/traces?service=a&limit=-1", "malformed parameter limit: '-1'"),
        ("/api/traces?service=a&minDuration=5", "malformed parameter minDuration: '5'"),
        ("/api/traces?service=a&tags=success", "malformed parameter tags: 'success'"),
        ("/api/traces?service=a&tag=success", "malformed parameter tag: 'success'"),
        ("/api/traces?traceID=xyz", "malformed parameter trace_id: 'xyz'"),
        ("/api/traces/xyz", "malformed parameter trace_id: 'xyz'"),
        ("/api/traces/%7B%7D", "malformed parameter trace_id: '{}'"),
        ("/api/dependencies?endTs=now", "malformed parameter endTs: 'now'"),
        ("/api/metrics/calls", "unable to parse param 'service'"),
        ("/api/metrics/latencies?service=a", "parameter 'quantile' is required"),
        ("/api/metrics/calls?service=a&spanKind=x", "unable to parse param 'spanKind'"),
    ],
)
async def test_a_wrong_parameter_is_a_400_in_jaegers_envelope(api: Served, path: str, message: str) -> None:
    answer = await api.get(path)

    assert answer.status == 400
    (error,) = answer.json["errors"]
    assert error["code"] == 400
    assert error["msg"].startswith(message)


async def test_a_trace_that_is_too_large_is_cut_with_a_warning(tmp_path: Path) -> None:
    async with served(tmp_path, most_spans=2) as api:
        (trace,) = (await api.get(f"/api/traces/{CYCLE}")).json["data"]
        searched = (await api.get("/api/traces", service=SERVICE)).json["data"]

    assert len(trace["spans"]) == 2
    assert trace["warnings"] == [
        f"trace {CYCLE} has 3 spans; only 2 of them are in this answer, which may have no more"
    ]
    assert [each["traceID"] for each in searched] == [CYCLE]
    assert "2 more traces were found and left out" in searched[0]["warnings"][1]


async def test_an_answer_can_be_printed_for_people(api: Served) -> None:
    pretty = await api.get("/api/services?prettyPrint=true")
    plain = await api.get("/api/services")

    assert pretty.json == plain.json
    assert b"\n" in pretty.body
    assert b"\n" not in plain.body


async def test_dependencies_are_calls_between_services(api: Served) -> None:
    now = time.time_ns() // MS
    calls = [{"parent": "gateway", "child": SERVICE, "callCount": 1}]

    assert (await api.get(f"/api/dependencies?endTs={now}&lookback=604800000")).json["data"] == calls
    assert (await api.get("/api/dependencies", service="gateway")).json["data"] == calls
    assert (await api.get("/api/dependencies", service="another")).json["data"] == []
    assert (await api.get(f"/api/dependencies?endTs={now}&lookback=1")).json["data"] == []


async def test_a_file_of_otlp_json_is_transformed_and_not_stored(api: Served) -> None:
    span = {
        "traceId": "e" * 32, "spanId": "f" * 16, "name": "uploaded", "kind": 2,
        "startTimeUnixNano": "2000000", "endTimeUnixNano": "1000000",
    }  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "file"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span, span]}]}]}

    answer = await api.post("/api/transform", json.dumps(body).encode())

    (trace,) = answer.json["data"]
    assert trace["processes"]["p1"]["serviceName"] == "file"
    (written,) = trace["spans"]
    assert (written["operationName"], written["startTime"], written["duration"]) == ("uploaded", 2000, 0)
    assert written["warnings"] == ["the span ends before it starts; its duration is given as 0"]
    assert (await api.get(f"/api/traces/{'e' * 32}")).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"resourceSpans":5}', b"\xff", b'{"a":' * 5000])
async def test_a_file_that_is_something_else_is_a_400(api: Served, body: bytes) -> None:
    answer = await api.post("/api/transform", body)

    assert answer.status == 400
    assert answer.json["errors"][0]["msg"].startswith("the body is no OTLP JSON: ")


async def metric(api: Served, name: str, **more: str) -> dict[tuple[str, ...], float]:
    """The last value of each series, by its labels."""
    answer = await api.get(f"/api/metrics/{name}", service=SERVICE, spanKind="internal", **more)
    assert answer.status == 200, answer.text
    assert answer.json["type"] == "GAUGE"
    return {
        tuple(label["value"] for label in series["labels"]): series["metricPoints"][-1]["gaugeValue"][
            "doubleValue"
        ]
        for series in answer.json["metrics"]
    }


async def test_durations_calls_and_errors_are_metrics_by_operation(api: Served) -> None:
    latencies = await metric(api, "latencies", quantile="0.95", groupByOperation="true")
    calls = await metric(api, "calls", groupByOperation="true", step="60000")
    errors = await metric(api, "errors", groupByOperation="true")

    assert latencies[SERVICE, "mape_k.monitor"] == pytest.approx(50, rel=0.05)
    assert calls[SERVICE, "mape_k.monitor"] == pytest.approx(1 / 60)
    assert errors[SERVICE, "mape_k.execute"] == 1
    assert errors[SERVICE, "mape_k.monitor"] == 0
    assert (SERVICE, "mape_k.plan") not in calls


async def test_metrics_of_a_service_are_of_all_its_operations(api: Served) -> None:
    (name,) = await metric(api, "calls")
    answer = await api.get("/api/metrics/errors", service=SERVICE, spanKind="internal")

    assert name == (SERVICE,)
    assert answer.json["name"] == "service_error_rate"
    assert (await metric(api, "latencies", quantile="0.01"))[name] < 60
    assert (await metric(api, "latencies", quantile="0.99"))[name] == pytest.approx(100, rel=0.05)
    assert (await api.get("/api/metrics/calls", service="gateway")).json["metrics"] != []
    assert (await api.get("/api/metrics/calls", service=SERVICE)).json["metrics"] == []
