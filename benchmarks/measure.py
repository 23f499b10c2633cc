"""How every benchmark measures: interleaved rounds, ratios to the reference of the same round.

What only computes is timed by the CPU time of its thread (`clock`), so that whatever else the machine
does is not counted as far as a clock can tell.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import opentelemetry.sdk.version

__all__ = [
    "Beside",
    "Row",
    "Variant",
    "arguments",
    "clock",
    "compare",
    "machine",
    "report",
    "sample",
    "show",
    "table",
]

clock = time.thread_time_ns
"""CPU time of this thread in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a variant is compared with, and the ratio that was promised, if one was."""

    reference: str
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """Something to be timed: `run` gives nanoseconds per operation."""

    run: Callable[[], float]
    beside: Sequence[Beside] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison: nanoseconds per operation and the ratio to the reference, over all rounds.

    A variant that is compared with nothing has no ratio; one that is compared twice has two rows.
    """

    name: str
    median_ns: float
    min_ns: float
    reference: str | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within its target; None where there is none."""
        return None if self.ratio is None or self.target is None else self.ratio <= self.target


def machine() -> dict[str, str]:
    """Where a number was found: the machine, the interpreter and the SDK that it stands beside."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "opentelemetry_sdk": opentelemetry.sdk.version.__version__,
    }


def arguments(question: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds that count, after one that does not"
    )
    parser.add_argument("--json", action="store_true", help="print JSON objects, one a line, not tables")
    return parser


def sample(runs: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Run each once a round, in rotating order, after one round that does not count."""
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            elapsed = runs[name]()
            if turn:
                samples[name].append(elapsed)
        if sys.stderr.isatty():
            print(f"\rround {turn}/{rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return samples


def compare(variants: Mapping[str, Variant], *, rounds: int) -> list[Row]:
    """Measure the variants in one interleaved run."""
    return table(variants, sample({name: variant.run for name, variant in variants.items()}, rounds=rounds))


def table(variants: Mapping[str, Variant], samples: Mapping[str, Sequence[float]]) -> list[Row]:
    """The rows of what was measured."""
    rows = []
    for name, variant in variants.items():
        mine = samples[name]
        median, least = statistics.median(mine), min(mine)
        if not variant.beside:
            rows.append(Row(name=name, median_ns=median, min_ns=least))
        for beside in variant.beside:
            ratios = [a / b for a, b in zip(mine, samples[beside.reference], strict=True)]
            rows.append(
                Row(
                    name=name,
                    median_ns=median,
                    min_ns=least,
                    reference=beside.reference,
                    ratio=statistics.median(ratios),
                    ratio_min=min(ratios),
                    ratio_max=max(ratios),
                    target=beside.target,
                )
            )
    return rows


def report(question: str, rows: Sequence[Row], *, unit: str, rounds: int, as_json: bool) -> None:
    """Print the machine and the rows."""
    show(
        {
            "question": question,
            **machine(),
            "rounds": rounds,
            "unit": unit,
        },
        rows,
        as_json=as_json,
    )


def show(facts: Mapping[str, object], rows: Sequence[Row], *, as_json: bool) -> None:
    """Print rows under the facts of the run; the first fact is the question."""
    if as_json:
        print(json.dumps({**facts, "rows": [_rounded(row) for row in rows]}))
        return
    question, *others = facts.items()
    print(question[1])
    print(", ".join(f"{key} {value}" for key, value in others))
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'median ns':>11}  {'min ns':>11}  {'ratio':>6}  {'(min-max)':13}  to")
    before = ""
    for row in rows:
        line = f"{'':{width}}  {'':11}  {'':11}"
        if row.name != before:
            line = f"{row.name:{width}}  {row.median_ns:>11,.0f}  {row.min_ns:>11,.0f}"
        before = row.name
        if row.ratio is not None:
            spread = f"({row.ratio_min:.3f}-{row.ratio_max:.3f})"
            line += f"  {row.ratio:>6.3f}  {spread:13}  {row.reference}"
        if row.target is not None:
            line += f"; target {row.target:g}: {'met' if row.met else 'not met'}"
        print(line.rstrip())


def _rounded(row: Row) -> dict[str, object]:
    found = {
        key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(row).items()
    }
    return {**found, "met": row.met}
