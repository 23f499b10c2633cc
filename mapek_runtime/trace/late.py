"""A scope whose provider is looked up when it is entered: ours, the stock SDK's, another, or none.

Declared spans and decorated functions outlive providers, and work under any. Under a provider of ours
the work is done by the scope that its tracer gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, use_span
from opentelemetry.trace import Tracer as ApiTracer

from .failure import record_failure
from .foreign import NO_SPAN, ForeignSpan
from .scope import LEFT, SpanScope, new_options
from .tracer import Tracer
from .values import clean_attributes

if TYPE_CHECKING:
    from .spec import SpanSpec

__all__ = ["LateScope"]


class LateScope(SpanScope):
    """A scope of a declared span, or of one that is named at the call."""

    def __init__(
        self,
        spec: SpanSpec,
        attributes: Mapping[str, Any] | None,
        *,
        name: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._spec = spec
        self._name = name or spec.name
        self._attributes = attributes
        self._kind = kind
        self._token: Any = None
        self._plain = True
        self._inner: Any = None
        self._manager: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Any:
        if self._token is not None:
            return self._enter_again()
        tracer = self._spec.tracer.get()
        if isinstance(tracer, Tracer):
            self._inner = self._scope_of(tracer)
            span = self._inner.__enter__()
            self._token = self._inner._token
            return span
        return self._enter_through_the_api(tracer)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._inner is not None:
            # It holds what was current before.
            self._token = LEFT
            self._inner.__exit__(exc_type, exc, traceback)
        else:
            self._exit_through_the_api(exc_type, exc, traceback)

    def without_exceptions(self) -> None:
        """Record no event for an exception that leaves the block; the status says it all the same."""
        self._own_options().record_exception = False

    def _late(self) -> SpanScope:
        return self

    def _fresh(self) -> SpanScope:
        tracer = self._spec.tracer.get()
        if isinstance(tracer, Tracer):
            return self._scope_of(tracer)
        scope = LateScope(self._spec, dict(self._attributes or ()), name=self._name, kind=self._kind)
        scope._options = self._options
        return scope

    def _scope_of(self, tracer: Tracer) -> SpanScope:
        scope: Any = _new(tracer.scope_class or tracer.likely_class())
        scope._tracer = tracer
        scope._name = self._name
        scope._kind = self._kind
        scope._attributes = dict(self._attributes or ())
        scope._spec = self._spec
        scope._token = None
        scope._plain = True
        if self._options is not None or self._spec.elapsed is not None:
            scope._options = self._options
            scope._plain = False
        return scope  # type: ignore[no-any-return]

    def _enter_through_the_api(self, tracer: ApiTracer | None) -> Any:
        self._token = LEFT
        if tracer is None:
            return NO_SPAN
        attributes, _ = clean_attributes(self._attributes or {}, None)
        options = self._options or new_options()
        span = tracer.start_span(
            self._name, options.context, self._kind, attributes, options.links, options.start_time
        )
        # The failure is written when the block is left, as on a span of ours.
        self._manager = use_span(
            span, end_on_exit=options.end_on_exit, record_exception=False, set_status_on_exception=False
        )
        self._manager.__enter__()
        self._foreign = ForeignSpan(span, self._spec, attributes)
        return self._foreign

    def _exit_through_the_api(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._manager is None:
            return
        try:
            span = self._foreign.finish(exc)
            if exc is not None:
                options = self._options or new_options()
                record_failure(span, exc, record=options.record_exception, status=options.set_status)
        finally:
            # Whatever a span of somebody else's does: it must not stay current.
            self._manager.__exit__(exc_type, exc, traceback)


_new = object.__new__
