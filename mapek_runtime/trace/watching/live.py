"""`LiveSpans`: the spans that are open now, those that are open too long, and those never ended.

A span reaches its exporter when it ends; until then, and when it never does, nobody sees it. This
processor looks at open spans without keeping one alive. Off unless added, because it costs:

    async with LiveSpans(older_than=30, leaks=True) as live:
        provider.add_span_processor(live)

It exports nothing, so a span is still exported once. It works behind the SDK's own provider too.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk

from mapek_runtime.trace.forks import follow_forks
from mapek_runtime.trace.span import Span

from .birth import NOWHERE, Birth, Births
from .weak import OpenSpan, Watch, forgetting, is_older, look, watches

__all__ = ["LiveSpans", "OpenSpan"]

logger = logging.getLogger(__name__)

MANY = 1000
"""How many spans a beat looks at before it gives the loop a turn."""
PLACES_TOLD = 3
"""How many places of birth a log line names."""


class LiveSpans(sdk.SpanProcessor):
    """A live view of open spans, a heartbeat of old ones, and a count of those never ended.

    The heartbeat is a task, from `start()` to `stop()` or for an `async with`. Every `older_than`
    seconds it logs a line for each span open at least that long, oldest first and at most `most` of
    them, gives those to `on_beat`, and counts the others in one line. It also tells, in one line, of
    spans that were collected without having ended.

    Such a span is always counted; with `leaks=True`, which costs more, by its place of birth too. It
    is gone when that is noticed, with all that it had recorded, so it cannot be ended or exported.
    """

    def __init__(
        self,
        *,
        older_than: float = 30.0,
        most: int = 20,
        on_beat: Callable[[Sequence[OpenSpan]], object] | None = None,
        leaks: bool = False,
    ) -> None:
        if not older_than > 0:
            raise ValueError(f"older_than is {older_than!r}; it must be more than 0 seconds")
        if most < 1:
            raise ValueError(f"most is {most!r}; it must be at least 1 span a beat")
        if inspect.iscoroutinefunction(on_beat):
            raise TypeError(f"on_beat is {on_beat!r}; it must be a plain function, which is not awaited")
        self.older_than = older_than
        self.most = most
        self._on_beat = on_beat
        self._births = Births() if leaks else None
        self._unplaced = Birth(NOWHERE)
        self._told = 0
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        # Every change is one step of a dictionary, so no thread needs a lock, nor does the garbage
        # collector, which may call `_gone` between any two steps of ours.
        self._open: dict[tuple[int, int], Watch] = {}
        self._gone = forgetting(self._open)
        follow_forks(self._after_fork)

    # The SDK's interface

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        """Watch a span that has started."""
        if self._stopped:
            return
        watch = Watch(span, self._gone)
        watch.birth = self._unplaced if self._births is None else self._births.here()
        if type(span) is Span:
            key = (span._trace_id, span._span_id)
        else:
            context = span.get_span_context()
            key = (context.trace_id, context.span_id)
        watch.key = key
        self._open[key] = watch

    def on_end(self, span: sdk.ReadableSpan) -> None:
        """Forget a span that has ended."""
        # By its ids: what the SDK's spans hand over at their end is a copy.
        if type(span) is Span:
            self._open.pop((span._trace_id, span._span_id), None)
        elif (context := span.context) is not None:
            self._open.pop((context.trace_id, context.span_id), None)

    def shutdown(self) -> None:
        """Stop the heartbeat, tell of what was lost, and watch no more."""
        self._close()
        task, self._task = self._task, None
        if task is not None:
            _cancel_from_anywhere(task)

    async def ashutdown(self, timeout: float | None = None) -> bool:
        """The same, waiting until the heartbeat has stopped."""
        self._close()
        await self.stop()
        return True

    # The view

    @property
    def open_count(self) -> int:
        """How many spans are open."""
        return len(self._open)

    def open_spans(self, *, older_than: float = 0.0) -> tuple[OpenSpan, ...]:
        """The spans that are open now, in the order in which they started.

        `older_than`: only those that have been open for so many seconds.
        """
        seen = (look(watch, older_than) for watch in watches(self._open))
        return tuple(span for span in seen if span is not None)

    @property
    def leaked(self) -> int:
        """How many spans were collected without having ended."""
        return self._unplaced.count + (0 if self._births is None else self._births.count)

    def leaks(self) -> Mapping[str, int]:
        """The same by place of birth, the worst first; empty without `leaks=True`."""
        return {} if self._births is None else self._births.counted()

    # The heartbeat

    def start(self) -> None:
        """Start the heartbeat on the running loop, if it does not beat already."""
        loop = asyncio.get_running_loop()
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            return
        # Born in an empty context: it is no child of the span that happens to be open here.
        self._task = loop.create_task(self._run(), name="mapek-live-spans", context=contextvars.Context())

    async def stop(self) -> None:
        """Stop the heartbeat; the view goes on."""
        task, self._task = self._task, None
        if task is None:
            return
        if task.get_loop() is not asyncio.get_running_loop():
            _cancel_from_anywhere(task)
            return
        task.cancel()
        # Not awaited, so that a cancellation of the caller is not taken for the task's.
        await asyncio.wait([task])

    async def __aenter__(self) -> LiveSpans:
        self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            self._tell_leaks()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            # By appointment: pauses that add up would make a span miss a beat of its own.
            due = max(due + self.older_than, clock())
            await asyncio.sleep(due - clock())
            try:
                await self._beat()
            except Exception:
                logger.warning("a beat of the live spans failed; the next is due", exc_info=True)

    async def _beat(self) -> None:
        told: list[OpenSpan] = []
        more = 0
        for number, watch in enumerate(watches(self._open)):
            if number % MANY == MANY - 1:
                await asyncio.sleep(0)
            # Looked at by a function, so that no name here holds a span while the loop turns.
            if len(told) < self.most:
                span = look(watch, self.older_than)
                if span is not None:
                    told.append(span)
            elif is_older(watch, self.older_than):
                more += 1
        self._tell_leaks()
        for span in told:
            logger.info(
                "span %r has been open for %.1f s",
                span.name,
                span.age,
                # `name` itself is the logger's name in every record.
                extra={
                    "trace_id": f"{span.trace_id:032x}",
                    "span_id": f"{span.span_id:016x}",
                    "span_name": span.name,
                    "age": span.age,
                },
            )
        if more:
            logger.info("%d more spans have been open for %g s or longer", more, self.older_than)
        if told and self._on_beat is not None:
            self._on_beat(tuple(told))

    def _tell_leaks(self) -> None:
        lost = self.leaked
        new, self._told = lost - self._told, lost
        if new > 0:
            worst = [f"{place} ({count})" for place, count in self.leaks().items()][:PLACES_TOLD]
            where = f"; most at {', '.join(worst)}" if worst else "; leaks=True tells where they began"
            logger.warning("spans were collected without end(): %d now, %d in all%s", new, lost, where)

    def _close(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._tell_leaks()
        # Nobody will tell of their end, so their collection would say nothing.
        self._open.clear()

    def _after_fork(self) -> None:
        """This is the child of a fork: open spans, counts and heartbeat are its parent's."""
        self._open.clear()
        self._births = Births() if self._births is not None else None
        self._unplaced = Birth(NOWHERE)
        self._told = 0
        self._task = None


def _cancel_from_anywhere(task: asyncio.Task[None]) -> None:
    try:
        task.get_loop().call_soon_threadsafe(task.cancel)
    except RuntimeError:
        # Its loop is closed, and the task went with it.
        return
