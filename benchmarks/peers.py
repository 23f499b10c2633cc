"""What does a span cost, beside other tracers, each in a process of its own?

The stock SDK in a process that ours never enters, ours, and ddtrace and logfire where they are
installed; what one patches, the others do not see. The processes live through the whole run and take
turns over a pipe. Nothing is sent: traces are dropped where each tracer lets one drop them, so what it
really costs is more. CPU time of the thread that makes the spans.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from . import measure, ways
from .measure import Beside, Variant, clock

__all__ = ["show"]

QUESTION = "What does a span cost, beside other tracers, each in a process of its own?"
PEERS = ("ddtrace", "logfire")
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
}


def show(*, rounds: int, as_json: bool) -> None:
    """Measure and print the table."""
    installed = {name: importlib.metadata.version(name) for name in PEERS if importlib.util.find_spec(name)}
    found = [f"{name} {version}" for name, version in installed.items()]
    found += [f"{name} is not installed" for name in PEERS if name not in installed]
    with ExitStack() as processes:
        variants = {}
        for name in ("stock SDK", "mapek", *installed):
            for ending in ("", ", unsampled"):
                stock = () if name == "stock SDK" else (Beside(reference="stock SDK" + ending),)
                run = processes.enter_context(_process(name + ending))
                variants[name + ending] = Variant(run, stock)
        rows = measure.compare(variants, rounds=rounds)
    question = f"{QUESTION} ({'; '.join(found)})"
    measure.report(question, rows, unit="span", rounds=rounds, as_json=as_json)


@contextmanager
def _process(name: str) -> Iterator[Callable[[], float]]:
    """A process that measures that tracer whenever it is asked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, **QUIET},
    )
    asked, answered = process.stdin, process.stdout
    assert asked is not None
    assert answered is not None

    def ask() -> float:
        asked.write("\n")
        answer = answered.readline()
        if not answer:
            raise RuntimeError(f"the process of {name!r} has ended with {process.wait()}")
        return float(answer)

    try:
        yield ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            asked.close()
        answered.close()
        process.wait(10)


def _stock(*, sampled: bool) -> ways.Run:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    provider = TracerProvider(sampler=None if sampled else ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    return ways.block(provider.get_tracer("benchmarks"))


def _mapek(*, sampled: bool) -> ways.Run:
    from . import variants

    return ways.block(variants.tracer("recorded" if sampled else "unsampled"))


def _ddtrace(*, sampled: bool) -> ways.Run:
    if not sampled:
        os.environ["DD_TRACE_SAMPLING_RULES"] = '[{"sample_rate": 0}]'
    trace: Any = importlib.import_module("ddtrace.trace")

    class Drop(trace.TraceFilter):  # type: ignore[misc]  # not typed where it is not installed
        """Drops every trace before it is written."""

        def process_trace(self, _spans: Any) -> None:
            return None

    tracer = trace.tracer
    tracer.configure(trace_processors=[Drop()])

    def run() -> float:
        began = clock()
        for number in range(ways.SPANS // 2):
            attributes = {"name": "x", "number": number, "share": 0.5, "good": True}
            with tracer.trace("outer") as outer:
                outer.set_tags(attributes)
                with tracer.trace("inner") as inner:
                    inner.set_tags(attributes)
        return (clock() - began) / ways.SPANS

    return run


def _logfire(*, sampled: bool) -> ways.Run:
    logfire: Any = importlib.import_module("logfire")
    logfire.configure(
        send_to_logfire=False,
        console=False,
        metrics=False,
        sampling=logfire.SamplingOptions(head=1.0 if sampled else 0.0),
    )

    def run() -> float:
        began = clock()
        for number in range(ways.SPANS // 2):
            attributes = {"name": "x", "number": number, "share": 0.5, "good": True}
            with logfire.span("outer", **attributes), logfire.span("inner", **attributes):
                pass
        return (clock() - began) / ways.SPANS

    return run


def _answer() -> None:
    """Be one of the processes: for every line that comes in, measure and write nanoseconds a span."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    name, _, ending = parser.parse_args().name.partition(", ")
    makers = {"stock SDK": _stock, "mapek": _mapek, "ddtrace": _ddtrace, "logfire": _logfire}
    # What a tracer has to say must not get between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1) as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        run = makers[name](sampled=not ending)
        for _ in sys.stdin:
            gc.collect()
            print(run(), file=answers)


if __name__ == "__main__":
    _answer()
