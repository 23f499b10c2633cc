"""Our classes in place of the stock SDK's, in a process that runs upstream's tests.

Imported before anything else of OpenTelemetry has taken a name (see `sitecustomize`), and loaded
into pytest as a plugin, which writes down the outcome of every test and how often our classes were
constructed. Unless `CONFORMANCE_SUBJECT` is
`ours` it only writes down.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry.context import contextvars_context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export

if TYPE_CHECKING:
    import pytest

__all__ = ["built", "substitute"]

built: Counter[str] = Counter()
"""How often each class was constructed, ours by its name and a stock one as `stock <name>`."""
_ours: dict[ModuleType, dict[str, type]] = {}
_outcomes: dict[str, str] = {}
_reasons: dict[str, str] = {}
_reload = importlib.reload


def substitute() -> None:
    """Let every name of the SDK that we stand for mean ours, in this process and for good."""
    from mapek_runtime import BatchSpanProcessor, TracerProvider
    from mapek_runtime.trace.context import LeanRuntimeContext, install
    from mapek_runtime.trace.span import Span
    from mapek_runtime.trace.tracer import Tracer

    _ours[sdk] = {"TracerProvider": TracerProvider, "Tracer": Tracer, "Span": Span}
    _ours[export] = {"BatchSpanProcessor": BatchSpanProcessor}
    # The second is what the API falls back on.
    for module in (contextvars_context, context_api):
        _ours[module] = {"ContextVarsRuntimeContext": LeanRuntimeContext}
    # Before the first provider does it, so that the tests of the API run on our storage as well.
    install()
    counted = {"Span"}  # made without its constructor, and by a Tracer only
    for module, classes in _ours.items():
        for name, ours in classes.items():
            if name not in counted:
                counted.add(name)
                stock = getattr(module, name)
                _count(ours, name)
                _count(stock, f"stock {name}", exactly=stock)
            setattr(module, name, ours)
    importlib.import_module("inside").open_up()
    importlib.reload = _reload_and_substitute


def _count(cls: type, name: str, exactly: type | None = None) -> None:
    constructor: Any = getattr(cls, "__init__")  # noqa: B009 - the class is being changed on purpose

    @functools.wraps(constructor)
    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        if exactly is None or type(self) is exactly:
            built[name] += 1
        constructor(self, *args, **kwargs)

    type.__setattr__(cls, "__init__", counted)


def _reload_and_substitute(module: ModuleType) -> ModuleType:
    """Reload, keeping every class what it was: a reload would bring the stock classes back."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    reloaded = _reload(module)
    if module in _ours:
        vars(reloaded).update(classes)
    return reloaded


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst that was said of a test: its setup, its subtests, its teardown."""
    if report.failed:
        _outcomes[report.nodeid] = "failed"
        _reasons.setdefault(report.nodeid, report.longreprtext)
    elif report.skipped:
        _outcomes.setdefault(report.nodeid, "skipped")
    elif report.when == "call":
        _outcomes.setdefault(report.nodeid, "passed")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be imported is a failure under its own name."""
    if report.failed:
        _outcomes[report.nodeid] = "failed"
        _reasons[report.nodeid] = report.longreprtext


def pytest_sessionfinish() -> None:
    """Write the report where the parent process looks for it."""
    in_place = all(
        getattr(module, name) is ours for module, classes in _ours.items() for name, ours in classes.items()
    )
    report = {"outcomes": _outcomes, "reasons": _reasons, "built": built, "in_place": in_place}
    Path(os.environ["CONFORMANCE_REPORT"]).write_text(json.dumps(report))


if os.environ.get("CONFORMANCE_SUBJECT") == "ours":
    substitute()
