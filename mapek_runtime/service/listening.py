"""Where a run listens for HTTP, if anywhere, and who said so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from mapek_runtime.config import Settings

__all__ = ["DEFAULT", "Listening", "listening"]

logger = logging.getLogger(__name__)

DEFAULT = "127.0.0.1:8380"
_HOST, _PORT = "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"


@dataclass(frozen=True, slots=True)
class Listening:
    """An address to listen on."""

    address: str
    """HOST:PORT."""
    named: str
    """The setting that says so, for an error."""
    may_move: bool = False
    """Whether another port will do when that one is taken: nobody has asked for it."""


def listening(settings: Settings, environ: Mapping[str, str]) -> Listening | None:
    """Where everything is served; None where nothing is.

    The exporter `prometheus` has an address of its own in OpenTelemetry's specification, for where
    none is set here.
    """
    if not settings.web.enabled:
        return None
    if settings.web.listen:
        return Listening(settings.web.listen, "web.listen")
    if "prometheus" not in settings.metrics.exporters:
        return Listening(DEFAULT, "web.listen", may_move=True)
    host = environ.get(_HOST, "").strip() or "localhost"
    text = environ.get(_PORT, "").strip() or "9464"
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        logger.warning("%s is %r; it must be a port from 0 to 65535; using 9464", _PORT, text)
        text = "9464"
    return Listening(f"[{host}]:{text}" if ":" in host else f"{host}:{text}", f"{_HOST} and its port")
