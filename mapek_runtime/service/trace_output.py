"""What `mapek traces` writes: tables for people, objects for programs.

In objects, nanoseconds are decimal strings: a number of JSON cannot hold them everywhere.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mapek_runtime.store import StoreStatistics
from mapek_runtime.store.model import FoundSpan, FoundTrace, Latency, SearchResult, StoredTrace

from .trace_tree import TraceTree
from .waterfall import Waterfall, show_duration
from .why import why

__all__ = [
    "cycle_line",
    "print_found",
    "print_latencies",
    "print_trace",
    "span_line",
    "span_object",
    "statistics_object",
    "trace_object",
]

_BARS = 12
_WIDE = 110
"""Columns from which a terminal has room for whole ids and bars."""
_STYLES = {
    "found": "yellow", "chosen": "magenta", "rejected": "bright_black", "action": "green", "learned": "cyan",
    "failed": "red",
}  # fmt: skip


def print_found(console: Console, found: SearchResult) -> None:
    """A line for each trace, and what of it was chosen."""
    if not found.traces:
        more = "" if found.complete else " before the time was over; ask for a shorter time with --since"
        console.print(
            f"nothing found among {found.inspected:,} spans that were looked at{more}",
            "without a query all traces are listed; `mapek traces stats` shows which operations there are",
            sep="\n",
            highlight=False,
        )
        return
    longest = max(max(1, trace.end - trace.start) for trace in found.traces)
    table = Table(box=None, header_style="bold", pad_edge=False)
    wide = console.width >= _WIDE
    # `show` takes the beginning of an id as well.
    digits = 32 if wide or not console.is_terminal else 12
    table.add_column("trace", no_wrap=True, min_width=digits)
    table.add_column("start", no_wrap=True, min_width=12)
    table.add_column("duration", no_wrap=True, min_width=8, justify="right")
    if wide:
        table.add_column("", no_wrap=True, min_width=_BARS)
    table.add_column("root", no_wrap=True, overflow="ellipsis")
    table.add_column("spans", no_wrap=True, min_width=5)
    table.add_column("chosen", no_wrap=True, overflow="ellipsis")
    for trace in found.traces:
        duration = trace.end - trace.start
        errors = f" ({trace.errors} failed)" if trace.errors else ""
        table.add_row(
            trace.trace_id[:digits],
            _local(trace.start),
            show_duration(duration),
            *([Text("━" * max(1, round(_BARS * duration / longest)), "cyan")] if wide else ()),
            _clean(f"{trace.root_service} {trace.root_name}".strip() or "(root not stored)"),
            Text(f"{trace.spans}{errors}", "red" if errors else ""),
            _clean(_chosen(trace)),
        )
    console.print(table)
    if not found.complete:
        console.print("the time was over before everything was looked at; there may be more", style="yellow")


def print_trace(console: Console, trace: StoredTrace, tree: TraceTree) -> None:
    """The head, the waterfall, and for a cycle why it decided as it did."""
    failed = sum(branch.status == "error" for branch in tree.branches)
    services = sorted({branch.service for branch in tree.branches})
    shown = "" if trace.spans == trace.total else f" (of {trace.total:,}, from --offset {trace.offset})"
    words = [
        f"trace {trace.trace_id}",
        _local(tree.start),
        show_duration(tree.end - tree.start),
        f"{trace.spans:,} spans{shown}",
        f"{failed} failed" if failed else "",
        f"{tree.depth} levels",
        ", ".join(services),
    ]
    console.print(_clean("  ·  ".join(word for word in words if word)), style="bold", highlight=False)
    console.print(Waterfall(tree))
    lines = list(why(tree))
    if lines:
        table = Table.grid(padding=(0, 2))
        for kind, text in lines:
            table.add_row(Text(kind, _STYLES[kind]), _clean(text))
        console.print()
        console.print(table)
    for branch in tree.branches:
        for link in branch.links:
            about = link.attributes.get("insight") or "linked to"
            console.print(_clean(f"{branch.name}: {about}: mapek traces show {link.trace_id}"), style="dim")


def print_latencies(console: Console, path: Path, contents: StoreStatistics, rows: Sequence[Latency]) -> None:
    """What is in the file, and a line for each operation."""
    spans = contents.spans
    console.print(_clean(f"{path}: {_contents(contents)}"), highlight=False)
    if not spans and not rows:
        console.print("`mapek run` fills it")
        return
    table = Table("service", "operation", "kind", box=None, header_style="bold")
    for name in ("spans", "failed", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: (row.operation.service, -row.spans)):
        table.add_row(
            _clean(row.operation.service),
            _clean(row.operation.name),
            row.operation.kind,
            f"{row.spans:,}",
            Text(f"{row.errors:,}", "red") if row.errors else "0",
            *(show_duration(value) for value in (row.p50, row.p95, row.p99)),
        )
    console.print(table)


def cycle_line(span: FoundSpan) -> str:
    """A cycle in one line."""
    about = span.attributes
    words = [
        _local(span.start),
        f"{about.get('node_id', span.service)} cycle {about.get('cycle', '?')}",
        show_duration(span.duration),
        f"by {about.get('trigger')}" if about.get("trigger") else "",
        f"{about.get('anomalies_detected', 0)} found",
        f"{about.get('actions_executed', 0)} of {about.get('actions_planned', 0)} actions",
        "" if about.get("success", True) else "FAILED",
        span.trace_id,
    ]
    return _printable("  ".join(word for word in words if word))


def span_line(span: FoundSpan) -> str:
    """A span in one line."""
    about = " ".join(f"{key}={value}" for key, value in span.attributes.items())
    failed = "  FAILED" if span.status == "error" else ""
    head = f"{_local(span.start)}  {span.service} {span.name}  {show_duration(span.duration)}{failed}"
    return _printable(f"{head}  {about}  {span.trace_id}")


def trace_object(trace: FoundTrace) -> dict[str, Any]:
    """A trace that was found."""
    return {
        "trace_id": trace.trace_id,
        "root_service": trace.root_service,
        "root_name": trace.root_name,
        "start": str(trace.start),
        "duration": str(trace.end - trace.start),
        "spans": trace.spans,
        "errors": trace.errors,
        "orphans": trace.orphans,
        "services": {
            name: {"spans": each.spans, "errors": each.errors} for name, each in trace.services.items()
        },
        "sets": [
            {
                "matched": each.matched,
                "by": {name: _plain(value) for name, value in each.by},
                "spans": [span_object(span) for span in each.spans],
            }
            for each in trace.sets
        ],
    }


def span_object(span: FoundSpan) -> dict[str, Any]:
    """A span that was found."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "service": span.service,
        "name": span.name,
        "kind": span.kind,
        "status": span.status,
        "start": str(span.start),
        "duration": str(span.duration),
        "attributes": _plain(span.attributes),
        **({"selected": _plain(span.selected)} if span.selected else {}),
    }


def statistics_object(contents: StoreStatistics, rows: Iterable[Latency]) -> dict[str, Any]:
    """What is in the file, and each operation."""
    return {
        "spans": contents.spans,
        "bytes": contents.bytes,
        "oldest": str(contents.oldest),
        "newest": str(contents.newest),
        "operations": [
            {
                "service": row.operation.service,
                "name": row.operation.name,
                "kind": row.operation.kind,
                "spans": row.spans,
                "errors": row.errors,
                "p50_ms": round(row.p50 / 1e6, 6),
                "p95_ms": round(row.p95 / 1e6, 6),
                "p99_ms": round(row.p99 / 1e6, 6),
            }
            for row in rows
        ],
    }


def _contents(contents: StoreStatistics) -> str:
    if not contents.spans:
        return f"no spans, {contents.bytes / 1e6:,.1f} MB"
    each = contents.bytes / contents.spans
    return (
        f"{contents.spans:,} spans from {_local(contents.oldest)} to {_local(contents.newest)}, "
        f"{contents.bytes / 1e6:,.1f} MB, {each:,.0f} bytes a span"
    )


def _chosen(trace: FoundTrace) -> str:
    sets = []
    for each in trace.sets:
        names = dict.fromkeys(span.name for span in each.spans)
        values = [f"{name}={value}" for span in each.spans for name, value in span.selected.items()]
        by = "".join(f"{name}={value}: " for name, value in each.by)
        more = f" and {each.matched - len(each.spans)} more" if each.matched > len(each.spans) else ""
        sets.append(f"{by}{', '.join([*names, *dict.fromkeys(values)])}{more}")
    return "; ".join(sets)


def _local(nanoseconds: int) -> str:
    found = datetime.fromtimestamp(nanoseconds / 1e9, UTC).astimezone()
    today = time.localtime()
    same = (found.year, found.month, found.day) == tuple(today[:3])
    return found.strftime("%H:%M:%S.%f" if same else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def _clean(text: str) -> Text:
    return Text(_printable(text))


def _printable(text: str) -> str:
    # Names and values come from anybody; what a terminal would act on is not sent to it.
    return "".join(character if character.isprintable() else " " for character in text)


def _plain(value: Any) -> Any:
    """The value as JSON has it: bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    # NaN and the infinities are no JSON.
    return str(value) if isinstance(value, float) and value - value != 0 else value
