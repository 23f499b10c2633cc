"""What does each piece of a sampled span cost?

Each piece is timed alone, with the objects that a span really uses, less the turn of an empty loop;
what is left of the whole is the code between the pieces: look-ups, comparisons, stores and branches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context.context import Context
from opentelemetry.trace import SpanKind

from mapek_runtime.trace.limits import PLAIN_TYPES
from mapek_runtime.trace.span import Span

from . import measure, variants, ways
from .measure import Beside, Variant, clock

__all__ = ["show"]

QUESTION = "What does each piece of a sampled span cost?"
TURNS = 10_000
WHOLE = "mapek, block"
REST = "the rest: what lies between"


def show(*, rounds: int, as_json: bool) -> None:
    """Measure and print the table."""
    tracer: Any = variants.tracer("recorded")
    runs: dict[str, Callable[[], float]] = {
        "stock SDK, block": ways.block(variants.tracer("stock SDK")),
        WHOLE: ways.block(tracer),
    }
    whole = (Beside(reference=WHOLE),)
    alone = {
        "the loop and half a dictionary": _dictionary(),
        "the call and the block": _call_and_block(),
        "the object: made, filled, freed": _object(tracer),
        "the ContextVar: get, set, reset": _context_variable(tracer),
        "ids: one, and half a trace id": _ids(tracer),
        "clock, twice": _clocks(tracer),
        "attributes: checked": _check(),
        "attributes: copied": _copy(),
        "the processor: on_end": _processor(tracer),
    }
    samples = measure.sample({**runs, **alone}, rounds=rounds)
    parts = zip(*(samples[name] for name in alone), strict=True)
    samples[REST] = [total - sum(part) for total, part in zip(samples[WHOLE], parts, strict=True)]
    rows = measure.table(
        {
            "stock SDK, block": Variant(runs["stock SDK, block"]),
            WHOLE: Variant(runs[WHOLE], (Beside(reference="stock SDK, block"),)),
            **{name: Variant(run, whole) for name, run in alone.items()},
            REST: Variant(lambda: 0.0, whole),
        },
        samples,
    )
    measure.report(QUESTION, rows, unit="span", rounds=rounds, as_json=as_json)


def _less_empty(run: Callable[[], int]) -> Callable[[], float]:
    """`run` without what its loop costs anyway."""

    def net() -> float:
        elapsed = run()
        began = clock()
        for _ in range(TURNS):
            pass
        return (elapsed - (clock() - began)) / TURNS

    return net


def _dictionary() -> Callable[[], float]:
    def run() -> float:
        began = clock()
        for number in range(TURNS):
            {"name": "x", "number": number, "share": 0.5, "good": True}  # noqa: B018 - made, not used
        # Two spans share a turn and its dictionary.
        return (clock() - began) / TURNS / 2

    return run


class _Nothing:
    """A tracer and a block that do nothing, called as ours are."""

    __slots__ = ()

    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> _Nothing:
        return self

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        pass


def _call_and_block() -> Callable[[], float]:
    nothing = _Nothing()

    def run() -> int:
        attributes = ways.ATTRIBUTES
        began = clock()
        for _ in range(TURNS):
            with nothing.start_as_current_span("span", attributes=attributes):
                pass
        return clock() - began

    return _less_empty(run)


def _object(tracer: Any) -> Callable[[], float]:
    def run() -> int:
        new, kind, attributes = object.__new__, SpanKind.INTERNAL, ways.ATTRIBUTES
        began = clock()
        for _ in range(TURNS):
            span: Any = new(Span)
            span._tracer = tracer
            span._name = "span"
            span._kind = kind
            span._attributes = attributes
            span._spec = None
            span._token = None
            span._plain = True
            span._base = None
            span._trace_id = 1
            span._parent_id = 1
            span._flags = 1
            span._span_id = 1
            span._end_time = None
            span._start_time = 1
        return clock() - began

    return _less_empty(run)


def _context_variable(tracer: Any) -> Callable[[], float]:
    def run() -> int:
        get, attach, reset = tracer.get, tracer.set, tracer.reset
        span = get()
        began = clock()
        for _ in range(TURNS):
            get()
            reset(attach(span))
        return clock() - began

    return _less_empty(run)


def _ids(tracer: Any) -> Callable[[], float]:
    def run() -> int:
        draw = tracer.draw
        began = clock()
        for _ in range(TURNS // 2):
            draw(128)
            draw(64)
        for _ in range(TURNS // 2):
            draw(64)
        return clock() - began

    return _less_empty(run)


def _clocks(tracer: Any) -> Callable[[], float]:
    def run() -> int:
        now = tracer.now
        began = clock()
        for _ in range(TURNS):
            now()
            now()
        return clock() - began

    return _less_empty(run)


def _check() -> Callable[[], float]:
    def run() -> int:
        attributes, plain = ways.ATTRIBUTES, PLAIN_TYPES
        began = clock()
        for _ in range(TURNS):
            for value in attributes.values():
                if type(value) not in plain:
                    raise TypeError(f"{value!r} is not plain")
        return clock() - began

    return _less_empty(run)


def _copy() -> Callable[[], float]:
    def run() -> int:
        attributes = ways.ATTRIBUTES
        began = clock()
        for _ in range(TURNS):
            {**attributes}  # noqa: B018 - made, not used
        return clock() - began

    return _less_empty(run)


def _processor(tracer: Any) -> Callable[[], float]:
    def run() -> int:
        end = tracer.pipeline.end
        began = clock()
        for _ in range(TURNS):
            end(None)
        return clock() - began

    return _less_empty(run)
