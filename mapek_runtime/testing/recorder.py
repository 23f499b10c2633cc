"""`Recorder`: keeps every span of a block of code, and draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from opentelemetry import trace as api
from opentelemetry.context.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext

from mapek_runtime.trace import TracerProvider, use_provider

from .clock import unix_time_ns
from .tree import Node, Tree, render

__all__ = ["Recorder"]


class Recorder:
    """Records the spans of a `with` block on a provider of its own.

        with Recorder() as recorder:
            await run_cycle(Mesh(), node="node-1")
        assert recorder.one("mape_k.monitor").attributes["metrics_count"] == 3

    Spans declared with `SpanGroup` and `traced` go to it, and those of tracers that come from
    OpenTelemetry's global provider inside the block, or before any provider was set. A library that
    holds a tracer of a real provider from before is not reached; give it `recorder.provider`. After
    the block the global provider is what it was. Times follow the autojump clock while it is in force.
    """

    def __init__(self, *, clock: Callable[[], int] = unix_time_ns) -> None:
        self._kept = _Keep()
        self.provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({"service.name": "recorder"}),
            shutdown_on_exit=False,
            clock=clock,
        )
        self.provider.add_span_processor(self._kept)
        self._inside = ExitStack()

    def __enter__(self) -> Recorder:
        self._inside.enter_context(use_provider(self.provider))
        before = api._TRACER_PROVIDER
        routing = _Routing(self.provider)
        api._TRACER_PROVIDER = routing
        self._inside.callback(_restore, routing, before)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside.close()

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in the order in which they ended."""
        return tuple(self._kept.ended)

    @property
    def open(self) -> Sequence[ReadableSpan]:
        """The spans that have not ended, oldest first; none should be left behind."""
        return tuple(span for span in self._kept.started if span.end_time is None)

    def named(self, name: str) -> Sequence[ReadableSpan]:
        """The ended spans of that name, in the order in which they ended."""
        return tuple(span for span in self._kept.ended if span.name == name)

    def one(self, name: str) -> ReadableSpan:
        """The only ended span of that name; AssertionError when there is none or another."""
        found = self.named(name)
        if len(found) != 1:
            there = ", ".join(sorted({span.name for span in self._kept.ended})) or "no spans"
            raise AssertionError(f"{len(found)} spans are named {name!r}, not one; recorded: {there}")
        return found[0]

    def children(self, parent: ReadableSpan) -> Sequence[ReadableSpan]:
        """The spans directly below `parent`, in the order in which they started."""
        mine = _identity(parent.get_span_context())
        return tuple(span for span in self._kept.started if _identity(span.parent) == mine)

    def clear(self) -> None:
        """Forget what was recorded."""
        self._kept.started.clear()
        self._kept.ended.clear()

    def tree(self, *attributes: str, links: bool = False) -> Tree:
        """A drawing of every trace, in the order in which they started.

        `attributes` are drawn on each span that has them; `links` draws `@links` on each span that
        has links. Compared with a drawing, the attributes named there count as well.
        """
        asked = (*attributes, "@links") if links else attributes
        known = {_identity(span.get_span_context()) for span in self._kept.started}
        below: dict[Any, list[ReadableSpan]] = {}
        for span in self._kept.started:
            parent = _identity(span.parent)
            below.setdefault(parent if parent in known else None, []).append(span)
        roots = below.get(None, [])
        numbers: dict[int, int] = {}
        for root in roots:
            numbers.setdefault(_trace(root), len(numbers) + 1)
        names = {_identity(span.get_span_context()): span.name for span in self._kept.started}

        def linked(context: SpanContext) -> str:
            name = names.get(_identity(context))
            return f"{name}#{numbers[context.trace_id]}" if name else "elsewhere"

        def node(span: ReadableSpan) -> Node:
            facts = {key: render(value) for key, value in (span.attributes or {}).items()}
            facts["@status"] = span.status.status_code.name.lower()
            facts["@kind"] = span.kind.name.lower()
            if span.events:
                facts["@events"] = render([event.name for event in span.events])
            if span.links:
                facts["@links"] = render([linked(link.context) for link in span.links])
            children = [node(child) for child in below.get(_identity(span.get_span_context()), ())]
            return Node(span.name, facts, children, span.end_time is None)

        return Tree([node(root) for root in roots], asked=asked)


class _Keep(SpanProcessor):
    """Keeps spans in memory."""

    def __init__(self) -> None:
        self.started: list[ReadableSpan] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.started.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


class _Routing(api.TracerProvider):
    """The global provider inside the block.

    Proxy tracers keep the tracer they get first for ever, so they get one that looks again at each
    span: after the block it follows whatever the global provider is then.
    """

    def __init__(self, provider: api.TracerProvider) -> None:
        self.provider: api.TracerProvider | None = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> api.Tracer:
        return _RoutedTracer(self, args, kwargs)


class _RoutedTracer(api.Tracer):
    def __init__(self, routing: _Routing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._routing = routing
        self._args = args
        self._kwargs = kwargs

    def _tracer(self) -> api.Tracer:
        provider = self._routing.provider or api.get_tracer_provider()
        return provider.get_tracer(*self._args, **self._kwargs)

    def start_span(self, *args: Any, **kwargs: Any) -> api.Span:
        return self._tracer().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer().start_as_current_span(*args, **kwargs)


def _restore(routing: _Routing, before: api.TracerProvider | None) -> None:
    routing.provider = None
    # A provider that was set inside the block stays.
    if api._TRACER_PROVIDER is routing:
        api._TRACER_PROVIDER = before


def _trace(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return context.trace_id if context is not None else 0


def _identity(context: SpanContext | None) -> tuple[int, int] | None:
    return None if context is None else (context.trace_id, context.span_id)
