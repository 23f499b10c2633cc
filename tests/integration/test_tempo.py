"""Tempo's query API, as Grafana's data source for it calls it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from .stored_traces import BASE, CYCLE, MS, PROPOSAL, REQUEST, SERVICE, Served, a_span, request_of, served

PROTOBUF = "application/protobuf"
NAMES = [
    "GET /health", "dao.proposal_execute", "mape_k.cycle", "mape_k.execute", "mape_k.monitor", "mape_k.plan",
]  # fmt: skip


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as api:
        yield api


async def found(api: Served, **parameters: str) -> list[str]:
    answer = await api.get("/api/search", **parameters)
    assert answer.status == 200, answer.text
    return [each["traceID"] for each in answer.json["traces"]]


async def values(api: Served, tag: str, **parameters: str) -> list[tuple[str, str]]:
    answer = await api.get(f"/api/v2/search/tag/{tag}/values", **parameters)
    assert answer.status == 200, answer.text
    return sorted((each["type"], each["value"]) for each in answer.json["tagValues"])


def message(body: bytes) -> dict[int, bytes | int]:
    """The fields of a protobuf message that has no repeated ones."""
    fields: dict[int, bytes | int] = {}
    at = 0
    while at < len(body):
        tag, at = _DecodeVarint(body, at)
        value, at = _DecodeVarint(body, at)
        if tag & 7 == 2:
            fields[tag >> 3], at = body[at : at + value], at + value
        else:
            fields[tag >> 3] = value
    return fields


def names(data: bytes) -> list[str]:
    return [
        span.name
        for of_service in TracesData.FromString(data).resource_spans
        for of_scope in of_service.scope_spans
        for span in of_scope.spans
    ]


async def test_a_trace_of_v2_is_wrapped_protobuf(api: Served) -> None:
    answer = await api.get(f"/api/v2/traces/{CYCLE}?start={BASE // 10**9}&end={BASE // 10**9 + 60}", PROTOBUF)

    assert answer.headers["Content-Type"] == PROTOBUF
    fields = message(answer.body)
    assert isinstance(fields[1], bytes)
    assert names(fields[1]) == ["mape_k.cycle", "mape_k.monitor", "mape_k.execute"]
    assert fields[2] == b""
    # Status 0: complete.
    assert 3 not in fields


async def test_a_trace_of_v2_is_json_for_who_does_not_ask_for_protobuf(api: Served) -> None:
    answer = await api.get(f"/api/v2/traces/{CYCLE}")

    assert set(answer.json) == {"trace", "metrics"}
    (of_service,) = answer.json["trace"]["resourceSpans"]
    assert [span["name"] for span in of_service["scopeSpans"][0]["spans"]] == [
        "mape_k.cycle", "mape_k.monitor", "mape_k.execute",
    ]  # fmt: skip


async def test_a_trace_that_is_too_large_is_partial_and_says_so(tmp_path: Path) -> None:
    said = f"trace {CYCLE} has 3 spans; only 2 of them are in this answer, which may have no more"
    async with served(tmp_path, most_spans=2) as api:
        fields = message((await api.get(f"/api/v2/traces/{CYCLE}", PROTOBUF)).body)
        written = (await api.get(f"/api/v2/traces/{CYCLE}")).json
        bare = await api.get(f"/api/traces/{CYCLE}", PROTOBUF)

    assert isinstance(fields[1], bytes)
    assert len(names(fields[1])) == 2
    assert (fields[3], fields[4]) == (1, said.encode())
    assert (written["status"], written["message"]) == ("PARTIAL", said)
    assert len(names(bare.body)) == 2
    assert said in bare.headers["Warning"]


async def test_a_trace_of_many_spans_is_whole(tmp_path: Path) -> None:
    trace_id = "5" * 32
    spans = [a_span(trace_id, f"{n:x}", f"step {n}", start=n, length=1) for n in range(1, 2001)]
    async with served(tmp_path, filled=False) as api:
        await api.store.send(request_of(SERVICE, spans), len(spans))
        # The half of it was sent twice.
        await api.store.send(request_of(SERVICE, spans[::2]), len(spans) // 2)

        in_protobuf = message((await api.get(f"/api/v2/traces/{trace_id}", PROTOBUF)).body)
        in_json = (await api.get(f"/api/v3/traces/{trace_id}")).json["result"]["resourceSpans"]
        in_jaegers = (await api.get(f"/api/traces/{trace_id}")).json["data"]

    expected = sorted(span.name for span in spans)
    assert isinstance(in_protobuf[1], bytes)
    assert sorted(names(in_protobuf[1])) == expected
    assert sorted(s["name"] for r in in_json for c in r["scopeSpans"] for s in c["spans"]) == expected
    assert sorted(span["operationName"] for span in in_jaegers[0]["spans"]) == expected


@pytest.mark.parametrize("accept", ["", PROTOBUF])
async def test_a_trace_that_is_not_there_is_a_404_in_plain_text(api: Served, accept: str) -> None:
    answer = await api.get(f"/api/v2/traces/{'d' * 32}", accept)

    assert (answer.status, answer.text) == (404, "trace not found")
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_search_has_tempos_shape(api: Served) -> None:
    answer = await api.get("/api/search", q='{ span.success = false && name = "mape_k.execute" }')

    (trace,) = answer.json["traces"]
    span = {
        "spanID": "c3".rjust(16, "0"),
        "name": "mape_k.execute",
        "startTimeUnixNano": str(BASE + 20_060 * MS),
        "durationNanos": str(30 * MS),
        "attributes": [{"key": "success", "value": {"boolValue": False}}],
    }
    assert trace == {
        "traceID": CYCLE,
        "rootServiceName": SERVICE,
        "rootTraceName": "mape_k.cycle",
        "startTimeUnixNano": str(BASE + 20_000 * MS),
        "durationMs": 100,
        "spanSet": {"matched": 1, "spans": [span]},
        "spanSets": [{"matched": 1, "spans": [span]}],
        "serviceStats": {SERVICE: {"spanCount": 3, "errorCount": 1}},
    }
    assert answer.json["metrics"]["inspectedTraces"] == 1
    assert answer.json["metrics"]["completedJobs"] == answer.json["metrics"]["totalJobs"] == 1


async def test_a_trace_without_its_root_says_so_in_tempos_words(tmp_path: Path) -> None:
    async with served(tmp_path, filled=False) as api:
        await api.store.send(request_of(SERVICE, [a_span("1" * 32, "2", "x", "1", start=0, length=1)]), 1)

        (trace,) = (await api.get("/api/search", q="{ }")).json["traces"]

    assert trace["rootServiceName"] == "<root span not yet received>"


async def test_a_search_that_finds_nothing_is_an_empty_list(api: Served) -> None:
    answer = await api.get("/api/search", q='{ name = "nothing" }')

    assert (answer.status, answer.json["traces"]) == (200, [])


@pytest.mark.parametrize(
    ("parameters", "traces"),
    [
        ({}, [CYCLE, REQUEST, PROPOSAL]),
        ({"limit": "2"}, [CYCLE, REQUEST]),
        ({"q": '{ name =~ "mape_k.*" }'}, [CYCLE, REQUEST]),
        ({"q": "{ status = error }"}, [CYCLE]),
        ({"q": "{ span.nodes >= 5 }"}, [CYCLE]),
        ({"q": '{ resource.service.name = "gateway" } > { kind = client }'}, [REQUEST]),
        ({"q": "{ }", "start": str(BASE // 10**9 + 15), "end": str(BASE // 10**9 + 60)}, [CYCLE]),
        ({"q": "{ }", "start": "0", "end": str(BASE // 10**9 + 5)}, [PROPOSAL]),
        ({"tags": "node_id=NODE"}, [CYCLE]),
        ({"tags": "service.name=gate"}, [REQUEST]),
        ({"tags": 'name="mape_k.plan"'}, [REQUEST]),
        ({"tags": "success=false"}, [CYCLE, PROPOSAL]),
        ({"tags": "success=false attempts=3"}, [PROPOSAL]),
        ({"tags": "node_id=node.1"}, []),
        ({"tags": "root.name=health"}, [REQUEST]),
        ({"minDuration": "50ms"}, [CYCLE]),
        ({"tags": "success=false", "maxDuration": "50ms"}, [PROPOSAL]),
    ],
    # Numbered: moments are in what is asked, and the names of tests must be the same in every process.
    ids=map(str, itertools.count()),
)
async def test_a_search_finds_what_its_parameters_say(
    api: Served, parameters: dict[str, str], traces: list[str]
) -> None:
    assert await found(api, **parameters) == traces


async def test_spans_of_a_set_are_as_many_as_asked(api: Served) -> None:
    query = '{ name =~ "mape_k.*" && resource.region = "north" }'

    (default,) = (await api.get("/api/search", q=query)).json["traces"]
    (one,) = (await api.get("/api/search", q=query, spss="1")).json["traces"]

    assert (default["spanSets"][0]["matched"], len(default["spanSets"][0]["spans"])) == (3, 3)
    assert (one["spanSets"][0]["matched"], len(one["spanSets"][0]["spans"])) == (3, 1)


async def test_selected_values_and_groups_are_attributes(api: Served) -> None:
    (selected,) = (await api.get("/api/search", q="{ span.nodes > 0 } | select(span.ratio)")).json["traces"]
    (grouped,) = (await api.get("/api/search", q="{ span.success = true } | by(span.node_id)")).json["traces"]

    values = {each["key"]: each["value"] for each in selected["spanSets"][0]["spans"][0]["attributes"]}
    assert values["nodes"] == {"intValue": "5"}
    assert {"doubleValue": 0.5} in values.values()
    assert grouped["spanSets"][0]["attributes"] == [
        {"key": "by(span.node_id)", "value": {"stringValue": "node-1"}}
    ]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/search?q=%7B%20nme", "nme"),
        ("/api/search?q=%7B%7D&tags=a%3Db", "can't specify tags and q"),
        ("/api/search?tags=a%3Db%20a%3Dc", "'a' has been set twice"),
        ("/api/search?tags=%3Db", "invalid tags"),
        ("/api/search?limit=0", "malformed parameter limit: '0'"),
        ("/api/search?start=5&end=5", "start must be before end"),
        ("/api/search?start=now", "malformed parameter start: 'now'"),
        ("/api/search?minDuration=5", "malformed parameter minDuration: '5'"),
        ("/api/v2/traces/xyz", "malformed parameter trace_id: 'xyz'"),
        ("/api/v2/search/tags?scope=galaxy", "invalid scope: 'galaxy'"),
    ],
)
async def test_a_wrong_parameter_is_a_400_in_plain_text(api: Served, path: str, said: str) -> None:
    answer = await api.get(path)

    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert said in answer.text


async def test_tags_are_given_by_scope(api: Served) -> None:
    scopes = {each["name"]: each["tags"] for each in (await api.get("/api/v2/search/tags")).json["scopes"]}

    assert {"node_id", "success", "nodes"} <= set(scopes["span"])
    assert {"service.name", "region"} <= set(scopes["resource"])
    assert "exception.type" in scopes["event"]
    assert "span:duration" in scopes["intrinsic"]


@pytest.mark.parametrize("scope", ["span", "resource"])
async def test_tags_of_one_scope_are_alone(api: Served, scope: str) -> None:
    (only,) = (await api.get("/api/v2/search/tags", scope=scope)).json["scopes"]
    flat = (await api.get("/api/search/tags", scope=scope)).json["tagNames"]

    assert only["name"] == scope
    assert sorted(only["tags"]) == flat


async def test_tags_of_the_first_version_are_names_without_intrinsics(api: Served) -> None:
    tags = (await api.get("/api/search/tags")).json["tagNames"]

    assert {"node_id", "service.name"} <= set(tags)
    assert "span:duration" not in tags
    assert (await api.get("/api/v2/search/tags?scope=none")).status == 200


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("span.node_id", [("string", "node-1")]),
        (".node_id", [("string", "node-1")]),
        ("span.success", [("bool", "false"), ("bool", "true")]),
        ("span.nodes", [("int", "5")]),
        ("span.ratio", [("float", "0.5")]),
        ("resource.service.name", [("string", "gateway"), ("string", SERVICE)]),
        ("status", [("keyword", word) for word in ("error", "ok", "unset")]),
        ("name", [("string", name) for name in NAMES]),
        ("span.unknown", []),
    ],
)
async def test_values_of_a_tag_have_types(api: Served, tag: str, expected: list[tuple[str, str]]) -> None:
    assert await values(api, tag) == expected


@pytest.mark.parametrize("tag", ["node_id", "span.node_id", ".node_id"])
async def test_values_of_the_first_version_need_no_scope(api: Served, tag: str) -> None:
    answer = await api.get(f"/api/search/tag/{tag}/values")

    assert answer.json["tagValues"] == ["node-1"]


async def test_a_tag_with_any_signs_has_values(tmp_path: Path) -> None:
    span = a_span("1" * 32, "1", "x", start=0, length=1)
    span.attributes.add(key="a/b {c}\n").value.string_value = "yes"
    async with served(tmp_path, filled=False) as api:
        await api.store.send(request_of(SERVICE, [span]), 1)

        answer = await api.get("/api/search/tag/a%2Fb%20%7Bc%7D%0A/values")

    assert answer.json["tagValues"] == ["yes"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('{ name = "mape_k.monitor" }', ["true"]),
        ('{ name = "mape_k.monitor" && span.success = }', ["true"]),
        ('{ resource.service.name = && name = "mape_k.monitor" }', ["true"]),
        ('{ name = "mape_k.monitor" && ', ["true"]),
        ('{ span.text = "a && b" && name="mape_k.monitor" && }', []),
        ("{ span.success = }", ["false", "true"]),
        ('{ name = "mape_k.monitor" || span.x = }', ["false", "true"]),
        ("{", ["false", "true"]),
        ("{ }", ["false", "true"]),
        ("what is this", ["false", "true"]),
    ],
    ids=str,
)
async def test_values_are_of_what_is_complete_in_the_query(
    api: Served, query: str, expected: list[str]
) -> None:
    found = await values(api, "span.success", q=query)

    assert [value for _, value in found] == expected


async def test_grafana_finds_somebody_there(api: Served) -> None:
    echo = await api.get("/api/echo")
    ready = await api.get("/ready")
    build = await api.get("/api/status/buildinfo")

    assert (echo.status, echo.text) == (200, "echo")
    assert ready.status == 200
    # From 2.2.0 on Grafana would stream over gRPC if it is set to.
    assert tuple(map(int, build.json["version"].split("."))) < (2, 2, 0)


async def test_a_query_of_any_signs_is_refused_and_no_fault(api: Served) -> None:
    dropping = "'; DROP TABLE span; --"
    for text in ("{" * 1000, "\x00", dropping, '{ name =~ "(" }', "{ .a = 1 } | rate()", "💥"):
        answer = await api.get(f"/api/search?q={quote(text)}")

        assert answer.status == 400, (text[:20], answer.text)
    assert await found(api, q=f'{{ name = "{dropping}" }}') == []
    assert len(await found(api)) == 3
