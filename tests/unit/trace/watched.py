"""A provider of ours whose open spans are watched, on the clock of the test."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource

from mapek_runtime import TracerProvider
from mapek_runtime.testing.clock import unix_time_ns
from mapek_runtime.trace.watching.live import LiveSpans

__all__ = ["T", "lines", "watching"]

T = 30.0


def watching(live: LiveSpans) -> TracerProvider:
    provider = TracerProvider(
        resource=Resource({"service.name": "tests"}), shutdown_on_exit=False, clock=unix_time_ns
    )
    provider.add_span_processor(live)
    return provider


def lines(logged: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged.records]
