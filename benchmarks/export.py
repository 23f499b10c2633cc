"""How many of the spans of an asyncio program reach a collector, how fast, and at what cost?

`python -m benchmarks.export` puts our processor beside the SDK's, over OTLP/HTTP and OTLP/gRPC, to a
collector in another process, everything at its default settings. Five questions, each also by itself:

* `speed`: producers make spans as fast as they can. What arrives, what is lost, how late is the loop?
* `lag`: at a steady 3,000 spans a second, how much later is the loop than without tracing?
* `cpu`: what does a span cost, and which piece of its way costs what?
* `dead`: the same when the collector is slow, refuses connections, or never answers.
* `growth`: at 1,000, 10,000 and 100,000 spans a second.

Without options it takes about five minutes; `--thorough`, with the rounds that a claim needs, about
three quarters of an hour. Cycles of six spans with four attributes, one `asyncio.sleep(0)` a cycle.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mapek_runtime.export import pace

from . import export_report, export_senders, measure
from .export_rounds import BLACK_HOLE, REFUSED, SLOW, Case, Collectors, Measured

__all__ = ["main"]

SPEED, LAG, CPU, DEAD, GROWTH = "speed", "lag", "cpu", "dead", "growth"
QUESTIONS = (SPEED, LAG, CPU, DEAD, GROWTH)

WHOLE = (
    export_senders.OURS_HTTP,
    export_senders.OURS_GRPC,
    export_senders.BEHIND_SDK,
    export_senders.SDK_HTTP,
    export_senders.SDK_GRPC,
)
FEW = (export_senders.OURS_HTTP, export_senders.SDK_HTTP)


class Effort(NamedTuple):
    """How long, how often, and for whom."""

    seconds: float
    rounds: int
    senders: tuple[str, ...]


SHORT = {
    SPEED: Effort(1.5, 2, (*WHOLE, export_senders.OURS_MADE, export_senders.NOTHING)),
    LAG: Effort(3.0, 4, (*FEW, export_senders.SDK_GRPC, export_senders.NOTHING)),
    CPU: Effort(0.5, 3, tuple(export_senders.SENDERS)),
    DEAD: Effort(1.0, 1, FEW),
    GROWTH: Effort(2.0, 1, (*FEW, export_senders.NOTHING)),
}
THOROUGH = {
    SPEED: Effort(3.0, 5, (*WHOLE, export_senders.OURS_MADE, export_senders.NOTHING)),
    LAG: Effort(8.0, 11, (*WHOLE, export_senders.NOTHING)),
    CPU: Effort(2.0, 9, tuple(export_senders.SENDERS)),
    DEAD: Effort(3.0, 3, WHOLE),
    GROWTH: Effort(5.0, 3, (*WHOLE, export_senders.NOTHING)),
}
SHORT_CAP, THOROUGH_CAP = 10.0, 40.0


def main() -> None:
    """Run the benchmark and print what was found."""
    options = _options()
    facts = {
        **measure.machine(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "loop": "uvloop" if options.uvloop else "asyncio",
        "our defaults": _defaults(),
        "the SDK's defaults": "queue 2,048, batch 512, no compression",
    }
    if not options.json:
        print(__doc__.splitlines()[0])
        print("; ".join(f"{key}: {value}" for key, value in facts.items()))
        print("median (lowest to highest) of the rounds", flush=True)
    began = time.perf_counter()
    found: dict[str, list[Measured]] = {}
    with Collectors.serving() as collectors:
        for question in options.questions:
            effort = _effort(question, options)
            if not options.json:
                print(f"\n{question}: {effort.rounds} rounds of {effort.seconds:g} s", flush=True)
            found[question] = []
            for case in _cases(question, effort, options):
                measured = collectors.measure(case, _tell)
                found[question].append(measured)
                if not options.json:
                    print(
                        "\n" + "\n".join(filter(None, (part(measured) for part in PARTS[question]))),
                        flush=True,
                    )
    if options.json:
        print(
            json.dumps(
                {
                    **facts,
                    "questions": {
                        question: [measured.as_json() for measured in cases]
                        for question, cases in found.items()
                    },
                }
            )
        )
        return
    print(f"\n{time.perf_counter() - began:.0f} s in all", end="")
    print("" if options.thorough else "; for figures to rely on, in quiet time: --thorough")


PARTS: dict[str, tuple[Callable[[Measured], str], ...]] = {
    SPEED: (
        export_report.speed,
        export_report.alone,
        export_report.accounts,
        export_report.delivered,
        export_report.saturation,
    ),
    LAG: (export_report.lag, export_report.added_lag, export_report.accounts),
    CPU: (export_report.cpu,),
    DEAD: (export_report.dead, export_report.accounts),
    GROWTH: (export_report.lag, export_report.accounts),
}


def _cases(question: str, effort: Effort, options: argparse.Namespace) -> Iterator[Case]:
    def case(title: str, **load: object) -> Case:
        return Case(
            title=title,
            senders=effort.senders,
            seconds=effort.seconds,
            rounds=effort.rounds,
            uvloop=options.uvloop,
            keep_ids=options.ids,
            **load,  # type: ignore[arg-type] # the keywords below are fields of a case
        )

    if question == SPEED:
        for count in options.producers:
            yield case(f"full speed, {count:,} producer{'s' if count > 1 else ''}", producers=count)
    elif question == LAG:
        yield case(f"{options.rate:,.0f} spans/s", rate=options.rate)
    elif question == CPU:
        yield case("CPU time of a span, in bursts that are flushed, nothing lost", bursts=True)
    elif question == DEAD:
        cap = THOROUGH_CAP if options.thorough else SHORT_CAP
        for collector in (SLOW, REFUSED, BLACK_HOLE):
            yield case(f"full speed, collector: {collector}", collector=collector, cap=cap)
    else:
        for rate in options.rates:
            yield case(f"{rate:,.0f} spans/s", rate=rate)


def _effort(question: str, options: argparse.Namespace) -> Effort:
    usual = (THOROUGH if options.thorough else SHORT)[question]
    return Effort(
        options.seconds or usual.seconds,
        options.rounds or usual.rounds,
        tuple(options.senders) if options.senders else usual.senders,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"{', '.join(QUESTIONS)}; all of them unless given"
    )
    parser.add_argument("--thorough", action="store_true", help="more rounds, longer, and every sender")
    parser.add_argument("--seconds", type=float, help="load time of a sender in a round")
    parser.add_argument("--rounds", type=int, help="how often each sender has its turn")
    parser.add_argument("--senders", nargs="+", choices=export_senders.SENDERS, metavar="SENDER")
    parser.add_argument("--producers", type=int, nargs="+", default=[1, 100, 10_000], help="of `speed`")
    parser.add_argument("--rate", type=float, default=3_000, help="spans a second, of `lag`")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[1_000, 10_000, 100_000], help="of `growth`"
    )
    parser.add_argument("--ids", action="store_true", help="the collector keeps the id of every span")
    parser.add_argument("--uvloop", action="store_true", help="in every process that is measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object, every round in it")
    options = parser.parse_args()
    if unknown := [question for question in options.questions if question not in QUESTIONS]:
        parser.error(f"there is no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    options.questions = options.questions or list(QUESTIONS)
    return options


def _defaults() -> str:
    """The settings that a processor of ours has when nobody sets any."""
    found = {name: value for name, value in vars(pace).items() if name.startswith(("DEFAULT_", "FULL_"))}
    return ", ".join(
        f"{name.removeprefix('DEFAULT_').lower().replace('_', ' ')} {value:,}"
        for name, value in found.items()
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
