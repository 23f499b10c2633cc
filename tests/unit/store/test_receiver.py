"""What becomes of the body of a request."""

from __future__ import annotations

import gzip
import os

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mapek_runtime.store import inflate, receiver
from mapek_runtime.store.otlp_json import to_json
from mapek_runtime.store.receiver import JSON, PROTOBUF, Received, Refused, receive


def request(spans: int = 3, **fields: bytes) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    under = message.resource_spans.add()
    under.resource.attributes.add(key="service.name").value.string_value = "x0tta6bl4"
    within = under.scope_spans.add()
    for number in range(spans):
        ids = {"trace_id": os.urandom(16), "span_id": os.urandom(8)}
        within.spans.add(name=f"span {number}", **ids | fields)
    return message


def refusal(body: bytes, kind: str = PROTOBUF, encoding: str = "", **limits: int) -> Refused:
    with pytest.raises(Refused) as caught:
        receive(body, kind, encoding, **limits)  # type: ignore[arg-type]
    return caught.value


def names(received: Received) -> list[str]:
    message = ExportTraceServiceRequest.FromString(received.payload)
    return [
        span.name for under in message.resource_spans for within in under.scope_spans for span in within.spans
    ]


@pytest.mark.parametrize("kind", [PROTOBUF, "Application/X-Protobuf; charset=utf-8"])
def test_a_sound_request_goes_on_as_it_came(kind: str) -> None:
    body = request(200).SerializeToString()

    received = receive(body, kind)

    assert received == Received(payload=body, accepted=200)


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8"])
def test_json_becomes_protobuf(kind: str) -> None:
    message = request(200)
    body = msgspec.json.encode(to_json(message.SerializeToString()))

    received = receive(body, kind)

    assert received.accepted == 200
    assert ExportTraceServiceRequest.FromString(received.payload) == message


def test_an_empty_request_is_one() -> None:
    assert receive(b"", PROTOBUF) == Received(payload=b"", accepted=0)
    assert receive(b"{}", JSON) == Received(payload=b"", accepted=0)
    assert receive(b'{"resourceSpans": null}', JSON).accepted == 0


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace_id_missing"),
        ({"trace_id": bytes(16)}, "trace_id_zero"),
        ({"trace_id": b"1" * 15}, "trace_id_length"),
        ({"span_id": b""}, "span_id_missing"),
        ({"span_id": bytes(8)}, "span_id_zero"),
        ({"span_id": b"1" * 9}, "span_id_length"),
    ],
)
def test_spans_without_valid_ids_are_rejected_and_the_others_kept(
    kind: str, fields: dict[str, bytes], reason: str
) -> None:
    message = request(100)
    bad = message.resource_spans[0].scope_spans[0].spans[70]
    for name, value in fields.items():
        setattr(bad, name, value)
    body = message.SerializeToString()

    received = receive(msgspec.json.encode(to_json(body)) if kind == JSON else body, kind)

    assert (received.accepted, received.rejected, received.reasons) == (99, 1, {reason: 1})
    assert names(received) == [f"span {number}" for number in range(100) if number != 70]
    assert received.message.startswith("1 of 100 spans were refused: 1 with")
    assert received.message.endswith("the first is number 71 of the request, 'span 70'")


def test_where_no_span_is_accepted_nothing_is_left() -> None:
    received = receive(request(3, span_id=b"").SerializeToString(), PROTOBUF)

    assert (received.payload, received.accepted, received.rejected) == (b"", 0, 3)


def test_a_span_that_would_stop_everything_is_rejected_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MAX_MESSAGE", 1 << 19)
    message = request(5)
    spans = message.resource_spans[0].scope_spans[0].spans
    spans[1].name = "n" * (1 << 20)
    spans[3].trace_id = b""

    received = receive(message.SerializeToString(), PROTOBUF)

    assert received.reasons == {"span_too_large": 1, "trace_id_missing": 1}
    assert names(received) == ["span 0", "span 2", "span 4"]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (request().SerializeToString()[:-1], PROTOBUF, "reaches"),
        (b"this is no protobuf", PROTOBUF, "cannot be read"),
        (b"", JSON, "no JSON"),
        (b"{", JSON, "no JSON"),
        (b"[]", JSON, "no request"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\xff"}]}]}]}', JSON, "no JSON"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [7]}]}]}', JSON, r"spans\[0\] is 7"),
        (b'{"resourceSpans": [{"scopeSpans": 5}]}', JSON, r"\$.resourceSpans\[0\].scopeSpans"),
        (b'{"a":' * 100_000, JSON, "nested too deeply"),
        (b'{"resourceSpans": [{"resource": {"attributes": 1}}]}', JSON, "attributes is 1"),
    ],
)
def test_what_cannot_be_read_is_a_400_that_says_what(body: bytes, kind: str, message: str) -> None:
    refused = refusal(body, kind)

    assert (refused.status, refused.code) == (400, 3)
    with pytest.raises(Refused, match=message):
        raise refused


def test_text_that_is_no_utf_8_is_a_400() -> None:
    body = request(1).SerializeToString().replace(b"span 0", b"span \xff")

    assert refusal(body).status == 400


def test_a_resource_that_cannot_be_parsed_is_a_400() -> None:
    body = request(1).SerializeToString().replace(b"x0tta6bl4", b"\xff0tta6bl4")

    assert refusal(body).status == 400


@pytest.mark.parametrize(("levels", "sound"), [(47, True), (48, False)])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_both_encodings_hold_equally_deep_values(kind: str, levels: int, sound: bool) -> None:
    message = request(1)
    value = message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="deep").value
    text = '{"intValue": 1}'
    for _ in range(levels):
        value = value.array_value.values.add()
        text = f'{{"arrayValue": {{"values": [{text}]}}}}'
    value.int_value = 1
    ids = f'"traceId": "{"1" * 32}", "spanId": "{"1" * 16}"'
    span = f'{{{ids}, "attributes": [{{"key": "k", "value": {text}}}]}}'
    body = (
        message.SerializeToString()
        if kind == PROTOBUF
        else f'{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{span}]}}]}}]}}'.encode()
    )

    if sound:
        assert receive(body, kind).accepted == 1
    else:
        assert refusal(body, kind).status == 400


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/protobuf", "application/json5", "multipart/x"]
)
def test_another_content_type_is_a_415(kind: str) -> None:
    assert refusal(b"", kind).status == 415


@pytest.mark.parametrize("encoding", ["deflate", "br", "gzip, gzip"])
def test_another_content_encoding_is_a_415(encoding: str) -> None:
    assert refusal(b"", PROTOBUF, encoding).status == 415


def test_gzip_is_unpacked_also_in_several_members() -> None:
    body = request(100).SerializeToString()
    packed = gzip.compress(body[:1000]) + gzip.compress(b"") + gzip.compress(body[1000:])

    assert receive(packed, PROTOBUF, "GZIP").payload == body
    assert receive(body, PROTOBUF, "identity").payload == body


def test_what_is_no_gzip_or_not_all_of_it_is_a_400() -> None:
    packed = gzip.compress(request(100).SerializeToString())

    for wrong in (b"", b"plain", packed[:-1], packed[:20], packed + b"rest", packed[:-5] + bytes(5)):
        assert refusal(wrong, PROTOBUF, "gzip").status == 400


def test_members_that_hold_nothing_are_limited() -> None:
    empty = gzip.compress(b"")

    assert receive(empty * inflate.MOST_MEMBERS, PROTOBUF, "gzip").accepted == 0
    assert refusal(empty * (inflate.MOST_MEMBERS + 1), PROTOBUF, "gzip").status == 400


def test_a_zip_bomb_is_a_413_and_never_more_than_the_limit_in_memory() -> None:
    bomb = gzip.compress(bytes(100 << 20), 9)
    grown: list[int] = []

    with pytest.raises(Refused) as caught:
        receive(bomb, PROTOBUF, "gzip", max_bytes=1 << 20, grow=grown.append)

    assert caught.value.status == 413
    assert sum(grown) <= 1 << 20


def test_exactly_the_limit_is_taken() -> None:
    body = request(100).SerializeToString()

    assert receive(gzip.compress(body), PROTOBUF, "gzip", max_bytes=len(body)).accepted == 100
    assert receive(body, PROTOBUF, max_bytes=len(body)).accepted == 100
    assert refusal(gzip.compress(body), PROTOBUF, "gzip", max_bytes=len(body) - 1).status == 413
    assert refusal(body, max_bytes=len(body) - 1).status == 413


def test_too_many_spans_or_values_are_a_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MAX_JSON_ITEMS", 100)

    assert refusal(request(100).SerializeToString(), max_spans=99).status == 413
    assert refusal(b'{"a": [' + b"1," * 101 + b"1]}", JSON).status == 413
    assert refusal(b" " * (receiver.MAX_JSON_BYTES + 1), JSON).status == 413


def test_where_memory_ends_the_request_ends() -> None:
    def grow(size: int) -> None:
        raise Refused(503, 14, f"no {size} bytes", retry_after=1)

    with pytest.raises(Refused) as caught:
        receive(gzip.compress(b"\0" * 100), PROTOBUF, "gzip", grow=grow)

    assert (caught.value.status, caught.value.retry_after) == (503, 1)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"resource_spans": [{}]}', "resource_spans"),
        (b'{"resourceSpans": [{"scope_spans": [1]}]}', "scope_spans"),
    ],
)
def test_keys_in_the_wrong_case_are_ignored_and_that_is_said(body: bytes, key: str) -> None:
    received = receive(body, JSON)

    assert (received.accepted, received.rejected) == (0, 0)
    assert received.message.startswith(f"{key} is ignored")
