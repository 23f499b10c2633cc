"""`TraceStore`: the file of spans as the rest of the house sees it.

As an exporter it takes OTLP bytes and returns when they are in the file; to whoever asks it answers with
the values of `model`. Threads do the work: `writing` has one, `reading` a few.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

from mapek_runtime.errors import StoreError, TransportError, TransportRejected
from mapek_runtime.trace.forks import follow_forks

from . import brushed, catalog, latency, pages, search, traces, values
from .model import (
    Brush,
    ChosenSpans,
    Dependency,
    Difference,
    FoundSpan,
    Latency,
    Operation,
    SearchResult,
    SpanPage,
    StoredTrace,
    Value,
)
from .query.syntax import AllSpans, Field, Query
from .reading import Readers
from .writing import StoreStatistics, Writing, contents

__all__ = ["TraceStore"]

WEEK = 604_800.0
"""Seconds."""
GIBIBYTE = 1 << 30
_LEAST = 1 << 20
EVERYTHING = Query(AllSpans())


class TraceStore:
    """A trace store in the file `path`, which is made where there is none.

        async with TraceStore("traces.sqlite") as store:
            provider.add_span_processor(BatchSpanProcessor(store))
            ...
            found = await store.search(parse('name="mape_k.*" AND duration >= 50ms'))

    Spans older than `max_age` seconds are let go, and the oldest ones when the file would be larger than
    `max_bytes`. Several processes may write one file. With `read_only` nothing is made, written or let go.

    Times are in nanoseconds since 1970 and about the start of a span; None is no bound. Whatever reads
    raises `StoreError` when the file cannot be read, and `QueryError` for what cannot be asked.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_age: float = WEEK,
        max_bytes: int = GIBIBYTE,
        read_only: bool = False,
    ) -> None:
        if not max_age > 0:
            raise ValueError(f"max_age is {max_age!r}; it must be positive: seconds")
        if max_bytes < _LEAST:
            raise ValueError(f"max_bytes is {max_bytes!r}; it must be at least {_LEAST}, a mebibyte")
        self.path = Path(path)
        self._readers = Readers(self.path)
        self._writing = None if read_only else Writing(self.path, max_age=max_age, max_bytes=max_bytes)
        follow_forks(self.after_fork)

    def __repr__(self) -> str:
        return f"TraceStore({str(self.path)!r})"

    @property
    def endpoint(self) -> str:
        """Where it is, as exporters say it."""
        return str(self.path)

    async def __aenter__(self) -> TraceStore:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the file now, and not with the first span or question. Raises `StoreError`."""
        if self._writing is not None:
            await self._writing.open()
        await self._readers.ask(catalog.services)

    async def aclose(self) -> None:
        """Write what still waits and close the file."""
        await self._readers.aclose()
        if self._writing is not None:
            await self._writing.aclose()

    def after_fork(self) -> None:
        """Leave the file to the parent; this process opens it anew when it needs it."""
        self._readers.after_fork()
        if self._writing is not None:
            self._writing.after_fork()

    # Writing

    async def send(self, payload: bytes, count: int, /) -> None:
        """Write a request of `count` spans; it is in the file when this returns.

        Raises TransportRejected for spans without valid ids and for what is no request, and TransportError
        when the file cannot be written.
        """
        if self._writing is None:
            raise TransportError(f"{self!r} is open to read only", error_type="read_only")
        try:
            written = await self._writing.write(payload)
        except StoreError as error:
            raise TransportError(str(error), error_type="store") from None
        if written.error:
            raise TransportRejected(f"no OTLP request: {written.error}", rejected_spans=count)
        if written.refused:
            raise TransportRejected(
                f"{written.refused} of {count} spans have no valid trace id and span id",
                rejected_spans=written.refused,
            )

    def statistics(self) -> StoreStatistics:
        """What is in the file, as it was after the last write of this process; zeros when read only."""
        return StoreStatistics() if self._writing is None else self._writing.statistics

    # Questions

    async def search(
        self,
        query: Query,
        *,
        limit: int = 20,
        spans_per_set: int = 3,
        start: int | None = None,
        end: int | None = None,
        before: int | None = None,
        time_limit: float = 5.0,
    ) -> SearchResult:
        """Traces of which the query chose spans, the newest first.

        At most `limit`, with at most `spans_per_set` spans in each set; `before` of the result before
        gives the next ones. After `time_limit` seconds it gives what it found so far.
        """
        deadline = time.monotonic() + time_limit
        return await self._readers.search(
            lambda connection: search.search(
                connection, query, limit=limit, spans_per_set=spans_per_set, start=start, end=end,
                before=before, deadline=deadline,
            )
        )  # fmt: skip

    async def durations(
        self,
        query: Query,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 5000,
        time_limit: float = 5.0,
    ) -> ChosenSpans:
        """The newest spans that the query chose, at most `limit`."""
        deadline = time.monotonic() + time_limit
        return await self._readers.search(
            lambda connection: search.choose(
                connection, query, start=start, end=end, limit=limit, deadline=deadline
            )
        )

    async def difference(
        self,
        query: Query,
        brush: Brush,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 20_000,
        time_limit: float = 5.0,
    ) -> Difference:
        """What distinguishes the brushed spans from the others that the query chose, most first.

        At most `limit` spans are compared, the newest: half of them brushed ones. `start` and `end` bound
        both.
        """
        deadline = time.monotonic() + time_limit
        return await self._readers.search(
            lambda connection: brushed.difference(
                connection, query, brush, start=start, end=end, limit=limit, deadline=deadline
            )
        )

    async def pages(
        self,
        query: Query = EVERYTHING,
        *,
        start: int | None = None,
        end: int | None = None,
        size: int = 10_000,
        time_limit: float = 60.0,
    ) -> AsyncIterator[SpanPage]:
        """Every span that the query chooses and that is stored now, the oldest first, each once.

        A page is what is chosen of `size` rows, or less of large spans; it may be empty. One that takes
        more than `time_limit` seconds raises `QueryError`.
        """
        rows = await self._readers.search(lambda connection: pages.rows(connection, start, end))
        once = pages.Once()
        position = rows.start
        while position < rows.stop:
            within, deadline = range(position, min(position + size, rows.stop)), time.monotonic() + time_limit

            def ask(
                connection: sqlite3.Connection, within: range = within, deadline: float = deadline
            ) -> pages.Page:
                return pages.page(connection, query, within, once, start=start, end=end, deadline=deadline)

            page = await self._readers.ask(ask)
            position = page.last + 1
            yield SpanPage(data=page.data, spans=page.spans, done=(position - rows.start) / len(rows))

    async def newest(
        self, after: int = -1, *, query: Query = EVERYTHING, limit: int = 1000
    ) -> tuple[int, tuple[FoundSpan, ...]]:
        """What arrived after row `after`, and the row to go on from; after=-1: nothing, only that row.

        At most the `limit` newest of them.
        """
        deadline = time.monotonic() + 5.0
        return await self._readers.search(
            lambda connection: catalog.newest(connection, after, query, limit, deadline)
        )

    async def trace(self, trace_id: str, *, offset: int = 0, limit: int = 10_000) -> StoredTrace | None:
        """The spans of a trace, `limit` of them from `offset` on; None when there are none at all.

        Fewer where they are large: a page goes on behind the spans of the page before, not behind its limit.
        Spans are in the order of their start; in a trace of more than 100,000 only within each page, and
        pages are in the order of arrival. Raises QueryError for what is no trace id.
        """
        return await self._readers.search(lambda connection: traces.read(connection, trace_id, offset, limit))

    async def ids(self, beginning: str, *, limit: int = 5) -> tuple[str, ...]:
        """Ids of traces that begin so, at most `limit`. Raises QueryError for what is no beginning of one."""
        return await self._readers.ask(lambda connection: traces.ids(connection, beginning, limit))

    async def contents(self) -> StoreStatistics:
        """What is in the file now, whoever writes it."""
        return await self._readers.ask(contents)

    async def services(self) -> tuple[str, ...]:
        """The names of all services, in order."""
        return await self._readers.ask(catalog.services)

    async def operations(self, service: str | None = None, kind: str | None = None) -> tuple[Operation, ...]:
        """What the spans of a service, or of all, are called, in order: at most the first ten thousand."""
        return await self._readers.ask(lambda connection: catalog.operations(connection, service, kind))

    async def tags(
        self,
        *,
        scope: str | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int = 1000,
    ) -> dict[str, tuple[str, ...]]:
        """The keys of attributes by scope, as they were among the newest spans."""
        return await self._readers.search(
            lambda connection: values.tags(connection, scope=scope, start=start, end=end, limit=limit)
        )

    async def tag_values(
        self,
        field: Field,
        *,
        query: Query = EVERYTHING,
        start: int | None = None,
        end: int | None = None,
        limit: int = 1000,
        time_limit: float = 2.0,
    ) -> tuple[Value, ...]:
        """The values that a field had among the spans that the query chose, the newest first."""
        deadline = time.monotonic() + time_limit
        return await self._readers.search(
            lambda connection: values.values(
                connection, field, query, start=start, end=end, limit=limit, deadline=deadline
            )
        )

    async def latencies(
        self,
        *,
        service: str | None = None,
        name: str | None = None,
        start: int | None = None,
        end: int | None = None,
        step: float | None = None,
    ) -> tuple[Latency, ...]:
        """Counts and percentiles of each operation, by whole minutes.

        `step` in seconds, a multiple of 60: one row for each operation and step; None: one for the
        whole time. Spans that were let go are counted as long as their minute is kept.
        """
        return await self._readers.search(
            lambda connection: latency.latencies(
                connection, service=service, name=name, start=start, end=end, step=step
            )
        )

    async def dependencies(
        self, *, start: int | None = None, end: int | None = None, time_limit: float = 5.0
    ) -> tuple[Dependency, ...]:
        """Which service calls which, among the newest spans of that time."""
        deadline = time.monotonic() + time_limit
        return await self._readers.search(
            lambda connection: catalog.dependencies(connection, start, end, deadline)
        )
