"""What does it cost to write a span as OTLP, and how long does the encoder hold the event loop?

The reference is the SDK's encoder and the serialization of its message, for the same spans: six
attributes (two strings, two integers, a float, a bool), half of the spans with a parent. Every round
encodes spans that are new, so that nothing has been seen before but what a program repeats: strings
are all different, or five in turn. Both must give the same bytes before anything is timed.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_by_sdk
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource

from mapek_runtime.export.encode import RequestBuilder, encode_spans
from mapek_runtime.trace import TracerProvider

from .measure import Beside, Variant, arguments, clock, report, sample, table

__all__ = ["main", "measure"]

RESOURCE = Resource({"service.name": "benchmark"})
OWN_TARGET, SDK_TARGET = 0.11, 0.25
STRINGS = ("unique", "repeated")
_draw = random.Random(7)


def main() -> None:
    """Print what a span costs, and how long the longest steps take."""
    question = "What does it cost to write a span as OTLP?"
    parser = arguments(question, rounds=31)
    parser.add_argument("--count", type=int, default=512, help="spans of one encoding")
    options = parser.parse_args()
    variants = _variants(options.count)
    samples = sample({name: variant.run for name, variant in variants.items()}, rounds=options.rounds)
    report(
        question,
        table(variants, samples),
        unit="ns of CPU time per span",
        rounds=options.rounds,
        as_json=options.json,
    )
    steps = _steps()
    if options.json:
        print(json.dumps({"steps_ms": steps}))
        return
    print("\nWhat cannot be interrupted, in ms of CPU time (median; least):")
    for name, (median, least) in steps.items():
        print(f"  {name:54} {median:>8.3f} {least:>8.3f}")


def measure(count: int = 512, rounds: int = 31) -> dict[str, Any]:
    """Nanoseconds per span and ratios to the SDK's encoder, for unique and for repeated strings."""
    variants = _variants(count)
    samples = sample({name: variant.run for name, variant in variants.items()}, rounds=rounds)
    found: dict[str, Any] = {}
    for strings in STRINGS:
        reference = samples[f"{strings}: sdk"]
        found[strings] = {}
        for name in ("sdk", "own spans", "spans of the SDK"):
            mine = samples[f"{strings}: {name}"]
            ratios = [ours / theirs for ours, theirs in zip(mine, reference, strict=True)]
            found[strings][name] = {
                "ns_per_span": statistics.median(mine),
                "min_ns": min(mine),
                "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            }
    return found


def _variants(count: int) -> dict[str, Variant]:
    own, stock = _Source(TracerProvider(resource=RESOURCE)), _Source(sdk.TracerProvider(resource=RESOURCE))
    variants = {}
    for strings in STRINGS:
        for source in (own, stock):
            spans = source.spans(strings, count)
            assert encode_spans(spans) == encode_by_sdk(spans).SerializeToString(), "the bytes differ"
        reference = f"{strings}: sdk"
        variants[reference] = Variant(_timed(stock, strings, count, _by_sdk))
        variants[f"{strings}: own spans"] = Variant(
            _timed(own, strings, count, encode_spans), [Beside(reference=reference, target=OWN_TARGET)]
        )
        variants[f"{strings}: spans of the SDK"] = Variant(
            _timed(stock, strings, count, encode_spans), [Beside(reference=reference, target=SDK_TARGET)]
        )
    return variants


def _timed(
    source: _Source, strings: str, count: int, encode: Callable[[Sequence[Any]], bytes]
) -> Callable[[], float]:
    def run() -> float:
        spans = source.spans(strings, count)
        gc.collect()
        start = clock()
        encode(spans)
        return (clock() - start) / count

    return run


def _by_sdk(spans: Sequence[Any]) -> bytes:
    return encode_by_sdk(spans).SerializeToString()


class _Source(sdk.SpanProcessor):
    """Makes ended spans with one provider."""

    def __init__(self, provider: sdk.TracerProvider) -> None:
        self._ended: list[Any] = []
        provider.add_span_processor(self)
        self._tracer = provider.get_tracer("benchmark")

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self._ended.append(span)

    def spans(self, strings: str, count: int) -> list[Any]:
        self._ended = []
        for number in range(count // 2):
            text = f"node-{_draw.random()}" if strings == "unique" else f"node-{number % 5}"
            attributes: dict[str, Any] = {
                "node_id": text, "cycle": number, "confidence": _draw.random(), "success": True,
                "reason": text + "!", "size": 100_000 + _draw.randrange(100_000),
            }  # fmt: skip
            outer = self._tracer.start_as_current_span("mape_k.cycle", attributes=attributes)
            with outer, self._tracer.start_as_current_span("mape_k.monitor", attributes=attributes):
                pass
        return self._ended

    def huge(self) -> list[Any]:
        """One span as large as the default limits let it be, with texts of 10 kB."""
        self._ended = []
        with self._tracer.start_as_current_span("huge") as span:
            for number in range(128):
                text = f"{number:010}" * 1000
                span.set_attribute(f"attribute-{number}", text)
                span.add_event("event", {"text": text})
        return self._ended


def _steps(rounds: int = 15) -> dict[str, tuple[float, float]]:
    source = _Source(TracerProvider(resource=RESOURCE))
    found: dict[str, list[float]] = {}

    def walk(name: str, spans: list[Any]) -> None:
        builder = RequestBuilder()
        gc.collect()
        adding = 0.0
        for first in range(0, len(spans), 32):
            start = clock()
            builder.add(spans[first : first + 32])
            adding = max(adding, clock() - start)
        filled = clock()
        builder.build()
        found.setdefault(f"{name}, the longest slice of 32", []).append(adding / 1e6)
        found.setdefault(f"{name}, build", []).append((clock() - filled) / 1e6)

    for _ in range(rounds):
        walk("4,096 spans", source.spans("unique", 4096))
        walk("a span with 128 texts and 128 events of 10 kB", source.huge())
    return {name: (statistics.median(times), min(times)) for name, times in found.items()}


if __name__ == "__main__":
    main()
