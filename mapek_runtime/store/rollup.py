"""Durations as counts in buckets, from which percentiles are read without looking at a span.

A bucket is an eighth of a doubling: a percentile that is read at its middle is off by at most 4.4 %.
Pure; the writer counts, `latencies` reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["MINUTE", "bucket_of", "middle_of", "percentile"]

MINUTE = 60_000_000_000
"""Nanoseconds."""
_PER_DOUBLING = 8


def bucket_of(duration: int) -> int:
    """The bucket of a duration in nanoseconds; a negative one counts as 0."""
    return int(_PER_DOUBLING * math.log2(duration + 1)) if duration > 0 else 0


def middle_of(bucket: int) -> float:
    """Nanoseconds in the middle of a bucket, on the scale of its logarithm."""
    return 2.0 ** ((bucket + 0.5) / _PER_DOUBLING) - 1.0 if bucket else 0.0


def percentile(counts: Mapping[int, int], share: float) -> float:
    """The duration in nanoseconds that `share` of all do not exceed (nearest rank); nan for none.

    `counts`: how many there are in each bucket.
    """
    total = sum(counts.values())
    if not total:
        return math.nan
    rank = max(1, math.ceil(share * total))
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return middle_of(bucket)
    raise AssertionError("ranks end at the total")
