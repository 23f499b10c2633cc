"""The framing of a request: slices of it, and what they are joined to."""

from __future__ import annotations

import os

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from mapek_runtime.store import framing
from mapek_runtime.store.framing import join, slices


def field(tag: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes((tag, len(body))) + body


def request(spans: int, *, name: str = "mape_k.cycle") -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    under = message.resource_spans.add(schema_url="https://schema/1")
    under.resource.attributes.add(key="service.name").value.string_value = "x0tta6bl4"
    within = under.scope_spans.add(schema_url="https://schema/2")
    within.scope.name = "loop"
    for _ in range(spans):
        within.spans.add(trace_id=os.urandom(16), span_id=os.urandom(8), name=name)
    return message


def test_a_request_comes_in_slices_of_so_many_spans() -> None:
    message = request(150)

    pieces = list(slices(message.SerializeToString(), 64))

    assert [piece.number for piece in pieces] == [64, 64, 22]
    spans = [span for piece in pieces for span in ScopeSpans.FromString(piece.spans).spans]
    assert spans == list(message.resource_spans[0].scope_spans[0].spans)
    first = pieces[0]
    assert Resource.FromString(first.resource) == message.resource_spans[0].resource
    assert (first.resource_schema, first.scope_schema) == ("https://schema/1", "https://schema/2")
    assert all(piece.resource is first.resource and piece.scope is first.scope for piece in pieces)


def test_a_slice_ends_with_the_span_that_makes_it_large() -> None:
    message = request(6, name="n" * 1000)

    assert [piece.number for piece in slices(message.SerializeToString(), 64, size=2000)] == [2, 2, 2]


@pytest.mark.parametrize("length", [0, 100, 200, 20_000, 3_000_000])
def test_a_span_of_any_length_is_one_piece(length: int) -> None:
    message = request(3, name="n" * length)

    spans = [
        span
        for piece in slices(message.SerializeToString())
        for span in ScopeSpans.FromString(piece.spans).spans
    ]

    assert [len(span.name) for span in spans] == [length] * 3


def test_joined_slices_are_the_request_again() -> None:
    message = request(150)
    other = message.resource_spans.add().scope_spans.add()
    other.spans.add(name="without resource and scope")

    joined = join(slices(message.SerializeToString()))

    assert ExportTraceServiceRequest.FromString(joined).resource_spans[0] == message.resource_spans[0]
    assert ExportTraceServiceRequest.FromString(joined) == message


def test_fields_may_come_in_any_order_several_times_and_unknown() -> None:
    span = field(0x12, field(0x2A, b"one"))
    spans = (
        field(0x1A, b"old")
        + span
        + b"\x20\x05"  # field 4, a varint
        + b"\x92\x00\x05" + field(0x2A, b"two")  # field 2 with a tag that is longer than it need be
        + b"\x2d\0\0\0\0\x31\0\0\0\0\0\0\0\0"  # fields 5 and 6, four and eight bytes
        + field(0x1A, b"new")
        + field(0x0A, field(0x0A, b"scope"))
    )  # fmt: skip
    resource = [field(0x0A, field(0x0A, field(0x0A, key))) for key in (b"a", b"b")]
    payload = field(0x0A, resource[0] + field(0x12, spans) + resource[1]) + field(0x7A, b"unknown")

    pieces = list(slices(payload))

    names = [span.name for piece in pieces for span in ScopeSpans.FromString(piece.spans).spans]
    assert names == ["one", "two"]
    assert {piece.scope_schema for piece in pieces} == {"new"}
    assert [each.key for each in Resource.FromString(pieces[0].resource).attributes] == ["a", "b"]
    assert ExportTraceServiceRequest.FromString(join(pieces)).resource_spans[0].scope_spans[0].scope.name == (
        "scope"
    )


def test_a_request_cut_off_anywhere_is_refused() -> None:
    payload = request(2).SerializeToString()

    for length in range(1, len(payload)):
        with pytest.raises(ValueError, match="byte"):
            list(slices(payload[:length]))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x02\x00", "number 0"),
        (b"\x0a" + b"\xff" * 11, "longer than 10 bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "reaches to byte"),
        (field(0x0A, field(0x12, b"\x12\x05abc")), "reaches beyond"),
        (field(0x0A, field(0x12, b"\x12")) + b"\x0a\x00", "reaches beyond"),
        (field(0x0A, field(0x12, b"\x12\x00") + field(0x1A, b"\xff")), "utf-8"),
    ],
)
def test_broken_framing_says_where(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(slices(payload))


@pytest.mark.parametrize("outer", [b"\x0a\x00", b"\x10\x00"])
def test_fields_that_say_nothing_are_limited(outer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MOST_FIELDS", 100)

    assert list(slices(outer * 100)) == []
    with pytest.raises(ValueError, match="fields beside the spans"):
        list(slices(outer * 101))
