"""Cycles of nodes in other processes are read from the store, each once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from mapek_runtime import Cycle
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.service.elsewhere import Elsewhere, read_cycle
from mapek_runtime.store import TraceStore
from mapek_runtime.testing import Recorder, run_cycle
from tests.unit.service.links import Calm, Link


async def test_cycles_of_other_nodes_are_told_once_and_our_own_are_not(
    tmp_path: Path, recorder: Recorder
) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        early = await run_cycle(Calm(), node="far-1")
        service = str(recorder.spans[0].resource.attributes["service.name"])
        elsewhere = Elsewhere(store, service, ["a", "b"], since=0)
        await run_cycle(Calm(), node="a")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        first = await elsewhere.news()
        recorder.clear()
        late = await run_cycle(Link(), node="far-2")
        await run_cycle(Calm(), node="b")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        second = await elsewhere.news()
        third = await elsewhere.news()
        # As after a time in which nobody listened.
        elsewhere._asked = float("-inf")
        fourth = await elsewhere.news()

    assert [(cycle.node, cycle.trace_id) for cycle in first] == [("far-1", trace_id(early))]
    assert [(cycle.node, cycle.trace_id) for cycle in second] == [("far-2", trace_id(late))]
    assert second[0].actions[0].action == "drain"
    assert (third, fourth) == ([], [])


async def test_a_node_of_another_service_with_a_name_of_ours_is_told_apart(
    tmp_path: Path, recorder: Recorder
) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        elsewhere = Elsewhere(store, "ours", ["a"], since=0)
        await run_cycle(Calm(), node="a")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        news = await elsewhere.news()

    service = str(recorder.spans[0].resource.attributes["service.name"])
    assert service != "ours"
    assert [cycle.node for cycle in news] == [f"a ({service})"]


async def test_what_is_older_than_the_run_is_not_told(tmp_path: Path, recorder: Recorder) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        await run_cycle(Calm(), node="far-1")
        end = max(span.end_time or 0 for span in recorder.spans)
        elsewhere = Elsewhere(store, "ours", ["a"], since=end)
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        news = await elsewhere.news()

    assert news == []


async def test_a_cycle_of_the_future_is_left_out_and_hides_no_other(
    tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        elsewhere = Elsewhere(store, "ours", [], since=0)
        await run_cycle(Calm(), node="far-1")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        await store.send(hostile(start=time.time_ns() + 3600 * 10**9), 1)
        first = await elsewhere.news()
        await store.send(hostile(start=time.time_ns() + 3600 * 10**9), 1)
        second = await elsewhere.news()

    assert [cycle.node for cycle in (*first, *second)] == ["far-1"]
    assert "more than a minute from now" in caplog.text


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, "<script>", 7, True, float("nan"), float("inf"), -1, 1 << 62, b"\xff", None, [1, "a"]],
    ids=["long", "markup", "int", "bool", "nan", "inf", "negative", "huge", "bytes", "none", "list"],
)
def test_whatever_a_sender_writes_is_a_small_cycle_of_the_right_types(value: Any) -> None:
    cycle = read_cycle(hostile(value=value))

    assert cycle is not None
    written = msgspec.json.encode(cycle)
    assert len(written) < 24_000
    assert msgspec.json.decode(written, type=type(cycle)) == cycle
    assert len(cycle.node) <= 100
    assert cycle.more == 3 * 30


def hostile(value: Any = "x", start: int = 0) -> bytes:
    """A cycle in which everything is `value`, forty times."""
    attribute = _any_value(value)
    keys = ("problem", "target", "message", "confidence", "action", "rule", "reason", "success", "error")
    spans = TracesData()
    scoped = spans.resource_spans.add().scope_spans.add()
    start = start or time.time_ns()

    def add(name: str, span_id: int, *names: str) -> None:
        span = scoped.spans.add(
            trace_id=start.to_bytes(16, "big"),
            span_id=span_id.to_bytes(8, "big"),
            parent_span_id=b"" if span_id == 1 else (1).to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 1,
        )
        for key in ("node_id", "cycle", "trigger", "reason", "skipped", "dry_run"):
            span.attributes.append(KeyValue(key=key, value=attribute))
        for event in names:
            for _ in range(40):
                span.events.append(
                    Span.Event(name=event, attributes=[KeyValue(key=key, value=attribute) for key in keys])
                )

    add("mape_k.cycle", 1)
    add("mape_k.analyze", 2, "finding")
    add("mape_k.plan", 3, "option.chosen", "option.rejected")
    add("mape_k.execute", 4, "action")
    add("mape_k.knowledge", 5, "insight")
    return spans.SerializeToString()


def _any_value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            several = AnyValue()
            several.array_value.values.extend(_any_value(each) for each in value)
            return several
    return AnyValue()


def trace_id(cycle: Cycle) -> str:
    assert cycle.span_context is not None
    return f"{cycle.span_context.trace_id:032x}"
