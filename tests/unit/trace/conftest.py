"""The tracer of tests that must hold for our provider and for the stock SDK's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace

from tests.unit.trace.both import traced_by


@pytest.fixture(params=["ours", "stock"])
def tracer(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[trace.Tracer]:
    """A tracer of ours, then one of the stock SDK; whatever is logged fails the test."""
    with traced_by(request.param) as tracer:
        yield tracer
    assert caplog.records == []
