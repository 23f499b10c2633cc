"""What distinguishes spans from others, whatever they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_runtime.store.categories import ABSENT, Categories
from mapek_runtime.store.difference import FEWEST, Facts, differences
from mapek_runtime.store.query import parse
from mapek_runtime.store.query.matching import matcher
from mapek_runtime.store.query.syntax import All, Compare, Filter

few = settings(max_examples=30)
"""Each example compares hundreds of spans."""

numbers = st.integers(-(1 << 62), 1 << 62) | st.floats()
values = st.sampled_from(["a", "b"]) | st.booleans() | numbers | st.text(max_size=3) | st.binary(max_size=2)
attributes = st.dictionaries(st.sampled_from(["span.a", "span.b", 'span."b c"', "name", "status"]), values)


@st.composite
def sides(draw: st.DrawFn, values: st.SearchStrategy[dict[str, Any]] = attributes) -> list[list[Facts]]:
    traces = st.integers(0, 40)
    spans = iter(range(1, 1000))
    return [
        [
            Facts(
                draw(traces).to_bytes(16, "big"), next(spans).to_bytes(8, "big"), draw(traces), draw(values)
            )
            for _ in range(draw(st.integers(FEWEST - 1, 30)))
        ]
        for _ in range(2)
    ]


@few
@given(sides())
def test_what_is_told_is_counted_and_in_order(both: list[list[Facts]]) -> None:
    selected, rest = both

    told = differences(selected, rest)

    assert not told or min(len(selected), len(rest)) >= FEWEST
    scores = [round(each.score, 3) for each in told]
    assert scores == sorted(scores, reverse=True)
    named = [name for each in told for name in (each.field, *each.alike)]
    assert len(named) == len(set(named))
    for field in told:
        assert 0 < field.score <= 1
        assert sum(value.selected for value in field.values) <= len(selected)
        assert sum(value.rest for value in field.values) <= len(rest)
        if not field.more:
            assert sum(value.selected for value in field.values) == len(selected)


@few
@given(sides(), st.randoms(use_true_random=False))
def test_the_order_of_spans_says_nothing(both: list[list[Facts]], chance: random.Random) -> None:
    selected, rest = both
    told = differences(selected, rest)

    chance.shuffle(selected)
    chance.shuffle(rest)

    assert differences(selected, rest) == told


@few
@given(sides(st.just({})), st.sampled_from(["text", "list"]))
def test_a_value_of_its_own_for_each_span_distinguishes_nothing(both: list[list[Facts]], form: str) -> None:
    selected, rest = (
        [
            span._replace(values={"span.id": span.span_id.hex() if form == "text" else [span.span_id.hex()]})
            for span in side
        ]
        for side in both
    )

    assert differences(selected, rest) == ()


@few
@given(sides())
def test_spans_that_are_the_same_on_both_sides_do_not_differ(both: list[list[Facts]]) -> None:
    selected, _ = both

    assert differences(selected, list(selected)) == ()


@few
@given(
    st.integers(0, 2**32), st.integers(80, 120), st.integers(200, 400), st.floats(0.85, 1), st.floats(0, 0.15)
)
def test_what_was_planted_is_found_first(
    seed: int, selected: int, rest: int, often: float, seldom: float
) -> None:
    chance = random.Random(seed)

    def side(number: int, share: float) -> list[Facts]:
        return [
            Facts(
                chance.randbytes(16),
                chance.randbytes(8),
                chance.randrange(10**6),
                {
                    "span.node_id": "node-3"
                    if chance.random() < share
                    else f"node-{chance.choice([1, 2, 4])}",
                    "span.colour": chance.choice(["red", "green", "blue"]),
                    "span.request": chance.randbytes(4).hex(),
                    "span.number": chance.randrange(10**6),
                    "span.ratio": chance.random(),
                    "name": "work",
                },
            )
            for _ in range(number)
        ]

    told = differences(side(selected, often), side(rest, seldom))

    assert told[0].field == "span.node_id"
    assert told[0].values[0].condition == 'span.node_id = "node-3"'


@few
@given(st.lists(values, max_size=40), st.lists(values, max_size=40))
def test_a_condition_chooses_what_is_in_its_category_and_nothing_else(
    selected: Sequence[Any], rest: Sequence[Any]
) -> None:
    categories = Categories("span.key", selected, rest)
    given = [*selected, *rest]

    for code in {categories.code(value) for value in given}:
        condition = categories.describe(code).condition
        if condition:
            holds = chooser(condition)
            assert [holds(value) for value in given] == [categories.code(value) == code for value in given]


def test_what_is_absent_has_a_condition_too() -> None:
    holds = chooser(Categories("span.key", [1], []).describe(ABSENT).condition)

    assert [holds(value) for value in (None, 1, "")] == [True, False, False]


def chooser(condition: str) -> Callable[[Any], bool]:
    """Whether a value of `span.key` is what the text of a condition asks for."""
    spansets = parse(f"{{ {condition} }}").spansets
    assert isinstance(spansets, Filter)
    read = spansets.condition
    matches = [
        matcher(each)
        for each in (read.conditions if isinstance(read, All) else (read,))
        if isinstance(each, Compare)
    ]
    assert matches
    return lambda value: all(match(value) for match in matches)
