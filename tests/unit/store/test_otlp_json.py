"""OTLP as JSON: what is written, and what is read."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from mapek_runtime.store.framing import join
from mapek_runtime.store.otlp_json import from_json, pieces, to_json


def read(**span: Any) -> Span:
    text = msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    request, problems = from_json(text)
    assert problems == []
    assert ExportTraceServiceRequest.FromString(join(pieces(text, []))) == request
    return request.resource_spans[0].scope_spans[0].spans[0]


def value(content: Any) -> AnyValue:
    return read(attributes=[{"key": "k", "value": content}]).attributes[0].value


def test_a_span_is_written_as_otlp_has_it() -> None:
    data = TracesData()
    under = data.resource_spans.add(schema_url="https://schema/1")
    under.resource.attributes.add(key="service.name").value.string_value = "x0tta6bl4"
    within = under.scope_spans.add()
    within.scope.name = "loop"
    span = within.spans.add(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        parent_span_id=b"\xff" * 8,
        name="mape_k.cycle",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=(1 << 64) - 1,
        flags=257,
    )
    span.status.code = Status.STATUS_CODE_ERROR
    span.attributes.add(key="n").value.int_value = -5
    span.attributes.add(key="b").value.bytes_value = b"\xfb\xff"
    span.attributes.add(key="d").value.double_value = math.inf
    span.attributes.add(key="a").value.array_value.values.add().bool_value = False
    span.links.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)

    assert to_json(data.SerializeToString()) == {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "x0tta6bl4"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "loop"},
                        "spans": [
                            {
                                "traceId": "000102030405060708090a0b0c0d0e0f",
                                "spanId": "0001020304050607",
                                "parentSpanId": "ffffffffffffffff",
                                "name": "mape_k.cycle",
                                "kind": 2,
                                "startTimeUnixNano": "18446744073709551615",
                                "flags": 257,
                                "status": {"code": 2},
                                "attributes": [
                                    {"key": "n", "value": {"intValue": "-5"}},
                                    {"key": "b", "value": {"bytesValue": "+/8="}},
                                    {"key": "d", "value": {"doubleValue": "Infinity"}},
                                    {"key": "a", "value": {"arrayValue": {"values": [{"boolValue": False}]}}},
                                ],
                                "links": [{"traceId": "01" * 16, "spanId": "02" * 8}],
                            }
                        ],
                    }
                ],
                "schemaUrl": "https://schema/1",
            }
        ]
    }


def test_ids_are_hexadecimal_in_any_case() -> None:
    span = read(traceId="ABCDEFabcdef00112233445566778899", spanId="eEe19B7EC3c1b174")

    assert span.trace_id.hex() == "abcdefabcdef00112233445566778899"
    assert span.span_id.hex() == "eee19b7ec3c1b174"


@pytest.mark.parametrize("number", [1700000000000000001, "1700000000000000001"])
def test_integers_are_numbers_or_strings(number: int | str) -> None:
    assert read(startTimeUnixNano=number).start_time_unix_nano == 1700000000000000001
    assert value({"intValue": number}).int_value == 1700000000000000001


def test_a_number_with_an_exponent_may_be_an_integer() -> None:
    assert value({"intValue": 5e3}).int_value == 5000


@pytest.mark.parametrize("kind", [3, "SPAN_KIND_CLIENT"])
def test_enumerations_are_numbers_and_names_are_taken_too(kind: int | str) -> None:
    assert read(kind=kind).kind == Span.SPAN_KIND_CLIENT
    assert read(status={"code": "STATUS_CODE_ERROR"}).status.code == 2


@pytest.mark.parametrize(
    ("written", "number"),
    [(1.5, 1.5), (2, 2.0), ("1.5e3", 1500.0), ("Infinity", math.inf), ("-Infinity", -math.inf)],
)
def test_doubles_are_numbers_or_strings(written: float | str, number: float) -> None:
    assert value({"doubleValue": written}).double_value == number


def test_nan_is_a_double() -> None:
    assert math.isnan(value({"doubleValue": "NaN"}).double_value)


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_bytes_are_base64_of_either_alphabet(text: str) -> None:
    assert value({"bytesValue": text}).bytes_value == b"\xfb\xff"


def test_what_is_set_to_its_default_is_set() -> None:
    assert value({"intValue": "0"}).WhichOneof("value") == "int_value"
    assert value({"stringValue": ""}).WhichOneof("value") == "string_value"
    assert value({"boolValue": False}).WhichOneof("value") == "bool_value"
    assert value({"arrayValue": {}}).WhichOneof("value") == "array_value"
    assert value({}).WhichOneof("value") is None


def test_null_is_not_there() -> None:
    assert read(name=None, attributes=None, status=None) == Span()


def test_unknown_keys_and_those_of_proto_files_are_ignored() -> None:
    span = read(name="cycle", trace_id="1" * 32, unheardOf={"deep": [1]}, start_time_unix_nano=5)

    assert span == Span(name="cycle")


def test_the_last_of_two_equal_keys_holds() -> None:
    text = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "one", "name": "two"}]}]}]}'

    request, _ = from_json(text)

    assert request.resource_spans[0].scope_spans[0].spans[0].name == "two"


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"traceId": "xyz"}, r"spans\[0\]\.traceId is 'xyz'; ids of OTLP JSON are hexadecimal"),
        ({"traceId": "AAECAwQFBgcICQoLDA0ODw=="}, "hexadecimal, not base64"),
        ({"spanId": 5}, "spanId is 5"),
        ({"name": 5}, "name is 5; it must be a string"),
        ({"kind": "CLIENT"}, "kind is 'CLIENT'; it must be an integer"),
        ({"kind": True}, "kind is True"),
        ({"startTimeUnixNano": -1}, "startTimeUnixNano is -1"),
        ({"startTimeUnixNano": 1 << 64}, "startTimeUnixNano is"),
        ({"startTimeUnixNano": "1_000"}, "startTimeUnixNano is '1_000'"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano is 1.5"),
        ({"startTimeUnixNano": "9" * 10_000}, "must be an integer"),
        ({"flags": 1 << 32}, "flags is"),
        ({"attributes": {}}, r"attributes is {}; it must be an array"),
        ({"attributes": [None]}, r"attributes\[0\] is None; it must be an object"),
        ({"attributes": [{"key": "k", "value": {"boolValue": "true"}}]}, r"\[0\].value.boolValue is 'true'"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "nan"}}]}, "doubleValue is 'nan'"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "1e999"}}]}, "doubleValue is '1e999'"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": True}}]}, "doubleValue is True"),
        (
            {"attributes": [{"key": "k", "value": {"bytesValue": "a"}}]},
            "bytesValue is 'a'; it must be base64",
        ),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "ä==="}}]}, "it must be base64"),
        ({"status": []}, r"status is \[\]; it must be an object"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(span: dict[str, Any], message: str) -> None:
    text = msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})

    with pytest.raises(ValueError, match=message):
        from_json(text)
    with pytest.raises(ValueError, match=message):
        list(pieces(text, []))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"resourceSpans": {}}',
        b"[" * 99_999,
    ],
)
def test_what_is_no_request_is_refused_both_ways(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|resourceSpans"):
        from_json(text)
    with pytest.raises(ValueError, match=r"JSON|resourceSpans"):
        list(pieces(text, []))


def test_keys_in_the_wrong_case_are_a_problem() -> None:
    _, problems = from_json(b'{"resource_spans": [], "resourceSpans": [{"scope_spans": []}]}')

    assert [problem.split()[0] for problem in problems] == ["resource_spans", "scope_spans"]


def test_values_are_nested_as_deep_as_protobuf_has_it_and_no_deeper() -> None:
    deepest: dict[str, Any] = {"intValue": 1}
    for _ in range(47):
        deepest = {"arrayValue": {"values": [deepest]}}

    assert value(deepest).HasField("array_value")
    with pytest.raises(ValueError, match="nested deeper than 100 messages"):
        value({"arrayValue": {"values": [deepest]}})
