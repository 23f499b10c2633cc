"""What the service shows over HTTP: `/metrics` and `/health`.

This layer is given what it shows as functions; it knows neither the run nor its loops. It is loaded
only where an address to listen on is set.
"""

from __future__ import annotations

from .metrics import PrometheusReader
from .server import WebServer

__all__ = ["PrometheusReader", "WebServer"]
