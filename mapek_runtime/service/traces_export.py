"""`mapek traces export`: spans of the store into a file that other tools read, however many they are.

A page at a time, so that memory does not grow with the spans; into a file beside the wanted one, which
takes its name when it is whole.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from mapek_runtime.errors import ConfigError, StoreError
from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.model import SpanPage
from mapek_runtime.store.otlp_json import to_json
from mapek_runtime.store.query.dictionary import kind_of, status_of

__all__ = ["COLUMNS", "Destination", "destination", "write_spans"]

COLUMNS = (
    "trace_id", "span_id", "parent_id", "service", "name", "kind", "status", "status_message", "start",
    "duration_ns", "attributes", "resource", "scope", "events", "links",
)  # fmt: skip
"""One row a span. Attributes, events and links are JSON text: unlike a map of strings it keeps the types of
values, and DuckDB and pandas read it with their own functions."""
_ROW_GROUP = 20_000
_LATEST = (1 << 63) - 1
_FEW_VALUES = ["service", "name", "kind", "status", "resource", "scope"]


class Destination(Protocol):
    """Writes pages of spans, as TracesData, into one file."""

    def write(self, data: bytes) -> None:
        """Add a page."""

    def close(self) -> None:
        """Write what is left, so that the file is whole."""


def destination(path: Path) -> Callable[[Path], Destination]:
    """What writes a file of this name, by its ending. Raises `ConfigError` for another one."""
    ending = path.suffix.lower()
    if ending == ".jsonl":
        return _Lines
    if ending != ".parquet":
        raise ConfigError(
            f"{str(path)!r} ends in {ending!r}; it must end in .parquet, or in .jsonl for "
            "OTLP JSON, a request a line"
        )
    try:
        arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise ConfigError(
            "Parquet is written with pyarrow, which is not installed: pip install 'mapek-runtime[parquet]', "
            "or name a file that ends in .jsonl"
        ) from None
    return lambda file: _Parquet(file, arrow, parquet)


async def write_spans(
    pages: AsyncIterator[SpanPage],
    path: Path,
    make: Callable[[Path], Destination],
    progress: Callable[[float, int], None],
) -> int:
    """Write all pages into `path`, which is replaced at the end; how many spans they were.

    `progress` is told the share that is done and the spans so far. Raises `StoreError` when the file cannot
    be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    spans = 0
    try:
        writer = await asyncio.to_thread(make, beside)
        try:
            async for page in pages:
                await asyncio.to_thread(writer.write, page.data)
                spans += page.spans
                progress(page.done, spans)
        finally:
            await asyncio.to_thread(writer.close)
        beside.replace(path)
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be written: {error.strerror or error}; name a file in a folder that "
            "this user may write, with room for it"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
    return spans


class _Lines:
    """OTLP JSON lines: an ExportTraceServiceRequest each, as the collector's file exporter writes them."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")

    def write(self, data: bytes) -> None:
        if data:
            self._file.write(msgspec.json.encode(to_json(data)) + b"\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Columns of `COLUMNS`, in row groups."""

    # pyarrow has no types.
    def __init__(self, path: Path, arrow: Any, parquet: Any) -> None:
        self._arrow = arrow
        types = {"start": arrow.timestamp("ns", tz="UTC"), "duration_ns": arrow.int64()}
        self._schema = arrow.schema(
            [(name, types.get(name, arrow.string())) for name in COLUMNS],
            metadata={"about": "spans, one a row; attributes, resource, events and links are JSON"},
        )
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=_FEW_VALUES
        )
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def write(self, data: bytes) -> None:
        columns = list(self._columns.values())
        for group in TracesData.FromString(data).resource_spans:
            attributes = as_dict(group.resource.attributes)
            service = str(attributes.get("service.name") or "unknown_service")
            resource = _json(attributes)
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    row = _row(span, service, resource, scoped.scope.name)
                    for column, value in zip(columns, row, strict=True):
                        column.append(value)
        if len(columns[0]) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        if self._columns["trace_id"]:
            self._writer.write_table(self._arrow.Table.from_pydict(self._columns, schema=self._schema))
            for column in self._columns.values():
                column.clear()


def _row(span: Span, service: str, resource: str, scope: str) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    start = min(span.start_time_unix_nano, _LATEST)
    return (
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        service,
        span.name,
        kind_of(span.kind),
        status_of(span.status.code),
        span.status.message or None,
        start,
        max(min(span.end_time_unix_nano, _LATEST) - start, 0),
        _json(as_dict(span.attributes)),
        resource,
        scope,
        _json([
            {"name": event.name, "time": event.time_unix_nano, "attributes": as_dict(event.attributes)}
            for event in span.events
        ]),
        _json([
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": as_dict(link.attributes),
            }
            for link in span.links
        ]),
    )  # fmt: skip


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _json(value: Any) -> str:
    try:
        return _encode(value) if value else "[]" if isinstance(value, list) else "{}"
    except (TypeError, ValueError):
        # Bytes, or a number that JSON has no word for.
        return _encode(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
