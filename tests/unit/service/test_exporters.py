"""Which exporters settings stand for, and what each is given."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as SdkGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as SdkHttp
from typer.testing import CliRunner

from mapek_runtime.config import CopySettings, ExportSettings
from mapek_runtime.errors import ConfigError
from mapek_runtime.export import ConsoleSpanExporter, MemorySpanExporter, OTLPSpanExporter
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from mapek_runtime.service.cli import app
from mapek_runtime.service.exporters import (
    describe_exporters,
    exporter_from_environment,
    make_exporters,
)

HTTP, GRPC = "http://localhost:4318/v1/traces", "http://localhost:4317"
OTHER = "http://other:4318/v1/traces"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "MAPEK_")):
            monkeypatch.delenv(name)


def made(**settings: Any) -> tuple[Any, ...]:
    return make_exporters(ExportSettings(**settings), io.StringIO())


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, [MemorySpanExporter]),
        ({"endpoint": HTTP}, [OTLPSpanExporter]),
        ({"endpoint": GRPC, "protocol": "grpc"}, [OTLPGrpcSpanExporter]),
        ({"exporter": "otlp"}, [OTLPSpanExporter]),
        ({"exporter": "otlp-sdk"}, [SdkHttp]),
        ({"exporter": "otlp-sdk", "protocol": "grpc"}, [SdkGrpc]),
        (
            {"exporter": ("otlp", "console", "memory")},
            [OTLPSpanExporter, ConsoleSpanExporter, MemorySpanExporter],
        ),
        ({"exporter": ("auto", "otlp"), "endpoint": HTTP}, [OTLPSpanExporter]),
        ({"exporter": "none"}, []),
        ({"exporter": "none", "copies": (OTHER,)}, []),
        ({"exporter": "console", "copies": (OTHER,)}, [ConsoleSpanExporter, OTLPSpanExporter]),
        ({"exporter": "otlp-sdk", "copies": (OTHER,)}, [SdkHttp, OTLPSpanExporter]),
        (
            {"exporter": "otlp", "copies": (CopySettings(endpoint=OTHER, protocol="grpc"),)},
            [OTLPSpanExporter, OTLPGrpcSpanExporter],
        ),
    ],
    ids=str,
)
def test_each_name_is_an_exporter(settings: dict[str, Any], kinds: list[type]) -> None:
    assert [type(exporter) for exporter in made(**settings)] == kinds


@pytest.mark.parametrize(
    ("settings", "endpoint"),
    [
        ({"exporter": "otlp"}, HTTP),
        ({"endpoint": OTHER}, OTHER),
        ({"exporter": "otlp", "protocol": "grpc"}, "localhost:4317"),
        ({"endpoint": "http://host:4317/v1/traces", "protocol": "grpc"}, "host:4317"),
    ],
    ids=str,
)
def test_it_sends_where_the_settings_say(settings: dict[str, Any], endpoint: str) -> None:
    (exporter,) = made(**settings)

    assert exporter.endpoint.removeprefix("http://") == endpoint.removeprefix("http://")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "the memory of this process"),
        ({"exporter": "none"}, "nobody"),
        (
            {"endpoint": "http://me:hunter2@host:4318/v1/traces?key=hunter2"},
            "http://host:4318/v1/traces by OTLPSpanExporter",
        ),
        (
            {"exporter": ("otlp", "console"), "protocol": "grpc"},
            "http://localhost:4317 by OTLPGrpcSpanExporter and the console",
        ),
        ({"exporter": "otlp-sdk"}, f"{HTTP} by opentelemetry's OTLPSpanExporter"),
        ({"exporter": "otlp-sdk", "protocol": "grpc"}, "localhost:4317 by opentelemetry's OTLPSpanExporter"),
    ],
    ids=str,
)
def test_a_log_line_says_where_spans_go_without_secrets(settings: dict[str, Any], words: str) -> None:
    assert describe_exporters(made(**settings)) == words


def test_a_variable_that_was_told_to_be_wrong_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")

    (exporter,) = made(exporter="otlp")

    assert exporter.endpoint == HTTP


def test_a_copy_that_names_the_first_collector_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    address = "http://user:hunter2@host:4318/v1/traces"

    exporters = made(endpoint=address, copies=(address, OTHER, OTHER))

    assert [exporter.endpoint for exporter in exporters] == ["http://host:4318/v1/traces", OTHER]
    assert caplog.text.count("left out") == 2
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
def test_the_environment_alone_describes_an_exporter(name: Any, caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4317",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        "OTEL_TRACES_EXPORTER": "pigeon",
        "MAPEK_EXPORT_PROTOCOL": "pigeon",
    }

    exporter = exporter_from_environment(name, environ)

    assert type(exporter) is (OTLPGrpcSpanExporter if name == "otlp" else SdkGrpc)
    assert caplog.text == ""


def test_what_is_wrong_there_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    exporter = exporter_from_environment("otlp", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})

    assert type(exporter) is OTLPSpanExporter
    assert "'http/json'" in caplog.text


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("name", ["otlp", "otlp-sdk"])
def test_a_certificate_that_is_not_there_stops_the_start(
    name: Any, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "missing.pem")

    with pytest.raises(ConfigError, match=r"missing\.pem"):
        made(exporter=name, protocol=protocol, endpoint="https://user:hunter2@host:4317")


def test_what_only_the_exporter_of_the_sdk_refuses_names_its_variables(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")

    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_\*"):
        made(exporter="otlp-sdk", protocol="grpc")


def test_the_sdk_has_no_unix_socket_over_http() -> None:
    with pytest.raises(ConfigError, match="use otlp, or grpc"):
        made(exporter="otlp-sdk", endpoint="unix:///run/collector.sock")


def test_a_short_timeout_is_told_once_for_the_exporter_of_the_sdk_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "17")

    with caplog.at_level(logging.WARNING):
        made(exporter="otlp-sdk")

    assert "milliseconds" in caplog.text


def test_only_the_exporter_that_is_chosen_is_loaded() -> None:
    program = (
        "import io, sys\n"
        "from mapek_runtime.config import ExportSettings\n"
        "from mapek_runtime.service.exporters import make_exporters\n"
        "make_exporters(ExportSettings(exporter='otlp'), io.StringIO())\n"
        "print(*sorted({'grpc', 'requests', 'opentelemetry.exporter'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def check(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_shows_where_spans_go_without_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPEK_EXPORT_ENDPOINT", "http://user:hunter2@host:4318/in?key=hunter2")
    monkeypatch.setenv("MAPEK_EXPORT_COPIES", '[{endpoint = "http://b:1/", headers = {key = "hunter2"}}]')

    code, out, err = check()

    assert code == 0
    assert 'export.endpoint = "http://host:4318/in"    # MAPEK_EXPORT_ENDPOINT' in out
    assert 'export.copies = [{endpoint = "http://b:1/", headers = "(secret)"}]' in out
    assert "hunter2" not in out + err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"MAPEK_EXPORT_ENDPOINT": "http://u:hunter2@host:99999/in"},
            "export.endpoint 'http://host:99999/in'",
        ),
        ({"MAPEK_SPOOL_DIRECTORY": f"{__file__}/spool"}, "MAPEK_SPOOL_DIRECTORY: there is to be a spool in"),
        (
            {"MAPEK_EXPORT_ENDPOINT": "https://h/", "OTEL_EXPORTER_OTLP_CERTIFICATE": "missing.pem"},
            "'missing.pem'",
        ),
    ],
    ids=["a port that cannot be", "a folder that cannot be", "a certificate that is not there"],
)
def test_check_finds_what_a_run_would_stumble_on(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)

    code, _, err = check()

    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("mapek: ")
    assert said in line
    assert "hunter2" not in line
