"""`tracing`: a provider from environment and configuration, flushed and closed on exit."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path

import pytest
from opentelemetry import propagate
from opentelemetry.sdk.resources import SERVICE_NAME

import mapek_runtime
from mapek_runtime.config import Configuration, ExportSettings, Settings, decode, read_sources
from mapek_runtime.errors import ConfigError
from mapek_runtime.export import ConsoleSpanExporter, MemorySpanExporter, OTLPSpanExporter
from mapek_runtime.loop import spans
from mapek_runtime.service.tracing import open_tracing

group = mapek_runtime.SpanGroup("testing")


@group.span
def work(number: int) -> None:
    """Something was done."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
    ):
        monkeypatch.delenv(name, raising=False)


def configuration(**variables: str) -> Configuration:
    return decode(read_sources(environ=variables))


async def test_declared_spans_are_exported_when_the_block_is_left() -> None:
    async with open_tracing(configuration(), instrument=False) as tracing:
        with work(1):
            pass
        assert tracing.statistics().exported == 0

    assert isinstance(tracing.exporter, MemorySpanExporter)
    assert [span.name for span in tracing.exporter.finished_spans] == ["testing.work"]
    assert tracing.statistics().balanced
    assert tracing.statistics().exported == 1


async def test_one_block_after_another_works() -> None:
    for _ in range(2):
        async with open_tracing(configuration(), instrument=False) as tracing:
            with work(1):
                pass

        assert tracing.statistics().exported == 1


@pytest.mark.parametrize(
    ("given", "variable", "name"),
    [("x", "", "x"), ("x", "y", "x"), (None, "y", "y"), (None, "", "x0tta6bl4")],
    ids=["argument", "argument over variable", "variable", "default"],
)
async def test_the_service_name(
    given: str | None, variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", variable)

    async with mapek_runtime.tracing(service_name=given) as provider:
        assert provider.resource.attributes[SERVICE_NAME] == name


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (ExportSettings(), MemorySpanExporter),
        (ExportSettings(exporter="console"), ConsoleSpanExporter),
        (ExportSettings(endpoint="http://localhost:9/v1/traces"), OTLPSpanExporter),
        (ExportSettings(exporter="otlp"), OTLPSpanExporter),
        (ExportSettings(exporter="memory", endpoint="http://localhost:9/v1/traces"), MemorySpanExporter),
        (ExportSettings(exporter="none"), type(None)),
    ],
    ids=["auto", "console", "auto with an endpoint", "otlp", "memory wins over an endpoint", "none"],
)
async def test_the_exporter_is_the_one_that_was_set(settings: ExportSettings, kind: type) -> None:
    async with open_tracing(Configuration(settings=Settings(export=settings)), instrument=False) as tracing:
        assert type(tracing.exporter) is kind


async def test_a_disabled_sdk_makes_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    async with open_tracing(configuration(), instrument=False) as tracing:
        with work(1) as span:
            assert not span.is_recording()

    assert tracing.statistics().ended == 0


async def test_the_sampler_is_the_sdks_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    async with open_tracing(configuration(), instrument=False) as tracing:
        with work(1):
            pass

    assert tracing.statistics().ended == 0


async def test_cycles_decide_for_themselves_where_that_is_set() -> None:
    before = propagate.get_global_textmap()
    settings = configuration(MAPEK_CYCLES_DECIDE="true", MAPEK_CYCLES_QUIET_RATIO="0")

    async with open_tracing(settings, instrument=False) as tracing:
        for anomalies in (0, 1):
            with spans.cycle("node-1", 1, "interval", anomalies=anomalies):
                assert tracing.statistics().held == 0
                with work(1):
                    pass
                assert tracing.statistics().held == 1
        assert propagate.get_global_textmap() is not before

    assert propagate.get_global_textmap() is before
    assert tracing.statistics().balanced
    assert tracing.statistics().dropped == {"sampled_out": 2}
    assert tracing.statistics().exported == 2


async def test_a_span_that_stays_open_is_logged_where_a_heartbeat_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    def beats() -> list[logging.LogRecord]:
        return [record for record in caplog.records if getattr(record, "span_name", "") == "testing.work"]

    async with open_tracing(configuration(MAPEK_WATCH_HEARTBEAT="0.02"), instrument=False) as tracing:
        async with asyncio.timeout(10):
            with work(1):
                while len(beats()) < 2:  # noqa: ASYNC110 - log records wake nobody
                    await asyncio.sleep(0.01)

    assert tracing.statistics().exported == 1


async def test_a_span_that_is_never_ended_is_found_where_that_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_tracing(configuration(MAPEK_WATCH_LEAKS="true"), instrument=False) as tracing:
        tracing.provider.get_tracer("tests").start_span("lost")
        gc.collect()

    assert "test_a_span_that_is_never_ended_is_found_where_that_is_set" in caplog.text


async def test_a_wrong_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        async with mapek_runtime.tracing(config=tmp_path / "missing.toml"):
            raise AssertionError("not reached")
