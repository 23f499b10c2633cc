"""What an answer over HTTP means, for every status and any body."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.otlp.http_answer import check_answer
from mapek_runtime.export.otlp.options import MAX_RESPONSE_BYTES

WHERE = "http://host/v1/traces"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
REJECTED = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=7, error_message="too old")
).SerializeToString()


@given(
    st.integers(100, 599),
    st.sampled_from(["application/x-protobuf", "application/json", "text/html", "", "x/y; charset=z"]),
    st.sampled_from(["", "identity", "gzip", "deflate", "br"]),
    st.binary(max_size=200),
)
def test_any_answer_is_a_success_a_refusal_or_a_failure(
    status: int, kind: str, encoding: str, body: bytes
) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    if 200 <= status <= 299:
        with suppress(TransportRejected):
            check_answer(WHERE, status, headers, body)
        return
    with pytest.raises(TransportError) as caught:
        check_answer(WHERE, status, headers, body)

    assert caught.value.status_code == status
    assert caught.value.error_type == str(status)
    assert caught.value.retryable is (status in {429, 502, 503, 504})


@pytest.mark.parametrize("kind", ["application/x-protobuf", "Application/X-Protobuf; charset=x", ""])
def test_refused_spans_are_found_in_protobuf(kind: str) -> None:
    with pytest.raises(TransportRejected, match="refused 7 spans: 'too old'"):
        check_answer(WHERE, 200, {"Content-Type": kind}, REJECTED)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_refused_spans_are_found_in_an_answer_that_was_compressed_unasked(compress: object) -> None:
    assert callable(compress)
    encoding = "gzip" if compress is gzip.compress else "deflate"

    with pytest.raises(TransportRejected):
        check_answer(WHERE, 200, PROTOBUF | {"Content-Encoding": encoding}, compress(REJECTED))


def test_a_small_answer_that_unfolds_beyond_the_limit_is_final() -> None:
    bomb = gzip.compress(bytes(MAX_RESPONSE_BYTES + 1))

    with pytest.raises(TransportError, match="over the limit of 4194304 bytes") as caught:
        check_answer(WHERE, 200, PROTOBUF | {"Content-Encoding": "gzip"}, bomb)

    assert len(bomb) < 10_000
    assert (caught.value.error_type, caught.value.retryable) == ("response_too_large", False)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/x-protobuf", Status(message="quota\nover").SerializeToString(), ": 'quota\\nover'"),
        ("application/json", b'{"code": 8, "message": "quota over"}', ": 'quota over'"),
        ("application/json", b"[", ""),
        ("application/x-protobuf", b"\xff", ""),
        ("text/html", b"<b>anything may stand here</b>", ""),
    ],
)
def test_a_failure_says_what_the_status_message_says_and_nothing_else(
    kind: str, body: bytes, said: str
) -> None:
    with pytest.raises(TransportError) as caught:
        check_answer(WHERE, 400, {"Content-Type": kind}, body)

    assert str(caught.value) == f"{WHERE} answered 400{said}"


def test_a_web_page_with_200_is_told_and_not_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    where = "http://a-web-page/v1/traces"
    for _ in range(3):
        check_answer(where, 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>")

    (line,) = caplog.messages
    assert line.startswith(f"{where} answered 200 with a web page; is it a collector?")
