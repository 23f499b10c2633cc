"""What the page asks of a store, in its own shapes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.trace import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from mapek_runtime.export.encode import encode_spans
from mapek_runtime.store import TraceStore
from mapek_runtime.testing import Recorder
from tests.integration.page_edge import page

BIG = (1 << 62) + 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TraceStore]:
    async with TraceStore(tmp_path / "traces.sqlite") as opened:
        yield opened


def record(*, children: int = 1) -> str:
    """A trace with everything in it; its id."""
    tracer = trace.get_tracer("tests", "1.0")
    odd: dict[str, AttributeValue] = {"text": "ü", "big": BIG, "nan": float("nan"), "list": ["a", "b"]}
    with tracer.start_as_current_span("shop.order", attributes=odd) as root:
        for number in range(children):
            with tracer.start_as_current_span("shop.pay", attributes={"amount": number}) as span:
                span.add_event("declined", {"reason": "no money"})
                span.set_status(Status(StatusCode.ERROR, "declined"))
                span.add_link(root.get_span_context(), {"why": "a test"})
    return f"{root.get_span_context().trace_id:032x}"


async def stored(store: TraceStore, recorder: Recorder, **more: int) -> str:
    trace_id = record(**more)
    await store.send(encode_spans(recorder.spans), len(recorder.spans))
    return trace_id


# What is asked of the store


async def test_a_trace_is_shown_with_everything_that_its_spans_have(
    store: TraceStore, recorder: Recorder
) -> None:
    trace_id = await stored(store, recorder)

    async with page(store) as shown:
        status, shape = await shown.get(f"/page/trace/{trace_id}")

    root, child = shape["spans"]
    assert (status, shape["trace_id"], shape["total"], shape["offset"]) == (200, trace_id, 2, 0)
    assert (root["name"], root["parent_id"], root["kind"], root["status"]) == (
        "shop.order", "", "internal", "unset",
    )  # fmt: skip
    # What a double cannot hold, and what JSON has no word for.
    assert root["attributes"] == {"text": "ü", "big": str(BIG), "nan": "nan", "list": ["a", "b"]}
    assert (child["parent_id"], child["scope"]) == (root["span_id"], "tests")
    assert (child["status"], child["status_message"]) == ("error", "declined")
    assert child["resource"]["service.name"] == child["service"]
    (event,) = child["events"]
    (link,) = child["links"]
    assert (event["name"], event["attributes"]) == ("declined", {"reason": "no money"})
    assert (link["span_id"], link["attributes"]) == (root["span_id"], {"why": "a test"})
    recorded = recorder.one("shop.pay")
    assert recorded.start_time is not None
    assert recorded.end_time is not None
    assert child["start"] == str(recorded.start_time)
    assert child["duration"] == str(recorded.end_time - recorded.start_time)


async def test_a_large_trace_comes_in_pages(store: TraceStore, recorder: Recorder) -> None:
    trace_id = await stored(store, recorder, children=24)

    async with page(store) as shown:
        pages = [
            (await shown.get(f"/page/trace/{trace_id}", offset=str(offset), limit="10"))[1]
            for offset in (0, 10, 20)
        ]

    assert [len(each["spans"]) for each in pages] == [10, 10, 5]
    assert {each["total"] for each in pages} == {25}
    assert len({span["span_id"] for each in pages for span in each["spans"]}) == 25


async def test_a_trace_that_is_not_stored_yet_is_flushed_and_shown(
    store: TraceStore, recorder: Recorder
) -> None:
    trace_id = record()

    async with page(store) as shown:
        shown.waiting.append(encode_spans(recorder.spans))
        status, shape = await shown.get(f"/page/trace/{trace_id}")

        assert (status, shape["total"], shown.flushes) == (200, 2, 1)


async def test_a_trace_of_which_the_root_is_not_stored_yet_is_flushed_and_shown_whole(
    store: TraceStore, recorder: Recorder
) -> None:
    trace_id = record()
    child, root = recorder.spans
    await store.send(encode_spans([child]), 1)

    async with page(store) as shown:
        shown.waiting.append(encode_spans([root]))
        status, shape = await shown.get(f"/page/trace/{trace_id}")

        assert (status, len(shape["spans"]), shown.flushes) == (200, 2, 1)


async def test_many_unknown_traces_cost_few_flushes(store: TraceStore) -> None:
    async with page(store) as shown:
        answers = await asyncio.gather(*(shown.get(f"/page/trace/{n:032x}") for n in range(1, 31)))

        assert {status for status, _ in answers} == {404}
        assert "there is no trace" in answers[0][1]["error"]
        # One a second, and not one for each.
        assert 1 <= shown.flushes < 15


async def test_a_trace_is_downloaded_as_otlp_json(store: TraceStore, recorder: Recorder) -> None:
    trace_id = await stored(store, recorder)

    async with page(store) as shown:
        async with shown.session.get(f"{shown.url}/page/trace/{trace_id}/otlp") as response:
            text = await response.text()
            disposition = response.headers["Content-Disposition"]
        missing, _ = await shown.get(f"/page/trace/{1:032x}/otlp")

    assert disposition == f'attachment; filename="trace-{trace_id}.json"'
    # Of OTLP's JSON only the ids are not protobuf's.
    data = json.loads(text)
    spans = [
        span for group in data["resourceSpans"] for each in group["scopeSpans"] for span in each["spans"]
    ]
    assert {span["traceId"] for span in spans} == {trace_id}
    for span in spans:
        for key in ("traceId", "spanId", "parentSpanId"):
            span.pop(key, None)
        for link in span.get("links", []):
            del link["traceId"], link["spanId"]
    assert len(Parse(json.dumps(data), TracesData()).resource_spans[0].scope_spans[0].spans) == 2
    assert missing == 404


async def test_search_finds_traces_and_says_how_the_query_was_understood(
    store: TraceStore, recorder: Recorder
) -> None:
    trace_id = await stored(store, recorder)

    async with page(store) as shown:
        status, found = await shown.get("/page/search", q='name="shop.p*" AND amount >= 0', limit="5")
        none = (await shown.get("/page/search", q='name="nothing"'))[1]
        again = (await shown.get("/page/search", q=found["query"]))[1]

    (found_trace,) = found["traces"]
    (chosen,) = found_trace["sets"][0]["spans"]
    assert status == 200
    assert [found_trace[key] for key in ("trace_id", "root_name", "spans", "errors")] == [
        trace_id, "shop.order", 2, 1,
    ]  # fmt: skip
    assert (chosen["name"], chosen["attributes"]) == ("shop.pay", {"amount": 0})
    assert isinstance(found_trace["start"], str)
    assert isinstance(chosen["duration"], str)
    assert (none["traces"], none["complete"]) == ([], True)
    assert again["traces"] == found["traces"]


async def test_durations_are_those_of_the_chosen_spans(store: TraceStore, recorder: Recorder) -> None:
    await stored(store, recorder, children=9)

    async with page(store) as shown:
        all_of = (await shown.get("/page/durations", q='{ name = "shop.pay" }'))[1]
        some = (await shown.get("/page/durations", q='{ name = "shop.pay" }', limit="4"))[1]

    assert (len(all_of["spans"]), all_of["complete"]) == (9, True)
    assert (len(some["spans"]), some["complete"]) == (4, False)
    assert set(some["spans"][0]) == {
        "trace_id", "span_id", "name", "service", "start", "duration", "status",
    }  # fmt: skip


async def test_latencies_are_a_series_for_each_operation(store: TraceStore, recorder: Recorder) -> None:
    await stored(store, recorder, children=9)

    async with page(store) as shown:
        series = (await shown.get("/page/latencies", step="60", name="shop.pay"))[1]["series"]

    (one,) = series
    assert (one["name"], one["kind"]) == ("shop.pay", "internal")
    assert sum(point["spans"] for point in one["points"]) == 9
    assert sum(point["errors"] for point in one["points"]) == 9
    for point in one["points"]:
        assert int(point["p50"]) <= int(point["p95"]) <= int(point["p99"])


async def test_what_can_be_asked_for_is_listed(store: TraceStore, recorder: Recorder) -> None:
    await stored(store, recorder)

    async with page(store) as shown:
        services = (await shown.get("/page/services"))[1]["services"]
        scopes = (await shown.get("/page/tags"))[1]["scopes"]
        values = (await shown.get("/page/values", tag="span.text"))[1]["values"]

    assert [each["name"] for each in services[0]["operations"]] == ["shop.order", "shop.pay"]
    assert "amount" in scopes["span"]
    assert "service.name" in scopes["resource"]
    assert values == [{"type": "string", "value": "ü"}]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/page/search?q=name%20%3D", "the query ends here"),
        ("/page/search?limit=0", "limit='0'; it must be a whole number of at least 1"),
        ("/page/search?start=soon", "start='soon'; it must be nanoseconds since 1970"),
        ("/page/search?end=-1", "end='-1'"),
        ("/page/durations?limit=1e3", "limit='1e3'"),
        ("/page/durations?q=%7B", "the query ends here"),
        ("/page/difference", "nothing is selected; give bounds"),
        ("/page/difference?shortest=50ms", "shortest='50ms'; it must be a whole number"),
        ("/page/difference?from=yesterday", "from='yesterday'"),
        ("/page/latencies?step=90", "step=90; it must be a multiple of 60"),
        ("/page/values", "tag=''; it must be one field"),
        ("/page/values?tag=span.a%20%3D%201%20%26%26%20span.b", "tag="),
        ("/page/trace/xyz", "trace id 'xyz'"),
        ("/page/trace/xyz/otlp", "trace id 'xyz'"),
        ("/page/trace/" + "1" * 33, "it must be 32 hexadecimal digits"),
        ("/page/trace/1?offset=-1", "offset='-1'"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_words(store: TraceStore, path: str, words: str) -> None:
    async with page(store) as shown:
        status, answer = await shown.get(path)

    assert status == 400, answer
    assert words in answer["error"]
    assert "column" in answer


async def test_an_error_in_a_query_says_where_it_is(store: TraceStore) -> None:
    async with page(store) as shown:
        _, answer = await shown.get("/page/search", q='{ name = "a" && }')

    assert answer["column"] > 10
    # The place is told once: the page shows it as a caret.
    assert "column" not in answer["error"]


async def test_without_a_store_every_question_says_that_there_is_none() -> None:
    async with page(None) as shown:
        paths = ("search", "durations", "difference", "latencies", "services", "tags", f"trace/{1:032x}")
        answers = [await shown.get(f"/page/{path}") for path in paths]

    assert {status for status, _ in answers} == {503}
    assert all("keeps no traces" in answer["error"] for _, answer in answers)
