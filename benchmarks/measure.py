"""How every benchmark measures: interleaved rounds, ratios to the reference of the same round."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import opentelemetry.sdk.version

__all__ = ["Row", "arguments", "compare", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant: nanoseconds per operation and its ratio to the reference, over all rounds."""

    name: str
    median_ns: float
    min_ns: float
    ratio: float
    ratio_min: float
    ratio_max: float


def arguments(question: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds that count, after one that does not"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def compare(variants: Mapping[str, Callable[[], float]], *, reference: str, rounds: int) -> list[Row]:
    """Run each variant once a round, in rotating order; each returns nanoseconds per operation."""
    names = list(variants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            elapsed = variants[name]()
            if turn:
                samples[name].append(elapsed)
        if sys.stderr.isatty():
            print(f"\rround {turn}/{rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rows = []
    for name in names:
        ratios = [mine / base for mine, base in zip(samples[name], samples[reference], strict=True)]
        rows.append(
            Row(
                name=name,
                median_ns=statistics.median(samples[name]),
                min_ns=min(samples[name]),
                ratio=statistics.median(ratios),
                ratio_min=min(ratios),
                ratio_max=max(ratios),
            )
        )
    return rows


def report(question: str, rows: Sequence[Row], *, unit: str, rounds: int, as_json: bool) -> None:
    """Print the machine and the rows."""
    machine = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "opentelemetry_sdk": opentelemetry.sdk.version.__version__,
        "rounds": rounds,
    }
    if as_json:
        table = [
            {
                "name": row.name,
                "median_ns": round(row.median_ns),
                "min_ns": round(row.min_ns),
                "ratio": round(row.ratio, 4),
                "ratio_min": round(row.ratio_min, 4),
                "ratio_max": round(row.ratio_max, 4),
            }
            for row in rows
        ]
        print(json.dumps({"question": question, **machine, "unit": unit, "rows": table}))
        return
    print(question)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'median ns':>10}  {'min ns':>10}  {'ratio':>7}  (min-max)   per {unit}")
    for row in rows:
        print(
            f"{row.name:{width}}  {row.median_ns:>10,.0f}  {row.min_ns:>10,.0f}  {row.ratio:>7.3f}  "
            f"({row.ratio_min:.3f}-{row.ratio_max:.3f})"
        )
