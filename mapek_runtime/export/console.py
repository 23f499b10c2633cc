"""Writes each span as one line: for a first look, and for logs that something else collects."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TextIO

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from .sink import require_asyncio

__all__ = ["ConsoleSpanExporter", "format_line"]


class ConsoleSpanExporter:
    """An asyncio exporter that writes one line a span to `out`, standard output unless given.

    A batch is one write; a terminal or a pipe that does not read holds up the loop, as `print` does.
    """

    def __init__(
        self, out: TextIO | None = None, formatter: Callable[[ReadableSpan], str] | None = None
    ) -> None:
        self._out = out
        self._formatter = formatter if formatter is not None else format_line

    def export(self, spans: Sequence[ReadableSpan], /) -> Coroutine[Any, Any, None]:
        """Write `spans`."""
        require_asyncio(self)
        return self._export(spans)

    async def aclose(self) -> None:
        """Nothing to close; the stream belongs to whoever gave it."""

    async def _export(self, spans: Sequence[ReadableSpan]) -> None:
        # Looked up now, because programs and tests replace sys.stdout.
        out = self._out if self._out is not None else sys.stdout
        out.write("".join([self._formatter(span).rstrip("\n") + "\n" for span in spans]))
        out.flush()


def format_line(span: ReadableSpan) -> str:
    """A span as one line: trace, span and parent id, duration, name, status if set, attributes as JSON."""
    context = span.context
    trace_id, span_id = (
        (format_trace_id(context.trace_id), format_span_id(context.span_id)) if context else ("-", "-")
    )
    parent = format_span_id(span.parent.span_id) if span.parent else "-" * 16
    duration = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    words = [trace_id, span_id, parent, f"{duration:.3f}ms", _word(span.name)]
    if span.status.status_code is not StatusCode.UNSET:
        words.append(span.status.status_code.name)
        if span.status.description:
            words.append(json.dumps(span.status.description))
    if span.attributes:
        words.append(json.dumps(_plain(span.attributes), default=str))
    if span.events:
        words.append(f"events={len(span.events)}")
    if span.links:
        words.append(f"links={len(span.links)}")
    return " ".join(words)


def _word(name: str) -> str:
    # A name with a line break must not look like two spans.
    return name if name.isprintable() and " " not in name and name else json.dumps(name)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
