"""Where metrics are sent and served: what OpenTelemetry's variables and ours say."""

from __future__ import annotations

import pytest

from mapek_runtime.config import Configuration, decode, read_sources
from mapek_runtime.errors import ConfigError


def read(**environ: str) -> Configuration:
    return decode(read_sources(environ=environ))


@pytest.mark.parametrize(
    ("text", "exporters"),
    [("otlp", ("otlp",)), ("prometheus, OTLP", ("prometheus", "otlp")), ("none", ()), ("", ())],
)
def test_the_exporters_of_the_specification_are_read(text: str, exporters: tuple[str, ...]) -> None:
    assert read(OTEL_METRICS_EXPORTER=text).settings.metrics.exporters == exporters


def test_our_own_variables_win() -> None:
    configuration = read(
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_METRIC_EXPORT_INTERVAL="2500",
        MAPEK_METRICS_EXPORTERS="prometheus",
        MAPEK_METRICS_TIMEOUT="3",
    )

    metrics = configuration.settings.metrics
    assert (metrics.exporters, metrics.interval, metrics.timeout) == (("prometheus",), 2.5, 3.0)


@pytest.mark.parametrize("text", ["console", "otlp,none", ","])
def test_an_exporter_that_is_none_of_them_warns_and_is_ignored(text: str) -> None:
    configuration = read(OTEL_METRICS_EXPORTER=text)

    assert configuration.settings.metrics.exporters == ()
    (warning,) = configuration.warnings
    assert warning.startswith("OTEL_METRICS_EXPORTER is ")
    assert "otlp, prometheus, both, or none" in warning


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:8080", "localhost:0", "a-host.example:65535", ""])
def test_an_address_to_listen_on_is_host_and_port(text: str) -> None:
    assert read(MAPEK_WEB_LISTEN=text).settings.web.listen == text


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "localhost", "http://localhost:80", "localhost:65536", "::1:80"]
)
def test_another_address_stops_the_start_and_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"LISTEN|listen") as raised:
        read(MAPEK_WEB_LISTEN=text)

    assert repr(text) in str(raised.value)
