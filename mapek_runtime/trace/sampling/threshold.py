"""Thresholds: how a probability, a trace's randomness and `ot=th:` fit together.

Functions over numbers and text, nothing else. A trace is kept when its randomness, 56 bits that
everybody who sees the trace can read, is at least the rejection threshold; so whoever keeps with a
higher probability keeps all that others keep. Rules and names are those of the specification
(trace/tracestate-probability-sampling.md and trace/tracestate-handling.md).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = [
    "DIGITS",
    "EVERYTHING",
    "LEAST_RATIO",
    "RANDOMNESS",
    "SubKeys",
    "adjusted_count",
    "decode_threshold",
    "encode_threshold",
    "probability_of",
    "read_sub_keys",
    "threshold_of",
    "write_sub_keys",
]

BITS = 56
EVERYTHING = 1 << BITS
"""The number of different thresholds: this one would reject every trace, and is none."""
RANDOMNESS = EVERYTHING - 1
"""The bits of a trace id that are its randomness."""
LEAST_RATIO = 2.0**-BITS
DIGITS = 4
"""Significant hexadecimal digits of a threshold unless told otherwise, as the specification advises."""

_MOST_DIGITS = BITS // 4
_MOST_TEXT = 256
_THRESHOLD = re.compile(r"[0-9a-f]{1,14}", re.ASCII)
_RANDOMNESS = re.compile(r"[0-9a-f]{14}", re.ASCII)


def threshold_of(ratio: float, digits: int = DIGITS) -> int:
    """The threshold that keeps `ratio` of all traces, rounded to `digits` significant digits.

    Leading `f`s do not count as significant, so that small ratios are as exact as large ones.
    Raises ValueError for a ratio outside 2^-56 to 1, or digits outside 1 to 14.
    """
    if not LEAST_RATIO <= ratio <= 1:
        raise ValueError(f"ratio is {ratio!r}; it must be from 2^-56 to 1")
    if not 1 <= digits <= _MOST_DIGITS:
        raise ValueError(f"digits is {digits!r}; it must be from 1 to {_MOST_DIGITS}")
    _, exponent = math.frexp(ratio)
    digits = min(_MOST_DIGITS, digits + max(0, exponent // -4))
    threshold = EVERYTHING - round(ratio * EVERYTHING)
    shift = 4 * (_MOST_DIGITS - digits)
    if shift:
        threshold = (threshold + (1 << (shift - 1))) >> shift << shift
    return threshold


def probability_of(threshold: int) -> float:
    """The share of traces that a threshold keeps."""
    return (EVERYTHING - threshold) / EVERYTHING


def adjusted_count(threshold: int) -> float:
    """How many traces one that was kept at this threshold stands for."""
    return EVERYTHING / (EVERYTHING - threshold)


def encode_threshold(threshold: int) -> str:
    """The value of `th`: hexadecimal, without the zeros at its end."""
    return f"{threshold:014x}".rstrip("0") or "0"


def decode_threshold(text: str) -> int | None:
    """The threshold that a value of `th` says; None when it says none."""
    return int(text.ljust(_MOST_DIGITS, "0"), 16) if _THRESHOLD.fullmatch(text) else None


class SubKeys(NamedTuple):
    """What the `ot` entry of a trace state says: `threshold`, `randomness`, and all but `th` as text."""

    threshold: int | None
    randomness: int | None
    others: tuple[str, ...]


def read_sub_keys(text: str) -> SubKeys:
    """Read the value of an `ot` entry, whoever wrote it; what cannot be read counts as absent.

    Of a key that stands there twice the first one counts.
    """
    threshold = randomness = None
    others: dict[str, str] = {}
    for part in text.split(";"):
        member = part.strip()
        key, _, value = member.partition(":")
        if key == "th":
            if threshold is None:
                threshold = decode_threshold(value)
        elif member and key not in others:
            others[key] = member
            if key == "rv" and _RANDOMNESS.fullmatch(value):
                randomness = int(value, 16)
    return SubKeys(threshold, randomness, tuple(others.values()))


def write_sub_keys(threshold: str | None, others: tuple[str, ...]) -> str:
    """The value of an `ot` entry; empty when there is nothing to say.

    A threshold that would make it longer than the 256 characters allowed is left out: what the others
    wrote comes first.
    """
    rest = ";".join(others)
    if threshold is None:
        return rest
    text = f"th:{threshold};{rest}" if rest else f"th:{threshold}"
    return text if len(text) <= _MOST_TEXT else rest
