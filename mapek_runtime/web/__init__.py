"""What the service shows over HTTP: the page, query APIs, `/metrics`, `/health`; and what it takes: spans.

This layer is given what it shows as functions and protocols, and the store; it knows neither the run nor
its loops. It is loaded only where something is served.
"""

from __future__ import annotations

from .limits import Limits
from .metrics import PrometheusReader
from .safety import Access, require_protection
from .server import Part, WebServer
from .tls import make_tls

__all__ = [
    "Access",
    "Limits",
    "Part",
    "PrometheusReader",
    "WebServer",
    "make_tls",
    "require_protection",
]
