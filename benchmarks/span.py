"""What does a span cost, beside the stock SDK's?

Four attributes (str, int, float, bool) a span, nesting depth 2, a processor that does nothing: the
cost of making and ending a span, as `with tracer.start_as_current_span(...)`, as `start_span` and
`end`, and as a decorator. Both sides run with the context storage of this package, which is put in
place by its provider; `--stock-context` keeps the API's own storage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from opentelemetry import context as context_api
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

from . import measure

QUESTION = "What does a span cost, beside the stock SDK's?"
SPANS = 4000


def _block(tracer: Tracer) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter_ns()
        for number in range(SPANS // 2):
            attributes: dict[str, AttributeValue] = {
                "name": "x",
                "number": number,
                "share": 0.5,
                "good": True,
            }
            with (
                tracer.start_as_current_span("outer", attributes=attributes),
                tracer.start_as_current_span("inner", attributes=attributes),
            ):
                pass
        return (time.perf_counter_ns() - began) / SPANS

    return run


def _start_and_end(tracer: Tracer) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter_ns()
        for number in range(SPANS):
            attributes: dict[str, AttributeValue] = {
                "name": "x",
                "number": number,
                "share": 0.5,
                "good": True,
            }
            tracer.start_span("span", attributes=attributes).end()
        return (time.perf_counter_ns() - began) / SPANS

    return run


def _decorated(tracer: Tracer) -> Callable[[], float]:
    attributes: dict[str, AttributeValue] = {"name": "x", "number": 1, "share": 0.5, "good": True}

    @tracer.start_as_current_span("outer", attributes=attributes)
    def outer() -> None:
        inner()

    @tracer.start_as_current_span("inner", attributes=attributes)
    def inner() -> None:
        pass

    def run() -> float:
        began = time.perf_counter_ns()
        for _ in range(SPANS // 2):
            outer()
        return (time.perf_counter_ns() - began) / SPANS

    return run


def main() -> None:
    """Print the table."""
    parser = measure.arguments(QUESTION, rounds=15)
    parser.add_argument(
        "--stock-context", action="store_true", help="keep the API's own context storage for both sides"
    )
    options = parser.parse_args()
    if options.stock_context:
        # A storage that is not the stock one is somebody's choice: ours stays away from it.
        os.environ.setdefault("OTEL_PYTHON_CONTEXT", "contextvars_context")
        context_api._RUNTIME_CONTEXT = type("Kept", (type(context_api._RUNTIME_CONTEXT),), {})()
    from . import variants

    runs: dict[str, Callable[[], float]] = {}
    for name in variants.PROVIDERS:
        runs[name] = _block(variants.tracer(name))
    runs["stock SDK, start and end"] = _start_and_end(variants.tracer("stock SDK"))
    runs["recorded, start and end"] = _start_and_end(variants.tracer("recorded"))
    runs["stock SDK, decorator"] = _decorated(variants.tracer("stock SDK"))
    runs["recorded, decorator"] = _decorated(variants.tracer("recorded"))
    rows = measure.compare(runs, reference="stock SDK", rounds=options.rounds)
    measure.report(QUESTION, rows, unit="span", rounds=options.rounds, as_json=options.json)


if __name__ == "__main__":
    main()
