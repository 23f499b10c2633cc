"""What both OTLP exporters read: arguments first, then the variables for traces, then the general ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression

from mapek_runtime.errors import ConfigError, TransportRejected
from mapek_runtime.export.otlp.options import (
    TlsFiles,
    raise_partial_success,
    read_compression,
    read_extra_headers,
    read_option,
    read_timeout,
    read_tls_files,
    shorten,
    user_agent,
    without_secrets,
)

GENERAL = "OTEL_EXPORTER_OTLP_"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


def test_the_variable_for_traces_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERAL + "PROTOCOL", "general")
    assert read_option("PROTOCOL") == "general"

    monkeypatch.setenv(TRACES + "PROTOCOL", "traces")
    assert read_option("PROTOCOL") == "traces"


def test_an_argument_is_in_seconds_and_a_variable_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_timeout(None) == 10
    monkeypatch.setenv(GENERAL + "TIMEOUT", "2500")
    assert read_timeout(None) == 2.5
    monkeypatch.setenv(TRACES + "TIMEOUT", "0")
    assert read_timeout(None) == 0
    assert read_timeout(0.5) == 0.5


def test_a_wrong_timeout_for_traces_leaves_the_general_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(GENERAL + "TIMEOUT", "2500")
    monkeypatch.setenv(TRACES + "TIMEOUT", "10s")

    assert read_timeout(None) == 2.5
    assert "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT is '10s'" in caplog.text


@pytest.mark.parametrize("given", [-1, float("nan"), float("inf")])
def test_a_wrong_timeout_in_an_argument_is_refused(given: float) -> None:
    with pytest.raises(ConfigError, match="0 for no limit"):
        read_timeout(given)


def test_a_timeout_that_looks_like_seconds_is_told_once_for_each_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Values that no other test uses: what was told is remembered for as long as the process lives.
    for text in ("17", "17", "18", "17", "100"):
        monkeypatch.setenv(TRACES + "TIMEOUT", text)
        read_timeout(None)

    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in told] == [TRACES + "TIMEOUT is 17", TRACES + "TIMEOUT is 18"]
    assert all("milliseconds" in line for line in told)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("gzip", "gzip"),
        ("none", "none"),
        (HttpCompression.Gzip, "gzip"),
        (HttpCompression.NoCompression, "none"),
    ],
)
def test_compression_is_a_word_or_a_member_of_the_sdks_enum(given: object, expected: str) -> None:
    assert read_compression(given) == expected


def test_another_compression_is_refused_in_an_argument_and_ignored_in_a_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="'deflate'; it must be 'gzip' or 'none'"):
        read_compression("deflate")

    monkeypatch.setenv(TRACES + "COMPRESSION", "zstd")
    assert read_compression(None) == "none"
    assert "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION is 'zstd'" in caplog.text

    monkeypatch.setenv(GENERAL + "COMPRESSION", "GZIP")
    assert read_compression(None) == "gzip"


def test_headers_come_from_the_argument_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERAL + "HEADERS", "Api-Key=general")
    assert read_extra_headers(None) == {"api-key": "general"}
    monkeypatch.setenv(TRACES + "HEADERS", "Api-Key=traces")
    assert read_extra_headers(None) == {"api-key": "traces"}
    assert read_extra_headers({"X-Mine": "yes"}) == {"x-mine": "yes"}
    assert read_extra_headers({}) == {}


@pytest.mark.parametrize(
    "headers",
    [{"x": "hunter2\r\nx-evil: 1"}, {"x y": "hunter2"}, {"": "hunter2"}, {"ü": "hunter2"}, {"x": 2}],
    ids=["two lines", "a space in the name", "no name", "a foreign name", "no text"],
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="must be text on one line") as caught:
        read_extra_headers(headers)

    assert "hunter2" not in str(caught.value)


def test_a_client_key_without_its_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no client certificate; give both"):
        read_tls_files(None, None, tmp_path / "client.key")


def test_a_tls_file_that_is_not_there_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TRACES + "CERTIFICATE", str(tmp_path / "missing.pem"))

    with pytest.raises(ConfigError, match=r"missing\.pem'.* is not there"):
        read_tls_files(None, None, None)


def test_no_tls_files_are_none() -> None:
    assert not read_tls_files(None, None, None)


def test_a_file_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("not a certificate")

    with pytest.raises(ConfigError, match=r"empty\.pem', cannot be used.*PEM"):
        TlsFiles(authority=str(tmp_path / "empty.pem")).context()


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    )
    (tmp_path / "client.key").write_bytes(key)
    (tmp_path / "client.pem").write_bytes(b"")

    with pytest.raises(ConfigError, match="must not be encrypted"):
        TlsFiles(certificate=str(tmp_path / "client.pem"), key=str(tmp_path / "client.key")).context()


def test_the_user_agent_names_us_and_what_the_specification_asks_for() -> None:
    ours, theirs = user_agent().split(" ")

    assert ours.startswith("mapek-runtime/")
    assert theirs.startswith("OTel-OTLP-Exporter-Python/")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:hunter2@host:4318/v1/traces?key=hunter2#hunter2", "http://host:4318/v1/traces"),
        ("http://hunter2@[::1]:4318", "http://[::1]:4318"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("host:4317", "host:4317"),
    ],
)
def test_an_address_is_shown_without_what_it_keeps_secret(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


def test_partial_success_raises_only_when_spans_were_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    raise_partial_success(0, "")
    assert caplog.text == ""
    raise_partial_success(0, "slow\ndown")
    assert "says: 'slow\\ndown'" in caplog.text

    with pytest.raises(TransportRejected, match="refused 3 spans: 'too old'") as caught:
        raise_partial_success(3, "too old")
    assert caught.value.rejected_spans == 3


def test_what_a_collector_says_is_cut_and_stays_on_one_line() -> None:
    assert shorten("") == ""
    assert shorten("a\nb") == "'a\\nb'"
    assert len(shorten("x" * 10_000)) < 250
