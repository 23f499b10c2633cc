"""The guide's own variables: deprecated aliases, and never stronger than the standard ones."""

from __future__ import annotations

import os

import pytest

from mapek_runtime.config import decode, read_sources
from mapek_runtime.service.legacy import environment_with, read_legacy

RATIO = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
HTTP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318"}
GRPC = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317"}
OWN_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"OTEL_ENABLED": "false"}, {"OTEL_SDK_DISABLED": "true"}),
        ({"OTEL_ENABLED": " No "}, {"OTEL_SDK_DISABLED": "true"}),
        ({"OTEL_SAMPLER_ARG": "0.1"}, RATIO),
        (
            {"OTEL_SAMPLER_ARG": "0.1", "OTEL_TRACES_SAMPLER": "traceidratio"},
            {"OTEL_TRACES_SAMPLER_ARG": "0.1"},
        ),
        ({"JAEGER_AGENT_HOST": "jaeger"}, HTTP),
        ({"JAEGER_AGENT_HOST": "jaeger", "JAEGER_AGENT_PORT": "6831"}, HTTP),
        ({"JAEGER_AGENT_HOST": "jaeger", "JAEGER_AGENT_PORT": "4318"}, HTTP),
        (
            {"JAEGER_AGENT_HOST": "jaeger", "JAEGER_AGENT_PORT": "4317"},
            GRPC | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        ),
        ({"JAEGER_AGENT_HOST": "jaeger", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GRPC),
        ({"JAEGER_AGENT_HOST": "::1"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4318"}),
        (
            {"OTEL_SAMPLER_ARG": "0.1", "OTEL_TRACES_SAMPLER": "jaeger_remote"},
            {"OTEL_TRACES_SAMPLER_ARG": "initialSamplingRate=0.1"},
        ),
        (
            {"JAEGER_AGENT_HOST": "jaeger", "OTEL_TRACES_SAMPLER": "jaeger_remote"},
            HTTP | {"OTEL_TRACES_SAMPLER_ARG": "endpoint=http://jaeger:5778"},
        ),
        (
            {
                "JAEGER_AGENT_HOST": "::1",
                "OTEL_TRACES_SAMPLER": "parentbased_jaeger_remote",
                "OTEL_TRACES_SAMPLER_ARG": "pollingIntervalMs=100",
            }
            | OWN_ENDPOINT,
            {"OTEL_TRACES_SAMPLER_ARG": "endpoint=http://[::1]:5778,pollingIntervalMs=100"},
        ),
        (
            {"JAEGER_AGENT_HOST": "jaeger", "MAPEK_SAMPLER_TYPE": "remote"},
            HTTP | {"MAPEK_SAMPLER_ENDPOINT": "http://jaeger:5778"},
        ),
    ],
)
def test_an_old_variable_is_read_as_its_successor_and_says_so_once(
    environ: dict[str, str], found: dict[str, str]
) -> None:
    standard, said = read_legacy(environ)

    assert standard == found
    assert len(said) == 1
    assert "is deprecated and read as " + " ".join(f"{k}={v}" for k, v in found.items()) in said[0]
    assert said[0].endswith("set that instead")


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"OTEL_ENABLED": "true"}, "OTEL_SDK_DISABLED=true"),
        ({"OTEL_ENABLED": "maybe"}, "must be true or false"),
        ({"OTEL_ENABLED": "false", "OTEL_SDK_DISABLED": "false"}, "OTEL_SDK_DISABLED is set"),
        ({"OTEL_SAMPLER_ARG": "10%"}, "a number from 0 to 1"),
        ({"OTEL_SAMPLER_ARG": "1.5"}, "a number from 0 to 1"),
        ({"OTEL_SAMPLER_ARG": "nan"}, "a number from 0 to 1"),
        ({"OTEL_SAMPLER_ARG": "0.1", "OTEL_TRACES_SAMPLER_ARG": "1"}, "OTEL_TRACES_SAMPLER_ARG is set"),
        ({"OTEL_SAMPLER_ARG": "0.1", "OTEL_TRACES_SAMPLER": "always_on"}, "takes no ratio"),
        ({"JAEGER_AGENT_HOST": "j"} | OWN_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT is set"),
        ({"JAEGER_AGENT_HOST": "http://j"}, "must be the name of a host"),
        ({"JAEGER_AGENT_PORT": "6831"}, "without JAEGER_AGENT_HOST"),
    ],
)
def test_an_old_variable_that_is_ignored_says_why(environ: dict[str, str], reason: str) -> None:
    standard, said = read_legacy(environ)

    assert standard == {}
    (line,) = said
    assert reason in line
    assert "ignored" in line or "says nothing" in line


def test_the_agents_host_becomes_the_address_that_spans_are_sent_to() -> None:
    standard, _ = read_legacy({"JAEGER_AGENT_HOST": "jaeger", "JAEGER_AGENT_PORT": "6831"})

    settings = decode(read_sources(environ=standard)).settings
    assert settings.export.endpoint == "http://jaeger:4318/v1/traces"


def test_another_port_is_not_used_for_another_protocol() -> None:
    standard, said = read_legacy({"JAEGER_AGENT_HOST": "jaeger", "JAEGER_AGENT_PORT": "9999"})

    assert standard == HTTP
    assert [line.partition(" ")[0] for line in said] == ["JAEGER_AGENT_PORT=9999", "JAEGER_AGENT_HOST=jaeger"]


@pytest.mark.parametrize("environ", [{}, {"OTEL_ENABLED": " ", "JAEGER_AGENT_HOST": ""}, OWN_ENDPOINT])
def test_what_is_not_set_is_not_spoken_of(environ: dict[str, str]) -> None:
    assert read_legacy(environ) == ({}, ())


def test_the_environment_is_as_before_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", " ")
    before = dict(os.environ)

    with environment_with(RATIO):
        assert {name: os.environ[name] for name in RATIO} == RATIO

    assert dict(os.environ) == before
