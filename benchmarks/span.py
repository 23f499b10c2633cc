"""What does a span cost, beside the stock SDK's?

Four attributes (str, int, float, bool) a span, nested two deep, a processor that does nothing: the CPU
time of making and ending a span, in each of the ways to make one, recorded and not. Each row stands
beside the same way under the stock SDK, with the ratio that was promised where one was.

The first table has the context storage of this package, which its provider puts in place, on both
sides; the second, measured in another process, the API's own. The third places the whole of each
tracer beside others that are installed (`benchmarks.peers`); `--pieces` says what the pieces of a span
cost (`benchmarks.pieces`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from opentelemetry import context as context_api
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from mapek_runtime import SpanGroup, traced
from mapek_runtime.trace import use_provider

from . import measure, peers, pieces, variants, ways
from .measure import Beside, Row, Variant

QUESTION = "What does a span cost, beside the stock SDK's?"
SAMPLED, UNSAMPLED, LESS = 0.10, 0.125, 1.0
"""What was promised with the storage of ours: of the SDK's sampled span, of its unsampled one, and to
cost less at all."""


def main() -> None:
    """Print the tables."""
    parser = measure.arguments(QUESTION, rounds=15)
    parser.add_argument("--pieces", action="store_true", help="say what each piece of a sampled span costs")
    parser.add_argument(
        "--stock-context", action="store_true", help="only the table with the API's own context storage"
    )
    options = parser.parse_args()
    if options.stock_context:
        _keep_stock_context()
    if options.pieces:
        pieces.show(rounds=options.rounds, as_json=options.json)
        return
    storage = "the API's own" if options.stock_context else "ours"
    measure.report(
        f"{QUESTION} (context storage of both sides: {storage})",
        measure.compare(_variants(promised=not options.stock_context), rounds=options.rounds),
        unit="span",
        rounds=options.rounds,
        as_json=options.json,
    )
    if not options.stock_context:
        _separator(options)
        _with_stock_context(options)
        _separator(options)
        peers.show(rounds=options.rounds, as_json=options.json)


def _variants(*, promised: bool) -> dict[str, Variant]:
    sampled, unsampled, less = (SAMPLED, UNSAMPLED, LESS) if promised else (None, None, None)
    stock = {
        "stock SDK, block": ways.block(variants.tracer("stock SDK")),
        "stock SDK, block in a coroutine": ways.async_block(variants.tracer("stock SDK"), plain_with=True),
        "stock SDK, start and end": ways.start_and_end(variants.tracer("stock SDK")),
        "stock SDK, decorator": _decorated("stock SDK"),
        "stock SDK, block, unsampled": ways.block(variants.tracer("stock SDK, unsampled")),
        "stock SDK, block, 1 in 100": ways.block(variants.tracer("stock SDK, 1 in 100")),
        "stock SDK, block, disabled": ways.block(variants.tracer("stock SDK, disabled")),
        "no-op provider, block": ways.block(variants.tracer("off")),
    }
    block = Beside(reference="stock SDK, block", target=sampled)
    disabled = Beside(reference="stock SDK, block, disabled", target=less)
    no_op = Beside(reference="no-op provider, block", target=less)
    decorator = Beside(reference="stock SDK, decorator", target=sampled)
    return {name: Variant(run) for name, run in stock.items()} | {
        "mapek, block": Variant(ways.block(variants.tracer("recorded")), (block, disabled, no_op)),
        "mapek, async block": Variant(
            ways.async_block(variants.tracer("recorded"), plain_with=False),
            (Beside(reference="stock SDK, block in a coroutine"),),
        ),
        "mapek, start and end": Variant(
            ways.start_and_end(variants.tracer("recorded")),
            (Beside(reference="stock SDK, start and end"),),
        ),
        "mapek, decorator": Variant(_decorated("recorded"), (decorator,)),
        "mapek, @traced": Variant(_traced(), (decorator,)),
        "mapek, declared span, block": Variant(_declared(), (Beside(reference="stock SDK, block"),)),
        "mapek, block, unsampled": Variant(
            ways.block(variants.tracer("unsampled")),
            (Beside(reference="stock SDK, block, unsampled", target=unsampled),),
        ),
        "mapek, block, 1 in 100": Variant(
            ways.block(variants.tracer("1 in 100")),
            (Beside(reference="stock SDK, block, 1 in 100", target=unsampled),),
        ),
    }


def _decorated(name: str) -> ways.Run:
    tracer = variants.tracer(name)
    return ways.decorated(lambda span: tracer.start_as_current_span(span, attributes=ways.ATTRIBUTES))


def _traced() -> ways.Run:
    run = ways.decorated(lambda span: traced(span, attributes=ways.ATTRIBUTES))
    return _under(variants.PROVIDERS["recorded"](), run)


def _declared() -> ways.Run:
    group = SpanGroup("benchmark")

    @group.span
    def outer(name: str, number: int, share: float, good: bool) -> None:
        """The outer span."""

    @group.span
    def inner(name: str, number: int, share: float, good: bool) -> None:
        """The inner span."""

    def run() -> float:
        began = measure.clock()
        for number in range(ways.SPANS // 2):
            with outer("x", number, 0.5, True), inner("x", number, 0.5, True):
                pass
        return (measure.clock() - began) / ways.SPANS

    return _under(variants.PROVIDERS["recorded"](), run)


def _under(provider: Any, run: ways.Run) -> ways.Run:
    def under() -> float:
        with use_provider(provider):
            return run()

    return under


def _keep_stock_context() -> None:
    class Chosen(ContextVarsRuntimeContext):
        """The stock storage by another name: somebody's choice, from which ours stays away."""

    context_api._RUNTIME_CONTEXT = Chosen()


def _with_stock_context(options: argparse.Namespace) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.span",
            "--stock-context",
            "--json",
            "--rounds",
            str(options.rounds),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Mapping[str, Any] = json.loads(done.stdout)
    facts = {key: value for key, value in found.items() if key != "rows"}
    rows = [Row(**{key: value for key, value in row.items() if key != "met"}) for row in found["rows"]]
    measure.show(facts, rows, as_json=options.json)


def _separator(options: argparse.Namespace) -> None:
    if not options.json:
        print()


if __name__ == "__main__":
    main()
