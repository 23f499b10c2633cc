"""What does it cost to share knowledge, how large does it become, and when are all the same again?

    python -m benchmarks.crdt [--rounds 9] [--incidents 10000] [--json]

A commit is what a cycle has learned: an incident, its outcome and two facts, in one transaction. A merge is
that update at another node: examined, tried, applied, and looked at for what it has changed. CPU time of one
thread.

Then one node closes many more incidents than are kept, with facts that change with each of them: bytes of
an update, and of the whole with what is old swept away and without, and what it takes to give all of it to a
node that knows nothing. Then five nodes are parted, learn on both sides, and are joined again: the time from
there until all have the same state. Last what tracing costs: CPU time for each span in the domain's own
code, recorded and not in turn, and what that is of all that a demonstration with faults takes at its default
rate. It takes a minute or two.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mapek_domains.crdt.document import Document, Limits
from mapek_domains.crdt.replica import Replica
from mapek_runtime import Knowledge
from mapek_runtime.trace import use_provider

from . import measure, variants
from .crdt_growth import batch, grown, lives, without_compaction
from .crdt_running import partitions, service, traced
from .measure import Beside, Variant, clock

QUESTION = "What does it cost to share knowledge, how large does it become, and when are all the same again?"
MOST_SPAN_US = 8.0
MOST_SHARE = 0.03
COMMITS = 400
TAKE = "merge into Knowledge, tracing off"


@functools.cache
def _updates() -> Sequence[bytes]:
    document = Document("node-1")
    return tuple(document.commit(batch(number))[0] for number in range(COMMITS))


def _commit() -> float:
    document = Document("node-1")
    batches = [batch(number) for number in range(COMMITS)]
    began = clock()
    for each in batches:
        document.commit(each)
    return (clock() - began) / COMMITS


def _merge() -> float:
    updates, document = _updates(), Document("node-2")
    began = clock()
    for update in updates:
        document.merge(document.examine(update))
    return (clock() - began) / COMMITS


def _engine_alone() -> float:
    from pycrdt import Doc

    updates, document = _updates(), Doc[Any]()
    began = clock()
    for update in updates:
        document.apply_update(update)
    return (clock() - began) / COMMITS


def _again() -> float:
    updates, document = _updates(), Document("node-2")
    for update in updates:
        document.merge(document.examine(update))
    began = clock()
    for update in updates:
        document.is_news(document.examine(update))
    return (clock() - began) / COMMITS


def _take(provider: str) -> Callable[[], float]:
    made = variants.PROVIDERS[provider]()

    async def run() -> float:
        updates = _updates()
        replica = Replica("node-2", limits=Limits())
        replica.attach(Knowledge())
        began = clock()
        for update in updates:
            replica.take(update, None)
        return (clock() - began) / COMMITS

    def measured() -> float:
        with use_provider(made):
            return asyncio.run(run())

    return measured


def _variants() -> dict[str, Variant]:
    tracing = {
        f"merge into Knowledge, {name}": Variant(_take(name), (Beside(reference=TAKE),))
        for name in ("unsampled", "recorded", "stock SDK")
    }
    return {
        "commit of a cycle": Variant(_commit),
        "the engine alone, of a merge": Variant(_engine_alone),
        "merge": Variant(_merge, (Beside(reference="the engine alone, of a merge"),)),
        "what is known already": Variant(_again, (Beside(reference="merge"),)),
        TAKE: Variant(_take("off")),
        **tracing,
    }


def _print(rows: Sequence[Mapping[str, float]]) -> None:
    names = list(rows[0])
    print("  ".join(f"{name:>17}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:>17,}" for name in names))


def _now(stage: str) -> None:
    print(f"{stage} …", file=sys.stderr, flush=True)


def _met(value: float, most: float) -> str:
    return "met" if value <= most else "not met"


def main() -> None:
    """Print the tables."""
    parser = measure.arguments(QUESTION, rounds=9)
    parser.add_argument("--incidents", type=int, default=10_000, help="incidents that one node closes")
    parser.add_argument("--kept", type=int, default=1000, help="how many of them are kept")
    parser.add_argument("--lives", type=int, default=300, help="lives of one node")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of each kind")
    parser.add_argument("--pairs", type=int, default=1500, help="pairs of short runs, traced and not")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the demonstration runs")
    options = parser.parse_args()
    _now(f"1/5 commits and merges, {options.rounds} rounds")
    rows = measure.compare(_variants(), rounds=options.rounds)
    _now(f"2/5 {options.incidents:,} incidents, swept and not")
    sizes = grown(options.incidents, options.kept)
    with without_compaction() as everything:
        unswept = grown(options.incidents, everything, steps=2)
    crashes = lives(options.lives)
    _now(f"3/5 partitions, {options.partitions} of each kind")
    healed = partitions(options.partitions)
    _now(f"4/5 tracing, {options.pairs} pairs")
    spans = traced(options.pairs)
    _now(f"5/5 a demonstration of {options.seconds:g} s")
    run = service(options.seconds, spans["us_a_span"])
    measure.report(QUESTION, rows, unit="merge", rounds=options.rounds, as_json=options.json)
    if options.json:
        found = {"sizes": sizes, "unswept": unswept, "lives": crashes, "partitions": healed}
        print(json.dumps({**found, "tracing": spans, "service": run}))
        return
    print(f"\n{options.incidents:,} incidents, of which {options.kept:,} are kept, and two facts with each:")
    _print(sizes)
    print("\nthe same, where nothing is swept away:")
    _print(unswept)
    print("\nlives of one node:")
    _print([crashes])
    print("\nfive nodes that were parted, from the end of the partition until all have the same state:")
    _print(healed)
    print(
        f"\ntracing: {spans['us_a_span']:.2f} µs of CPU a span (quartiles {spans['us_a_span_25']:.2f} to "
        f"{spans['us_a_span_75']:.2f}) of {spans['us_a_step']:.0f} µs for a commit, its broadcast and its "
        f"merge; target {MOST_SPAN_US:g}: {_met(spans['us_a_span'], MOST_SPAN_US)}"
    )
    print(
        f"a demonstration at its default rate: {run['spans_a_second']:.2f} crdt spans a second, which is "
        f"{run['share']:.4%} of its CPU ({run['cpu']:.1%} of a core); target {MOST_SHARE:.0%}: "
        f"{_met(run['share'], MOST_SHARE)}"
    )


if __name__ == "__main__":
    main()
