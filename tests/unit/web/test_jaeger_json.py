"""Spans of OTLP as Jaeger's JSON: the unusual ones."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.store.framing import slices
from mapek_runtime.web.jaeger_json import jaeger_traces


def read(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    return [json.loads(trace.encode()) for trace in jaeger_traces(slices(request.SerializeToString()))]


def request_with(*spans: Span, service: str | None = "s") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_service = request.resource_spans.add()
    if service is not None:
        of_service.resource.attributes.add(key="service.name").value.string_value = service
    of_service.scope_spans.add().spans.extend(spans)
    return request


def a_span(number: int = 1, trace: int = 1) -> Span:
    return Span(trace_id=trace.to_bytes(16), span_id=number.to_bytes(8), name="work")


def test_nothing_is_no_trace() -> None:
    assert read(ExportTraceServiceRequest()) == []


def test_a_resource_without_a_name_has_the_name_of_the_specification() -> None:
    (trace,) = read(request_with(a_span(), service=None))

    assert trace["processes"] == {"p1": {"serviceName": "unknown_service", "tags": []}}


def test_spans_of_several_traces_are_several_traces_in_order() -> None:
    traces = read(request_with(a_span(1, 7), a_span(2, 3), a_span(3, 7)))

    assert [int(trace["traceID"], 16) for trace in traces] == [7, 3]
    assert [len(trace["spans"]) for trace in traces] == [2, 1]


def test_the_same_process_is_there_once_however_often_it_is_sent() -> None:
    request = request_with(a_span(1))
    request.MergeFrom(request_with(a_span(2)))
    request.MergeFrom(request_with(a_span(3), service="other"))

    (trace,) = read(request)

    assert [span["processID"] for span in trace["spans"]] == ["p1", "p1", "p2"]
    assert {key: each["serviceName"] for key, each in trace["processes"].items()} == {
        "p1": "s",
        "p2": "other",
    }


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")], ids=str
)
def test_numbers_that_json_has_no_word_for_are_text(value: float, text: str) -> None:
    span = a_span()
    span.attributes.add(key="x").value.double_value = value

    (trace,) = read(request_with(span))

    assert {"key": "x", "type": "string", "value": text} in trace["spans"][0]["tags"]


def test_values_within_values_are_json_in_text() -> None:
    span = a_span()
    inner = span.attributes.add(key="x").value.kvlist_value.values.add(key="list").value.array_value
    inner.values.add().int_value = 5
    inner.values.add().bytes_value = b"\xff"
    span.attributes.add(key="nothing")

    (trace,) = read(request_with(span))

    tags = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]}
    assert tags["x"] == '{"list":[5,"/w=="]}'
    assert tags["nothing"] == ""


@pytest.mark.parametrize(
    ("number", "written"),
    [((1 << 53) - 1, (1 << 53) - 1), (1 << 53, str(1 << 53)), (-(1 << 63), str(-(1 << 63)))],
)
def test_numbers_that_javascript_would_change_are_text(number: int, written: int | str) -> None:
    span = a_span()
    span.attributes.add(key="x").value.int_value = number

    (trace,) = read(request_with(span))

    assert {"key": "x", "type": "int64", "value": written} in trace["spans"][0]["tags"]


def test_a_parent_of_zeros_is_none() -> None:
    span = a_span()
    span.parent_span_id = bytes(8)

    (trace,) = read(request_with(span))

    assert trace["spans"][0]["references"] == []


@given(st.text(), st.text(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_any_text_and_any_time_is_read_back(name: str, value: str, start: int, end: int) -> None:
    span = a_span()
    span.name, span.start_time_unix_nano, span.end_time_unix_nano = name, start, end
    span.attributes.add(key=name).value.string_value = value

    ((written,),) = [trace["spans"] for trace in read(request_with(span))]

    assert written["operationName"] == name
    assert written["tags"][0] == {"key": name, "type": "string", "value": value}
    assert (written["startTime"], written["duration"]) == (start // 1000, max(0, end - start) // 1000)
