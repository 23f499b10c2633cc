"""Thresholds and the `ot` entry: the specification's own tables, and text that nobody should send."""

from __future__ import annotations

import pytest

from mapek_runtime.trace.sampling.threshold import (
    EVERYTHING,
    adjusted_count,
    decode_threshold,
    encode_threshold,
    probability_of,
    read_sub_keys,
    threshold_of,
    write_sub_keys,
)

# specification, trace/tracestate-probability-sampling.md: 1-in-N, the value of th with 3, 4 and 5 digits.
TABLE = {
    1: ("0", "0", "0"),
    2: ("8", "8", "8"),
    3: ("aab", "aaab", "aaaab"),
    4: ("c", "c", "c"),
    5: ("ccd", "cccd", "ccccd"),
    8: ("e", "e", "e"),
    10: ("e66", "e666", "e6666"),
    16: ("f", "f", "f"),
    100: ("fd71", "fd70a", "fd70a4"),
    1000: ("ffbe7", "ffbe77", "ffbe76d"),
    10_000: ("fff972", "fff9724", "fff97247"),
    100_000: ("ffff584", "ffff583a", "ffff583a5"),
    1_000_000: ("ffffef4", "ffffef39", "ffffef391"),
}


@pytest.mark.parametrize(("n", "texts"), TABLE.items())
def test_one_in_n_is_the_threshold_of_the_specification(n: int, texts: tuple[str, ...]) -> None:
    assert tuple(encode_threshold(threshold_of(1 / n, digits)) for digits in (3, 4, 5)) == texts


def test_four_digits_are_significant_unless_told_otherwise() -> None:
    assert encode_threshold(threshold_of(0.01)) == "fd70a"


# The same table: actual probability and exact adjusted count with 3, 4 and 5 digits.
@pytest.mark.parametrize(
    ("text", "probability", "count"),
    [
        ("fd71", 0.0099945068359375, 100.05496183206107),
        ("fd70a", 0.010000228881835938, 99.99771123402633),
        ("fd70a4", 0.009999990463256836, 100.00009536752259),
        ("ffffef391", 9.999930625781417e-07, 1.0000069374699865e06),
        ("c", 0.25, 4),
        ("0", 1, 1),
    ],
)
def test_a_threshold_says_its_probability_and_its_adjusted_count(
    text: str, probability: float, count: float
) -> None:
    threshold = decode_threshold(text)

    assert threshold is not None
    assert probability_of(threshold) == pytest.approx(probability, rel=1e-12)
    assert adjusted_count(threshold) == pytest.approx(count, rel=1e-12)


def test_the_least_ratio_keeps_one_of_all_values() -> None:
    assert threshold_of(2.0**-56) == EVERYTHING - 1


@pytest.mark.parametrize("ratio", [0.0, -0.1, 2.0**-57, 1.0000001, float("nan"), float("inf")])
def test_a_ratio_that_is_no_probability_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="it must be from 2\\^-56 to 1"):
        threshold_of(ratio)


@pytest.mark.parametrize("digits", [0, 15])
def test_digits_outside_the_56_bits_are_refused(digits: int) -> None:
    with pytest.raises(ValueError, match="it must be from 1 to 14"):
        threshold_of(0.5, digits)


@pytest.mark.parametrize("text", ["", "C", "c_0", "0x1", " c", "c\n", "123456789abcdef", "-1", "٣"])
def test_what_is_no_threshold_is_not_read_as_one(text: str) -> None:
    assert decode_threshold(text) is None


@pytest.mark.parametrize(
    ("text", "threshold", "randomness", "others"),
    [
        ("th:c", 0xC0000000000000, None, ()),
        ("rv:6e6d1a75832a2f;th:0", 0, 0x6E6D1A75832A2F, ("rv:6e6d1a75832a2f",)),
        ("p:8;r:62", None, None, ("p:8", "r:62")),
        ("rv:6E6D1A75832A2F", None, None, ("rv:6E6D1A75832A2F",)),
        ("rv:6e6d1a", None, None, ("rv:6e6d1a",)),
        ("th:c;th:8", 0xC0000000000000, None, ()),
        ("a:1;a:2", None, None, ("a:1",)),
        (";; th:8 ;x;", 0x80000000000000, None, ("x",)),
        ("", None, None, ()),
    ],
)
def test_the_ot_entry_is_read_whoever_wrote_it(
    text: str, threshold: int | None, randomness: int | None, others: tuple[str, ...]
) -> None:
    assert read_sub_keys(text) == (threshold, randomness, others)


def test_a_threshold_that_does_not_fit_gives_way_to_what_others_wrote() -> None:
    others = ("x:" + "y" * 250,)

    assert write_sub_keys("c", others) == others[0]
    assert write_sub_keys("c", ("x:y",)) == "th:c;x:y"
