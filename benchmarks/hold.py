"""What does a cycle cost that decides for itself whether it is kept?

A cycle is a root and five phases with two attributes each, made in one go. Held, its spans wait until
it ends (`CycleSampler`); it stands beside the same cycle simply recorded, and, because what is dropped
need not be encoded, beside one that is recorded and encoded for the collector in batches of 512.
Sending comes on top for what was encoded (`python -m benchmarks.export`). CPU time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import Tracer

from mapek_runtime import TracerProvider
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.trace.sampling import CycleSampler

from . import measure, variants
from .measure import Beside, Variant, clock

QUESTION = "What does a cycle cost that decides for itself whether it is kept?"
CYCLES = 1500
PHASES = ("mape_k.monitor", "mape_k.analyze", "mape_k.plan", "mape_k.execute", "mape_k.knowledge")
BATCH = 512
NEVER_SLOW = 1e9
"""So many times the usual duration: here no cycle is kept because the machine was busy."""

RECORDED, ENCODED = "recorded", "recorded and encoded"


class _Encode(sdk.SpanProcessor):
    """Encodes what it gets, in batches."""

    def __init__(self) -> None:
        self._waiting: list[sdk.ReadableSpan] = []

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self._waiting.append(span)
        if len(self._waiting) >= BATCH:
            encode_spans(self._waiting)
            self._waiting.clear()


def _cycles(sampler: Sampler, processor: sdk.SpanProcessor, *, anomalies: int = 0) -> Callable[[], float]:
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer: Tracer = provider.get_tracer("benchmarks")

    def run() -> float:
        start, nothing = tracer.start_as_current_span, Context()
        began = clock()
        for number in range(CYCLES):
            with start("mape_k.cycle", context=nothing, attributes={"node_id": "node-1", "cycle": number}):
                for name in PHASES:
                    with start(name, attributes={"node_id": "node-1", "anomalies_detected": anomalies}):
                        pass
        return (clock() - began) / CYCLES

    return run


def _held(quiet_ratio: float) -> Sampler:
    sampler, _holds = CycleSampler.over(DEFAULT_ON, quiet_ratio=quiet_ratio, slow=NEVER_SLOW)
    return sampler


def _beside(*references: str) -> Sequence[Beside]:
    return tuple(Beside(reference=reference) for reference in references)


def main() -> None:
    """Print the table."""
    parser = measure.arguments(QUESTION, rounds=15)
    options = parser.parse_args()
    discard = variants.Discard
    rows = measure.compare(
        {
            RECORDED: Variant(_cycles(DEFAULT_ON, discard())),
            ENCODED: Variant(_cycles(DEFAULT_ON, _Encode()), _beside(RECORDED)),
            "not sampled at all": Variant(_cycles(DEFAULT_OFF, discard()), _beside(RECORDED, ENCODED)),
            "held and dropped": Variant(_cycles(_held(0), discard()), _beside(RECORDED, ENCODED)),
            "held and kept": Variant(_cycles(_held(1), discard()), _beside(RECORDED)),
            "held and kept for an anomaly": Variant(
                _cycles(_held(0), discard(), anomalies=1), _beside(RECORDED)
            ),
            "held, kept and encoded": Variant(_cycles(_held(1), _Encode()), _beside(ENCODED)),
            "held, 1 in 100 kept and encoded": Variant(_cycles(_held(0.01), _Encode()), _beside(ENCODED)),
        },
        rounds=options.rounds,
    )
    measure.report(QUESTION, rows, unit="cycle", rounds=options.rounds, as_json=options.json)


if __name__ == "__main__":
    main()
