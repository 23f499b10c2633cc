"""What the processors of a provider want to be told of each span."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.sdk import trace as sdk

__all__ = ["Pipeline"]


class Pipeline:
    """The callbacks of a provider's processors, without those that do nothing.

    `end` calls all that there is to call when a span ends; where that is one callback, it is `end`.
    """

    __slots__ = ("end", "on_end", "on_ending", "on_start")

    def __init__(self) -> None:
        self.on_start: tuple[Callable[..., None], ...] = ()
        self.on_ending: tuple[Callable[..., None], ...] = ()
        self.on_end: tuple[Callable[..., None], ...] = ()
        self.end: Callable[..., None] = self.end_all

    def follow(self, processor: sdk.SpanProcessor) -> None:
        """Take the callbacks from the SDK's multi-processor, flattened where it only loops."""
        flat: tuple[sdk.SpanProcessor, ...] = (processor,)
        if type(processor) is sdk.SynchronousMultiSpanProcessor:
            flat = processor._span_processors
        self.on_start = tuple(p.on_start for p in flat if _does(p, "on_start"))
        self.on_ending = tuple(p._on_ending for p in flat if _does(p, "_on_ending"))
        self.on_end = tuple(p.on_end for p in flat if _does(p, "on_end"))
        self.end = self.end_all if self.on_ending or len(self.on_end) != 1 else self.on_end[0]

    def end_all(self, span: object) -> None:
        """Tell every processor that `span` is about to end, then that it has ended."""
        for on_ending in self.on_ending:
            on_ending(span)
        for on_end in self.on_end:
            on_end(span)


def _does(processor: sdk.SpanProcessor, what: str) -> bool:
    """Whether it has the callback, and not the one of the base class that does nothing."""
    mine = getattr(type(processor), what, None) or getattr(processor, what, None)
    return mine is not None and mine is not getattr(sdk.SpanProcessor, what)
