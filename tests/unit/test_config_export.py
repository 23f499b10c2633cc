"""Where spans go, as variables and files say it: names, addresses, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.config import (
    Configuration,
    CopySettings,
    ExportSettings,
    SpoolSettings,
    decode,
    leaves,
    read_sources,
    without_secrets,
)
from mapek_runtime.errors import ConfigError

BASE, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def read(**variables: str) -> Configuration:
    return decode(read_sources(environ=variables))


def in_file(tmp_path: Path, text: str, **variables: str) -> Configuration:
    file = tmp_path / "mapek.toml"
    file.write_text(text)
    return decode(read_sources(file=file, environ=variables))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("otlp", ("otlp",)),
        ("OTLP", ("otlp",)),
        (" otlp-sdk , Console,memory", ("otlp-sdk", "console", "memory")),
        ("otlp,otlp,", ("otlp",)),
        ("none", ("none",)),
        ("", ("auto",)),
    ],
)
def test_the_variable_takes_a_list_of_names_in_any_case(text: str, names: tuple[str, ...]) -> None:
    configuration = read(OTEL_TRACES_EXPORTER=text)

    assert configuration.settings.export.exporters == names
    assert configuration.warnings == ()


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("zipkin,otlp", ("otlp",), "'zipkin'"),
        ("zipkin", ("auto",), "a collector that speaks Zipkin"),
        ("jaeger", ("auto",), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("otlp/stdout", ("auto",), "console"),
        ("logging", ("auto",), "console"),
        ("otlp_proto_grpc", ("auto",), "otlp-sdk, with OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        ("consol", ("auto",), "did you mean console?"),
        ("pigeon", ("auto",), "it must be of otlp, otlp-sdk, console, memory or none"),
        ("none,otlp", ("otlp",), "it must stand alone"),
    ],
)
def test_a_name_in_the_variable_that_is_not_known_is_told_and_ignored(
    text: str, names: tuple[str, ...], said: str
) -> None:
    configuration = read(OTEL_TRACES_EXPORTER=text)

    (warning,) = configuration.warnings
    assert warning.startswith("OTEL_TRACES_EXPORTER names ")
    assert said in warning
    assert configuration.settings.export.exporters == names


@pytest.mark.parametrize(
    ("written", "names"),
    [('"otlp"', ("otlp",)), ('["otlp", "console"]', ("otlp", "console")), ('["auto"]', ("auto",))],
)
def test_a_file_names_one_exporter_or_a_list(written: str, names: tuple[str, ...], tmp_path: Path) -> None:
    settings = in_file(tmp_path, f"[export]\nexporter = {written}").settings

    assert settings.export.exporters == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zipkin", "MAPEK_EXPORT_EXPORTER is 'zipkin'; it must be one of 'auto', 'console'"),
        ("otlp,zipkin", "MAPEK_EXPORT_EXPORTER is 'otlp,zipkin'"),
        ("otlp,none", "'none' must stand alone"),
        ("[]", "MAPEK_EXPORT_EXPORTER: [export]: exporter is an empty list"),
    ],
)
def test_a_wrong_name_in_our_own_variable_stops_the_start(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(MAPEK_EXPORT_EXPORTER=text)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "protocol", "said"),
    [
        ({}, "http/protobuf", ""),
        ({PROTOCOL: "GRPC"}, "grpc", ""),
        ({PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, "http/protobuf", ""),
        ({PROTOCOL: "http/json"}, "http/protobuf", "http/protobuf is used"),
        ({PROTOCOL: "udp"}, "http/protobuf", "it must be http/protobuf or grpc"),
        ({PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, "grpc", "TRACES_PROTOCOL is 'udp'"),
    ],
    ids=["unset", "grpc", "traces win", "json", "wrong", "wrong for traces"],
)
def test_the_protocol_is_the_variables(environ: dict[str, str], protocol: str, said: str) -> None:
    configuration = read(**environ)

    assert configuration.settings.export.protocol == protocol
    assert len(configuration.warnings) == bool(said)
    assert said in "".join(configuration.warnings)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({BASE: "http://a:4318/base/"}, "http://a:4318/base/v1/traces"),
        ({BASE: "http://a:4318?key=1"}, "http://a:4318/v1/traces?key=1"),
        ({BASE: "http://a", TRACES: "http://b/in"}, "http://b/in"),
        ({BASE: "unix:///run/a.sock"}, "unix:///run/a.sock"),
        ({BASE: "http://a:4317", PROTOCOL: "grpc"}, "http://a:4317"),
        ({BASE: "a:4317", PROTOCOL: "grpc"}, "https://a:4317"),
        ({BASE: "a:4317", PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_INSECURE": "True"}, "http://a:4317"),
        ({BASE: "[::1]:4317", PROTOCOL: "grpc"}, "https://[::1]:4317"),
        ({BASE: "http://a:4317", "MAPEK_EXPORT_PROTOCOL": "grpc"}, "http://a:4317"),
    ],
)
def test_the_address_is_read_as_the_protocol_asks(environ: dict[str, str], endpoint: str) -> None:
    configuration = read(**environ)

    assert configuration.settings.export.endpoint == endpoint
    assert configuration.warnings == ()


def test_the_protocol_of_the_file_decides_about_the_address_of_a_variable(tmp_path: Path) -> None:
    settings = in_file(tmp_path, '[export]\nprotocol = "grpc"', **{BASE: "http://a:4317"}).settings

    assert settings.export.endpoint == "http://a:4317"


SECRET = "hunter2"
SECRETS: dict[str, dict[str, str]] = {
    "no address": {"MAPEK_EXPORT_ENDPOINT": f"user:{SECRET}@host:4318"},
    "a sign in the password": {"MAPEK_EXPORT_ENDPOINT": f"htp://user:a/{SECRET}@host:4318"},
    "of a copy": {"MAPEK_EXPORT_COPIES": f"http://a/,htp://user:{SECRET}@host:4318"},
    "a header of a copy": {"MAPEK_EXPORT_COPIES": f'[{{endpoint = "x", headers = {{a = "{SECRET}"}}}}]'},
    "not TOML": {"MAPEK_EXPORT_COPIES": f'[{{endpoint = "x", headers = {{a = "{SECRET}"'},
}


@pytest.mark.parametrize("environ", SECRETS.values(), ids=SECRETS.keys())
def test_what_an_address_keeps_secret_stands_in_no_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**environ)

    (name,) = environ
    assert name in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        f'endpoint = "htp://user:{SECRET}@host"',
        f'copies = ["http://a", "htp://user:{SECRET}@host"]',
        f'copies = [{{endpoint = "http://a", header = {{a = "{SECRET}"}}}}]',
        f'copies = [{{endpoint = "x", headers = {{a = "{SECRET}"}}}}]',
    ],
)
def test_nor_in_the_error_about_a_file(written: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        in_file(tmp_path, f"[export]\n{written}")

    assert str(caught.value).startswith(str(tmp_path))
    assert SECRET not in str(caught.value)


def test_nor_in_the_warning_about_a_variable_of_opentelemetry() -> None:
    configuration = read(**{BASE: f"user:{SECRET}@collector:4318"})

    (warning,) = configuration.warnings
    assert "'collector:4318'" in warning
    assert SECRET not in warning


def test_what_is_shown_of_addresses_and_copies_has_no_secret() -> None:
    copies = (
        f"http://user:{SECRET}@b/in?key={SECRET}",
        CopySettings(endpoint=f"http://u:{SECRET}@c", headers={"key": SECRET}),
    )
    known = {leaf.path: leaf for leaf in leaves(ExportSettings)}

    shown = known["copies"].shown(copies)

    assert shown == ["http://b/in", {"endpoint": "http://c", "headers": "(secret)"}]
    assert known["endpoint"].shown(f"https://u:{SECRET}@host/in#x") == "https://host/in"


@given(
    user=st.text(st.characters(codec="utf-8"), max_size=8),
    where=st.sampled_from(["http://{}@host/v1", "{}@host", "https://host/in?{}", "http://host#{}"]),
)
def test_no_part_of_a_secret_is_left_of_an_address(user: str, where: str) -> None:
    secret = "\N{SNOWMAN}"

    assert secret not in without_secrets(where.format(f"{user}:{secret}{user}"))


def test_copies_are_addresses_or_tables(tmp_path: Path) -> None:
    text = """
    [[export.copies]]
    endpoint = "http://b:4317"
    protocol = "grpc"
    headers = { x-key = "k" }
    """
    by_variable = read(MAPEK_EXPORT_COPIES="http://a:4318/v1/traces, http://b:4318/v1/traces").settings.export

    assert by_variable.copies == ("http://a:4318/v1/traces", "http://b:4318/v1/traces")
    assert in_file(tmp_path, text).settings.export.copies == (
        CopySettings(endpoint="http://b:4317", protocol="grpc", headers={"x-key": "k"}),
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MAPEK_SPOOL_MAX_BYTES": "-1"}, "a whole number from 8388608"),
        ({"MAPEK_SPOOL_MAX_AGE": "0"}, "a number above 0"),
        ({"MAPEK_SPOOL_FSYNC": "yes"}, "one of 'always', 'never', 'segment'"),
        ({"MAPEK_SPOOL_ENABLED": "maybe"}, "true or false or unset"),
        ({"MAPEK_SPOOL_RATE": "0"}, "a whole number from 1"),
    ],
)
def test_a_spool_that_cannot_be_is_refused(environ: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**environ)

    assert said in str(caught.value)
    assert str(caught.value).startswith(next(iter(environ)))


def test_the_spool_is_neither_on_nor_off_until_somebody_says_so() -> None:
    assert read().settings.spool == SpoolSettings()
    assert SpoolSettings().enabled is None
