"""The tree of a trace, whatever its parents are: every span once, below its parent, and what it hung on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from rich.console import Console

from mapek_runtime.service.trace_tree import TraceTree, grow
from mapek_runtime.service.waterfall import Waterfall, show_duration
from tests.unit.store.filling import request, span

MS = 1_000_000


def tree(*spans: Span) -> TraceTree:
    return grow(request(*spans))


def names(found: TraceTree) -> list[tuple[str, int]]:
    return [(branch.name, branch.depth) for branch in found.branches]


def drawn(found: TraceTree, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(Waterfall(found))
    return capture.get().splitlines()


def timed(number: int, parent: int, name: str, start: int, end: int) -> Span:
    base = span(number=number, parent=parent, name=name, duration=(end - start) * MS)
    base.start_time_unix_nano += start * MS
    base.end_time_unix_nano += start * MS
    return base


def test_children_stand_below_their_parent_by_their_start() -> None:
    found = tree(
        timed(3, 1, "late", 5, 9),
        timed(4, 3, "within", 6, 7),
        timed(1, 0, "root", 0, 10),
        timed(2, 1, "early", 1, 2),
    )
    assert names(found) == [("root", 0), ("early", 1), ("late", 1), ("within", 2)]


def test_a_span_whose_parent_is_missing_is_a_root_that_says_so() -> None:
    found = tree(timed(2, 77, "lonely", 0, 1))
    assert names(found) == [("lonely", 0)]
    assert found.branches[0].orphan
    assert "parent 000000000000004d is missing" in drawn(found, 120)[0]


def test_parents_in_a_ring_are_drawn_once() -> None:
    found = tree(timed(1, 2, "a", 0, 5), timed(2, 1, "b", 1, 4), timed(3, 3, "own parent", 2, 3))
    assert sorted(names(found)) == [("a", 0), ("b", 1), ("own parent", 0)]


def test_the_critical_path_leaves_out_what_ran_beside_something_longer() -> None:
    found = tree(
        timed(1, 0, "root", 0, 10),
        timed(2, 1, "first", 0, 4),
        timed(3, 1, "beside", 1, 3),
        timed(4, 1, "last", 4, 10),
        timed(5, 4, "end of last", 6, 10),
    )
    critical = {branch.name for branch in found.branches if branch.critical}
    assert critical == {"root", "first", "last", "end of last"}


def test_bars_stand_where_their_time_is() -> None:
    lines = drawn(
        tree(timed(1, 0, "root", 0, 100), timed(2, 1, "first half", 0, 50), timed(3, 1, "rest", 50, 100))
    )
    root, first, rest = ([index for index, sign in enumerate(line) if sign == "━"] for line in lines)
    middle = (root[0] + root[-1]) // 2
    assert first == root[: len(first)]
    assert rest == root[-len(rest) :]
    assert abs(first[-1] - middle) <= 1
    assert abs(rest[0] - middle) <= 1


def test_what_a_terminal_would_act_on_is_not_drawn() -> None:
    lines = drawn(tree(timed(1, 0, "red \x1b[31m\r\n alert", 0, 1)))
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


def test_a_chain_of_five_thousand_is_drawn() -> None:
    found = tree(*[timed(number, number - 1, f"level {number}", 0, 1) for number in range(1, 5001)])
    assert found.depth == 5000
    lines = drawn(found, 120)
    assert len(lines) == 5000
    assert "+4967 level 5000" in lines[-1]


ids = st.integers(1, 6)
moments = st.integers(0, 20)


@given(st.lists(st.tuples(ids, st.integers(0, 8), moments, moments), max_size=12), st.integers(20, 200))
def test_every_span_is_drawn_exactly_once(described: list[tuple[int, int, int, int]], width: int) -> None:
    spans = [
        timed(number, parent, f"s{index}", start, end)
        for index, (number, parent, start, end) in enumerate(described)
    ]
    found = tree(*spans)
    assert Counter(branch.name for branch in found.branches) == Counter(each.name for each in spans)
    lines = drawn(found, width)
    assert len(lines) == len(spans)
    assert all(len(line) <= max(width, 60) for line in lines)


def test_durations_have_three_digits_and_a_unit() -> None:
    shown = [show_duration(each) for each in (0, 999, 1500, 12_345_678, 999e6, 1e9, 123_456e9)]
    assert shown == ["0 ns", "999 ns", "1.5 µs", "12.3 ms", "999 ms", "1 s", "123,456 s"]
