"""Where a run listens."""

from __future__ import annotations

import logging

import pytest

from mapek_runtime.config import MetricsSettings, Settings, WebSettings
from mapek_runtime.service.listening import listening


@pytest.mark.parametrize(
    ("listen", "exporters", "environ", "address", "may_move"),
    [
        ("", (), {}, "127.0.0.1:8380", True),
        ("", ("otlp",), {"OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, "127.0.0.1:8380", True),
        ("127.0.0.1:80", (), {}, "127.0.0.1:80", False),
        ("127.0.0.1:8380", (), {}, "127.0.0.1:8380", False),
        ("127.0.0.1:80", ("prometheus",), {"OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, "127.0.0.1:80", False),
        ("", ("prometheus",), {}, "localhost:9464", False),
        ("", ("prometheus",), {"OTEL_EXPORTER_PROMETHEUS_HOST": "::1"}, "[::1]:9464", False),
        ("", ("prometheus",), {"OTEL_EXPORTER_PROMETHEUS_PORT": "80"}, "localhost:80", False),
    ],
)
def test_only_an_address_that_nobody_named_may_be_left(
    listen: str, exporters: tuple[str, ...], environ: dict[str, str], address: str, may_move: bool
) -> None:
    settings = Settings(web=WebSettings(listen=listen), metrics=MetricsSettings(exporters=exporters))  # type: ignore[arg-type]

    where = listening(settings, environ)

    assert where is not None
    assert (where.address, where.may_move) == (address, may_move)


@pytest.mark.parametrize("exporters", [(), ("prometheus",)])
def test_where_nothing_is_to_be_served_there_is_no_address(exporters: tuple[str, ...]) -> None:
    web = WebSettings(enabled=False, listen="127.0.0.1:80")

    assert listening(Settings(web=web, metrics=MetricsSettings(exporters=exporters)), {}) is None  # type: ignore[arg-type]


def test_a_port_that_is_none_warns_and_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(metrics=MetricsSettings(exporters=("prometheus",)))
    with caplog.at_level(logging.WARNING):
        where = listening(settings, {"OTEL_EXPORTER_PROMETHEUS_PORT": "many"})

    assert where is not None
    assert where.address == "localhost:9464"
    assert "OTEL_EXPORTER_PROMETHEUS_PORT is 'many'" in caplog.text
