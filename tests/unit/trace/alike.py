"""The same scenario with the SDK's provider and with ours, and everything that a reader can see.

A scenario is a plain function over the class of a provider; ids are counted and times left out, so
that what it gives back can be compared.
"""

from __future__ import annotations

import difflib
import itertools
import json
import pprint
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as context_api
from opentelemetry.context.context import _RuntimeContext
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from mapek_runtime import TracerProvider

__all__ = ["Counted", "Provider", "difference", "make", "same", "seen", "storage"]

Provider = Callable[..., sdk.TracerProvider]
RESOURCE = Resource({"service.name": "test"})


class Counted(IdGenerator):
    """Ids by counting, spread over the whole range so that a ratio has something to decide."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def generate_span_id(self) -> int:
        return next(self._ids)

    def generate_trace_id(self) -> int:
        return (next(self._ids) * 0x9E3779B97F4A7C15F39CC0605CEDC834) % (1 << 128)

    def is_trace_id_random(self) -> bool:
        return True


def make(kind: Provider, exporter: SpanExporter | None = None, **options: Any) -> sdk.TracerProvider:
    options = {"resource": RESOURCE, "id_generator": Counted(), "shutdown_on_exit": False} | options
    provider = kind(**options)
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def seen(span: sdk.ReadableSpan) -> dict[str, Any]:
    """All that a reader can see of an ended span, but for its times and stack traces."""
    told = json.loads(span.to_json())
    types = {key: type(value).__name__ for key, value in (span.attributes or {}).items()}
    for part in (told, *told["events"]):
        for key in ("start_time", "end_time", "timestamp"):
            part.pop(key, None)
        part["attributes"].pop("exception.stacktrace", None)
        # The SDK says False of what leaves a block, and True of what leaves `with tracer.start_span()`.
        part["attributes"].pop("exception.escaped", None)
    for attributes in (told["attributes"], types):
        # Ours says of a span that failed what it failed with, as the conventions ask.
        attributes.pop("error.type", None)
    parent = span.parent
    told["parent_context"] = parent and (parent.is_remote, int(parent.trace_flags), repr(parent.trace_state))
    told["flags"] = span.context and int(span.context.trace_flags)
    told["dropped"] = (span.dropped_attributes, span.dropped_events, span.dropped_links)
    told["dropped_within"] = [
        each.dropped_attributes for each in (*span.events, *span.links) if hasattr(each, "dropped_attributes")
    ]
    told["scope"] = span.instrumentation_scope and span.instrumentation_scope.to_json()
    told["attribute_types"] = types
    return dict(told)


@contextmanager
def storage(of: _RuntimeContext) -> Iterator[None]:
    before, context_api._RUNTIME_CONTEXT = context_api._RUNTIME_CONTEXT, of
    try:
        yield
    finally:
        context_api._RUNTIME_CONTEXT = before


def same(scenario: Callable[[Provider], Any]) -> Any:
    """What the scenario gives with our provider, which is what it gives with the SDK's."""
    with storage(ContextVarsRuntimeContext()):
        theirs = scenario(sdk.TracerProvider)
    mine = scenario(TracerProvider)
    assert mine == theirs, difference(theirs, mine)
    return mine


def difference(theirs: Any, mine: Any) -> str:
    before, after = (pprint.pformat(each, sort_dicts=False).splitlines() for each in (theirs, mine))
    changes = list(difflib.unified_diff(before, after, "the SDK's", "ours", n=1, lineterm=""))
    return "\n".join([*changes[:40], f"({len(changes)} lines)"])
