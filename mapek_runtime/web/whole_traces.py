"""Traces with all their spans, for the APIs that know no pages: as many as an answer may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from mapek_runtime.store import TraceStore
from mapek_runtime.store.framing import join, slices
from mapek_runtime.store.otlp_json import to_json

__all__ = ["MOST_SPANS", "WholeTraces", "read_traces", "resource_spans_json"]

MOST_SPANS = 50_000
"""Spans of one answer: about 50 MB of JSON, which is more than the pages that ask for it can draw."""
_AT_ONCE = 500
"""Spans that are parsed or encoded in one go: those calls hold the interpreter, some milliseconds each."""


class WholeTraces(NamedTuple):
    """What was read of some traces."""

    data: bytes
    """TracesData; a span that was sent twice is there once."""
    cut: dict[str, str]
    """By id what to say of a trace that is not whole."""
    missing: tuple[str, ...]
    """Ids of which there are no spans."""
    unread: int
    """Traces that were not looked at, because the answer is full."""

    @property
    def warning(self) -> str:
        """All that its reader should know; empty when nothing is left out."""
        more = [f"{self.unread} more traces were left out: ask for fewer"] if self.unread else []
        return "; ".join([*self.cut.values(), *more])


async def read_traces(store: TraceStore, trace_ids: Iterable[str], most_spans: int) -> WholeTraces:
    """The traces in this order, until there are `most_spans` spans."""
    pieces, cut, missing, unread = list[bytes](), dict[str, str](), list[str](), 0
    left = most_spans
    for trace_id in dict.fromkeys(trace_ids):
        if not left:
            unread += 1
            continue
        stored = await store.trace(trace_id, limit=left)
        if stored is None:
            missing.append(trace_id)
            continue
        pieces.append(stored.data)
        left = max(0, left - stored.spans)
        if stored.spans < stored.total:
            cut[trace_id] = (
                f"trace {trace_id} has {stored.total} spans; only {stored.spans} of them are in this answer, "
                "which may have no more"
            )
    return WholeTraces(b"".join(pieces), cut, tuple(missing), unread)


def resource_spans_json(data: bytes) -> bytes:
    """TracesData as the JSON of OTLP: the list that belongs under `resourceSpans`. Call it in a thread."""
    written: list[bytes] = []
    for piece in slices(data, _AT_ONCE):
        spans = to_json(join([piece]))["resourceSpans"]
        written.extend(msgspec.json.encode(each) for each in spans)
    return b"[" + b",".join(written) + b"]"
