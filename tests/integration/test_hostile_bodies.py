"""Bodies that mean harm, to every entrance that takes one: a clear refusal, and nothing else happens."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from .hostile_edge import Victim, victim
from .stored_traces import SERVICE, a_span, request_of

pytestmark = pytest.mark.slow

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
SPAN = '{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"a"%s}'
MEBIBYTE = 1 << 20


@pytest.fixture
async def attacked(tmp_path: Path) -> AsyncIterator[Victim]:
    async with victim(tmp_path) as ready:
        yield ready


def small_request() -> bytes:
    return request_of(SERVICE, [a_span("e" * 32, "e1", "small", start=1, length=1, text="value", number=7)])


def nested_protobuf(depth: int) -> bytes:
    """A request with a span whose value is in `depth` lists; by bytes, because a message refuses so many."""
    value = AnyValue(string_value="at the bottom").SerializeToString()
    for _ in range(depth):
        value = _field(5, _field(1, value))
    span = a_span("e" * 32, "e2", "deep", start=1, length=1).SerializeToString()
    deep = span + _field(9, _field(1, b"deep") + _field(2, value))
    return _field(1, _field(2, _field(2, deep)))


def _field(number: int, content: bytes) -> bytes:
    length, size = len(content), bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes((number << 3 | 2,)) + bytes(size) + content


def bomb(size: int) -> bytes:
    """Gzip that is `size` bytes of nothing when it is unpacked, made a mebibyte at a time."""
    packer = zlib.compressobj(9, wbits=31)
    packed = [packer.compress(bytes(MEBIBYTE)) for _ in range(size // MEBIBYTE)]
    return b"".join((*packed, packer.flush()))


def in_request(span: str) -> bytes:
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}'.encode()


def attribute(value: str) -> bytes:
    return in_request(SPAN % f',"attributes":[{{"key":"k","value":{value}}}]')


JSONS: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "JSON"),
    "nul": (b"\0" * 1000, 400, "JSON"),
    "not utf-8": (b'{"resourceSpans":"\xff"}', 400, "JSON"),
    "a list": (b"[]", 400, "request"),
    "nested arrays": (b"[" * 100_000, 400, "JSON"),
    "nested unknown": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested too deeply"),
    "nested in a span": (attribute('{"arrayValue":{"values":[' * 50_000), 400, "JSON"),
    "nested values": (
        attribute('{"arrayValue":{"values":[' * 5_000 + '{"intValue":1}' + "]}}" * 5_000), 400, "nested",
    ),
    "nested to the limit": (
        attribute('{"arrayValue":{"values":[' * 30 + '{"intValue":1}' + "]}}" * 30), 200, "",
    ),
    "a million digits": (attribute('{"intValue":' + "1" * 1_000_000 + "}"), 400, ""),
    "a million digits as text": (attribute('{"intValue":"' + "1" * 1_000_000 + '"}'), 400, "integer"),
    "a million digits unknown": (b'{"a":' + b"1" * 1_000_000 + b"}", 200, ""),
    "a long fraction": (attribute('{"doubleValue":0.' + "1" * 100_000 + "}"), 200, ""),
    "a large exponent": (attribute('{"doubleValue":1e999999}'), 400, ""),
    "not a number": (attribute('{"doubleValue":NaN}'), 400, "JSON"),
    "same keys": (in_request(SPAN % (',"name":"b"' * 1000)), 200, ""),
    "same outer keys": (b'{"resourceSpans":[],"resourceSpans":[{}]}', 200, ""),
    "half a character": (in_request(SPAN % ',"traceState":"\\ud800"'), 400, "JSON"),
    "an odd id": (in_request('{"traceId":"abc","spanId":"eee19b7ec3c1b174"}'), 400, "hexadecimal"),
    "an id of base64": (in_request('{"traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"AA=="}'), 400, "hexa"),
    "an id of unicode digits": (in_request(f'{{"traceId":"{chr(0x661) * 32}","spanId":"1"}}'), 400, "hexa"),
    "a short id": (in_request('{"traceId":"abcd","spanId":"eee19b7ec3c1b174"}'), 200, "rejected"),
    "zeros": (in_request(f'{{"traceId":"{"0" * 32}","spanId":"{"0" * 16}"}}'), 200, "rejected"),
    "too many values": (b"[" + b"1," * 1_100_000 + b"1]", 413, "values"),
    "too large": (b" " * (9 * MEBIBYTE), 413, "larger"),
    "empty spans": (in_request(",".join(["{}"] * 50_000)), 200, "rejected"),
    "a time before 1970": (in_request(SPAN % ',"startTimeUnixNano":"-1"'), 400, "range"),
    "a time after all": (in_request(SPAN % ',"startTimeUnixNano":"99999999999999999999"'), 400, ""),
    "sql": (in_request(SPAN.replace('"a"', '"\'; DROP TABLE span; --"') % ""), 200, ""),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "word"), JSONS.values(), ids=JSONS)
async def test_hostile_json_is_refused(attacked: Victim, body: bytes, status: int, word: str) -> None:
    sent = await attacked.post("/v1/traces", body)
    packed = await attacked.post("/v1/traces", gzip.compress(body, 1), Content_Encoding="gzip")
    drawn = await attacked.post("/api/transform", body)
    button = await attacked.post("/page/inject", body[:16_000])

    assert (sent.status, packed.status) == (status, status), sent.body[:300]
    assert word in sent.text
    assert sent.json.keys() <= ({"code", "message"} if status != 200 else {"partialSuccess"})
    assert len(sent.body) < 1000
    assert drawn.status == status if status != 413 else drawn.status in (400, 413)
    assert button.status == 400
    assert len(button.body) < 1000


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"\xff" * 1000, "cannot be read"),
        (nested_protobuf(200), "cannot be read"),
        (nested_protobuf(20_000), "cannot be read"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cannot be read"),
        (b"\x0a\xff\xff\xff\xff\x0f", "cannot be read"),
        (b"\x0b" * 1000, "wire type"),
        (b"\x08\x01" * 1_500_000, "fields beside"),
        (_field(1, b"") * 1_200_000, "fields beside"),
        (b"\x00", "number 0"),
    ],
    ids=["ones", "deep", "deeper", "long length", "4 GiB", "groups", "fields", "resources", "field 0"],
)
async def test_hostile_protobuf_is_refused(attacked: Victim, body: bytes, word: str) -> None:
    answer = await attacked.post("/v1/traces", body, Content_Type=PROTOBUF)

    assert answer.status == 400
    assert word in Status.FromString(answer.body).message


async def test_protobuf_nested_to_the_limit_of_its_parsers_is_taken_and_read_again(attacked: Victim) -> None:
    answer = await attacked.post("/v1/traces", nested_protobuf(40), Content_Type=PROTOBUF)
    paths = (
        f"/page/trace/{'e' * 32}", f"/page/trace/{'e' * 32}/otlp", f"/api/traces/{'e' * 32}",
        f"/api/v2/traces/{'e' * 32}", "/page/search?q=" + "%7Bspan.deep%3D1%7D",
    )  # fmt: skip

    assert answer.status == 200
    assert [(await attacked.get(path)).status for path in paths] == [200] * len(paths)


async def test_spans_of_empty_fields_are_counted_and_refused(attacked: Victim) -> None:
    body = _field(1, _field(2, _field(2, b"") * 300_000))

    answer = await attacked.post("/v1/traces", body, Content_Type=PROTOBUF)

    assert answer.status == 200
    assert b"without a trace id" in answer.body


async def test_a_request_that_is_cut_off_anywhere_is_refused_or_whole(attacked: Victim) -> None:
    whole = small_request()

    for end in range(1, len(whole)):
        answer = await attacked.post("/v1/traces", whole[:end], Content_Type=PROTOBUF)
        assert answer.status == 400, end
        assert "cannot be read" in Status.FromString(answer.body).message

    assert (await attacked.get(f"/page/trace/{'e' * 32}")).status == 404


async def test_a_request_with_any_byte_changed_is_refused_or_read(attacked: Victim) -> None:
    whole = small_request()

    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        answer = await attacked.post("/v1/traces", bytes(changed), Content_Type=PROTOBUF)
        assert answer.status in (200, 400), place

    assert (await attacked.get("/page/search")).status == 200
    assert (await attacked.get("/api/v3/services")).status == 200


async def test_packed_bytes_that_are_cut_off_anywhere_are_refused(attacked: Victim) -> None:
    packed = gzip.compress(small_request(), mtime=0)

    for end in range(len(packed)):
        answer = await attacked.post(
            "/v1/traces", packed[:end], Content_Type=PROTOBUF, Content_Encoding="gzip"
        )
        assert answer.status == 400, end


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(MEBIBYTE, id="1 MiB"),
        pytest.param(65 * MEBIBYTE, id="65 MiB"),
        pytest.param(1024 * MEBIBYTE, id="1 GiB", marks=pytest.mark.slow),
    ],
)
async def test_what_packs_very_much_is_unpacked_up_to_the_limit(attacked: Victim, size: int) -> None:
    packed = await asyncio.to_thread(bomb, size)
    twice = gzip.compress(packed)
    members = bomb(MEBIBYTE) * 100

    alone = await attacked.post("/v1/traces", packed, Content_Type=PROTOBUF, Content_Encoding="gzip")
    nested = await attacked.post("/v1/traces", twice, Content_Type=PROTOBUF, Content_Encoding="gzip")
    listed = await attacked.post("/v1/traces", twice, Content_Type=PROTOBUF, Content_Encoding="gzip, gzip")
    many = await attacked.post("/v1/traces", members, Content_Type=PROTOBUF, Content_Encoding="gzip")
    json_ = await attacked.post("/v1/traces", packed, Content_Encoding="gzip")
    elsewhere = await attacked.post("/api/transform", packed, Content_Encoding="gzip")

    assert alone.status == (400 if size == MEBIBYTE else 413)
    assert nested.status == 400
    assert listed.status == 415
    assert many.status == 413
    assert json_.status == (400 if size == MEBIBYTE else 413)
    assert elsewhere.status == 400


@pytest.mark.slow
async def test_spans_of_megabytes_come_a_few_at_a_time_and_all_of_them(attacked: Victim) -> None:
    text = "x" * 3_000_000
    for number in range(1, 25):
        span = a_span("d" * 32, f"{number:x}", "large", start=number, length=1, text=text)
        await attacked.store.send(request_of(SERVICE, [span]), 1)

    numbers: list[int] = []
    while len(numbers) < 24:
        page = await attacked.get(f"/page/trace/{'d' * 32}?offset={len(numbers)}")
        spans = page.json["spans"]
        assert 0 < len(spans) < 24
        assert len(page.body) < 40 * MEBIBYTE
        numbers += [int(span["span_id"], 16) for span in spans]
    file = await attacked.get(f"/page/trace/{'d' * 32}/otlp")
    jaeger = await attacked.get(f"/api/traces/{'d' * 32}")

    assert numbers == list(range(1, 25))
    assert file.body.count(b'"spanId"') == 24
    assert "24 spans" in jaeger.json["data"][0]["warnings"][0]


@pytest.mark.slow
async def test_what_stands_at_each_span_cannot_make_an_answer_of_any_size(attacked: Victim) -> None:
    # A scope of 200 kB over ten thousand spans: two gigabytes of Jaeger's JSON.
    spans = ",".join(f'{{"traceId":"{"d" * 32}","spanId":"{number:016x}"}}' for number in range(1, 10_000))
    scope = f'{{"name":"{"s" * 200_000}"}}'
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"scope":{scope},"spans":[{spans}]}}]}}]}}'.encode()

    answer = await attacked.post("/api/transform", body)

    assert answer.status == 200
    assert len(answer.body) < 140 * MEBIBYTE
    assert b"spans are left out" in answer.body[-1000:]


@pytest.mark.slow
async def test_names_that_are_another_one_each_time_make_no_answer_of_any_size(attacked: Victim) -> None:
    spans = [a_span("d" * 32, f"{n + 1:x}", f"GET /users/{n}", start=n, length=1) for n in range(12_000)]
    await attacked.store.send(request_of("gateway", spans), len(spans))

    page = (await attacked.get("/page/services")).json["services"]
    jaeger = (await attacked.get("/api/v3/operations?service=gateway")).json["operations"]
    latencies = await attacked.get("/page/latencies?service=gateway")

    assert sum(len(each["operations"]) for each in page) == 10_000
    assert len(jaeger) == 10_000
    # One more name is known of this service.
    assert len(latencies.json["series"]) == 12_001


async def test_a_resource_of_megabytes_is_refused(attacked: Victim) -> None:
    body = request_of(SERVICE, [a_span("d" * 32, "d1", "a", start=1, length=1)], large="x" * MEBIBYTE)

    answer = await attacked.post("/v1/traces", body, Content_Type=PROTOBUF)

    assert answer.status == 400
    assert "Resource has" in Status.FromString(answer.body).message


async def test_large_values_come_back_bounded(attacked: Victim) -> None:
    # A resource and a scope stand at each span on the page: small requests could make huge answers.
    spans = [a_span("d" * 32, f"{n + 1:x}", "n" * 1000, start=n, length=1) for n in range(3_000)]
    await attacked.store.send(request_of("s" * 1000, spans, large="x" * 200_000), len(spans))

    page = await attacked.get(f"/page/trace/{'d' * 32}")
    durations = await attacked.get("/page/durations?limit=20000")
    search = await attacked.get("/page/search?limit=200")
    jaeger = await attacked.get(f"/api/traces/{'d' * 32}")

    assert [each.status for each in (page, durations, search, jaeger)] == [200] * 4
    assert len(page.body) < 70 * MEBIBYTE
    assert 0 < len(page.json["spans"]) < page.json["total"] == 3_000
    assert max(map(len, (durations.body, search.body, jaeger.body))) < 20 * MEBIBYTE


@pytest.mark.parametrize("path", ["/page/inject", "/page/clear", "/page/halt", "/page/resume"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 16_000, 400),
        (b'{"number":' + b"9" * 10_000 + b"}", 400),
        (b'{"kind":' + b'{"a":' * 2_000 + b"}" * 2_000 + b"}", 400),
        (b'{"reason":"\\ud800"}', 400),
        (b"\xff\xfe", 400),
        (b"x" * 20_000, 413),
        (b"x" * 100_000, 413),
        (b'{"__class__":1}', 400),
        (b'{"kind":"a","target":"b","seconds":-1e400}', 400),
    ],
)
async def test_hostile_buttons_are_refused(attacked: Victim, path: str, body: bytes, status: int) -> None:
    answer = await attacked.post(path, body)

    assert answer.status == status
    assert answer.json["error"]
    assert len(answer.body) < 1000


async def test_a_refusal_of_the_server_is_in_the_words_of_the_protocol(attacked: Victim) -> None:
    foreign = {"Origin": "https://evil.example", "Content_Type": PROTOBUF}

    protobuf = await attacked.post("/v1/traces", b"", **foreign)
    json_ = await attacked.post("/v1/traces", b"", Origin="https://evil.example")

    assert (protobuf.status, json_.status) == (403, 403)
    assert protobuf.headers["Content-Type"] == PROTOBUF
    assert Status.FromString(protobuf.body).code == json.loads(json_.body)["code"] == 7
    assert Status.FromString(protobuf.body).message == json_.json["message"]
