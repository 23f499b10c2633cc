"""What tests have that must hold for our provider and for the stock SDK's; the log of open spans."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource

from mapek_runtime import TracerProvider
from tests.unit.trace.both import traced_by


@pytest.fixture(params=["ours", "stock"])
def tracer(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[trace.Tracer]:
    """A tracer of ours, then one of the stock SDK; whatever is logged fails the test."""
    with traced_by(request.param) as tracer:
        yield tracer
    assert caplog.records == []


@pytest.fixture(params=["ours", "stock"])
def provider(request: pytest.FixtureRequest) -> sdk.TracerProvider:
    """A provider of ours, then the stock SDK's, without a processor."""
    kind = TracerProvider if request.param == "ours" else sdk.TracerProvider
    return kind(resource=Resource({"service.name": "tests"}), shutdown_on_exit=False)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is said of open spans, at any level."""
    with caplog.at_level(logging.INFO, "mapek_runtime.trace.watching.live"):
        yield caplog
