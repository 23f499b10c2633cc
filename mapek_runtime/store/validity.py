"""Which spans of a request are refused, and what is said of them.

A span without valid ids belongs to no trace, so that nobody would ever find it again. All else that can be
parsed is taken.
"""

from __future__ import annotations

import reprlib
from collections import Counter

from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["TOO_LARGE", "Refusals", "flaw_of"]

TOO_LARGE = "span_too_large"

_WORDS = {
    "trace_id_missing": "without a trace id",
    "trace_id_zero": "with a trace id of zeros only",
    "trace_id_length": "with a trace id that is not 16 bytes long",
    "span_id_missing": "without a span id",
    "span_id_zero": "with a span id of zeros only",
    "span_id_length": "with a span id that is not 8 bytes long",
    TOO_LARGE: "larger than 4 MiB",
}
_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)

_short = reprlib.Repr()
_short.maxstring = 60


def flaw_of(span: Span) -> str:
    """Give the kind of flaw for which a span is refused; empty when it has none."""
    trace_id, span_id = span.trace_id, span.span_id
    if len(trace_id) != 16:
        return "trace_id_length" if trace_id else "trace_id_missing"
    if len(span_id) != 8:
        return "span_id_length" if span_id else "span_id_missing"
    if trace_id == _NO_TRACE:
        return "trace_id_zero"
    if span_id == _NO_SPAN:
        return "span_id_zero"
    return ""


class Refusals:
    """The spans of one request that were refused: how many of which kind, and the first as an example."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self._example = ""

    def add(self, kind: str, name: str, place: int) -> None:
        """Count the span called `name`, the one at `place` of the request counted from 0."""
        if not self.kinds:
            self._example = f"the first is number {place + 1} of the request"
            if name:
                self._example += f", {_short.repr(name)}"
        self.kinds[kind] += 1

    def message(self, total: int) -> str:
        """Say it to whoever sent `total` spans; empty when none was refused."""
        if not self.kinds:
            return ""
        kinds = ", ".join(f"{number} {_WORDS[kind]}" for kind, number in self.kinds.most_common())
        return f"{self.kinds.total()} of {total} spans were refused: {kinds}; {self._example}"
