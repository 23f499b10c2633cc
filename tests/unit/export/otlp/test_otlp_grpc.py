"""What the gRPC exporter reads from its arguments and its environment, and what a status means to it."""

from __future__ import annotations

import logging

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import DebugInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.errors import ConfigError
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from mapek_runtime.export.otlp.grpc_status import CallFailed, failure, read_retry_delay
from mapek_runtime.export.otlp.grpc_target import read_target


@pytest.mark.parametrize(
    ("endpoint", "address", "secure"),
    [
        ("http://host:1", "host:1", False),
        ("https://host:1", "host:1", True),
        ("HTTPS://host:1/", "host:1", True),
        ("http://host", "host:4317", False),
        ("https://[::1]:1", "[::1]:1", True),
        ("host:1", "host:1", True),
        ("dns:///host:1", "dns:///host:1", True),
        ("unix:///run/otlp.sock", "unix:///run/otlp.sock", False),
        ("unix:otlp.sock", "unix:otlp.sock", False),
    ],
)
def test_every_form_of_an_endpoint(endpoint: str, address: str, secure: bool) -> None:
    target = read_target(endpoint, None)

    assert (target.address, target.secure) == (address, secure)


@pytest.mark.parametrize("insecure", [True, False])
def test_a_scheme_comes_before_the_insecure_setting(insecure: bool) -> None:
    assert not read_target("http://host:1", insecure).secure
    assert read_target("https://host:1", insecure).secure
    assert read_target("host:1", insecure).secure is not insecure
    assert read_target("unix:otlp.sock", insecure).secure is not insecure


def test_the_default_is_the_port_of_otlp_on_this_machine() -> None:
    assert OTLPGrpcSpanExporter().endpoint == "http://localhost:4317"


def test_signal_specific_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    assert OTLPGrpcSpanExporter().endpoint == "http://general:1"

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces:2")
    assert not read_target(None, None).secure

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "False")
    assert read_target(None, None).secure
    assert OTLPGrpcSpanExporter("http://argument:3").endpoint == "http://argument:3"


def test_an_insecure_variable_that_says_neither_warns_and_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "perhaps")

    assert read_target("host:1", None).secure
    assert "'perhaps'" in caplog.text


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://user:hunter2@host:1",
        "https://host:1/hunter2",
        "http://host:1?key=hunter2",
        "user:hunter2@host:1",
    ],
)
def test_what_grpc_has_no_place_for_is_ignored_with_a_warning_that_does_not_repeat_it(
    endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = read_target(endpoint, None)

    assert target.address == "host:1"
    assert "ignored" in caplog.text
    assert "hunter" not in caplog.text + target.shown


@pytest.mark.parametrize("endpoint", ["http://", "http://user:hunter2@[bad", "http://host:x", "a b:1", " @"])
def test_an_endpoint_that_cannot_be_read_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="unix:///path") as caught:
        OTLPGrpcSpanExporter(endpoint)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "headers", [{"x y": "v"}, {"grpc-timeout": "1S"}, {"x": "hünter2"}, [("x", "a\nhunter2")], "x=hunter2"]
)
def test_headers_that_grpc_would_refuse_are_refused_at_once(headers: object) -> None:
    with pytest.raises(ConfigError) as caught:
        OTLPGrpcSpanExporter(headers=headers)  # type: ignore[arg-type]

    assert "nter2" not in str(caught.value)


def test_headers_of_the_environment_that_grpc_would_refuse_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-good=1,x-bad=h%C3%BCnter2")
    with caplog.at_level(logging.WARNING):
        OTLPGrpcSpanExporter()

    assert "x-bad" in caplog.text
    assert "nter2" not in caplog.text


def trailers(*details: object) -> list[tuple[str, str | bytes]]:
    status = Status(code=14)
    for detail in details:
        packed = Packed()
        packed.Pack(detail)  # type: ignore[arg-type]
        status.details.append(packed)
    return [("other", "text"), ("grpc-status-details-bin", status.SerializeToString())]


@given(st.integers(0, 1_000_000), st.integers(0, 999_999_999))
def test_a_retry_info_gives_its_delay(seconds: int, nanos: int) -> None:
    info = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))

    assert read_retry_delay(trailers(DebugInfo(), info)) == pytest.approx(seconds + nanos / 1e9)


def test_a_retry_info_that_names_no_time_says_now() -> None:
    assert read_retry_delay(trailers(RetryInfo())) == 0
    assert read_retry_delay(trailers(RetryInfo(retry_delay=Duration(seconds=-5)))) == 0


@given(st.binary())
def test_details_that_hold_no_retry_info_say_nothing(noise: bytes) -> None:
    assert read_retry_delay(trailers(DebugInfo())) is None
    assert read_retry_delay([]) is None
    found = read_retry_delay([("grpc-status-details-bin", noise)])
    assert found is None or found >= 0


@given(st.text("abc", min_size=4), st.text("123"), st.text("123"))
def test_what_the_collector_repeats_of_a_secret_is_cut_out(secret: str, before: str, after: str) -> None:
    failed = CallFailed("UNAVAILABLE", 14, before + secret + after)

    told = str(failure("where", failed, [secret]))

    assert secret not in told
    assert told == f"where: UNAVAILABLE: '{before}***{after}'"


def test_an_error_is_short() -> None:
    assert len(str(failure("where", CallFailed("INTERNAL", 13, "x" * 100_000)))) < 500
