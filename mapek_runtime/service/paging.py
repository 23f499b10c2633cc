"""What the page is given of a run: its feed and its buttons.

Loaded only where something is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mapek_runtime.config import without_secrets
from mapek_runtime.store import TraceStore

from .controls import RunControls
from .faults import FaultsInForce
from .feed import Feed, RunFacts, Watched
from .prepare import Prepared

__all__ = ["Feed", "RunControls", "make_page"]


def make_page(
    prepared: Prepared,
    run: Watched,
    store: TraceStore | None,
    emit: Callable[[str, Mapping[str, Any]], None],
) -> tuple[Feed, RunControls]:
    """The feed of `run`, and what its buttons do; `emit` is told of what they did."""
    settings = prepared.settings
    faults = FaultsInForce()
    controls = RunControls(
        injectors=run.injectors,
        in_force=faults,
        folder=prepared.state,
        emit=emit,
        allowed=settings.web.control,
    )
    facts = RunFacts(
        service=settings.service_name,
        version=_version(),
        nodes=prepared.nodes,
        domains=tuple(domain.name for domain in prepared.domains),
        heal=settings.run.heal,
        dry_run=settings.loop.dry_run,
        # It is for a link: whoever may look need not know by which name and password.
        jaeger=without_secrets(settings.web.jaeger),
    )
    return Feed(facts, run, controls=controls, faults=faults, store=store), controls


def _version() -> str:
    try:
        return version("mapek-runtime")
    except PackageNotFoundError:
        return "unknown"
