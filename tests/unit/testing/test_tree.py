"""Trees: what is drawn, what is compared, and how a difference reads."""

from __future__ import annotations

import pytest
from opentelemetry.trace import StatusCode

from mapek_runtime.testing import Node, Recorder, Tree, tree
from mapek_runtime.testing.pytest_plugin import pytest_assertrepr_compare
from mapek_runtime.testing.tree import render


def cycle(recorder: Recorder) -> None:
    tracer = recorder.provider.get_tracer("tests")
    with tracer.start_as_current_span("cycle", attributes={"number": 1, "node": "node-1"}):
        with tracer.start_as_current_span("monitor", attributes={"count": 3}):
            pass
        with tracer.start_as_current_span("analyze") as span:
            span.set_status(StatusCode.ERROR)


async def test_a_recorded_tree_equals_its_drawing(recorder: Recorder) -> None:
    cycle(recorder)

    assert recorder.tree() == tree("""
        cycle node=node-1
          monitor count=3
          analyze @status=error
    """)


async def test_attributes_that_are_not_drawn_do_not_count(recorder: Recorder) -> None:
    cycle(recorder)

    assert recorder.tree() == tree("""
        cycle
          monitor
          analyze
    """)


async def test_attributes_that_were_asked_for_must_be_drawn(recorder: Recorder) -> None:
    cycle(recorder)
    drawing = tree("""
        cycle
          monitor
          analyze
    """)

    assert recorder.tree("count") != drawing


@pytest.mark.parametrize(
    "drawing",
    [
        pytest.param("cycle\n  monitor\n", id="a span too many"),
        pytest.param("cycle\n  monitor\n  analyze\n  plan\n", id="a span too few"),
        pytest.param("cycle\n  analyze\n  monitor\n", id="another order"),
        pytest.param("cycle\n  monitor\n    analyze\n", id="another parent"),
        pytest.param("cycle\n  monitor count=4\n  analyze\n", id="another value"),
        pytest.param('cycle\n  monitor count="3"\n  analyze\n', id="another type"),
        pytest.param("cycle\n  monitor size=...\n  analyze\n", id="an attribute that is not there"),
        pytest.param("cycle (open)\n  monitor\n  analyze\n", id="a span that has ended"),
    ],
)
async def test_a_tree_differs_by(drawing: str, recorder: Recorder) -> None:
    cycle(recorder)

    assert recorder.tree() != tree(drawing)


async def test_dots_stand_for_any_value(recorder: Recorder) -> None:
    cycle(recorder)

    assert recorder.tree() == tree("""
        cycle number=... node=...
          monitor count=...
          analyze
    """)


async def test_a_span_that_has_not_ended_is_marked(recorder: Recorder) -> None:
    recorder.provider.get_tracer("tests").start_span("endless")

    assert str(recorder.tree()) == "endless (open)"
    assert recorder.tree() == tree("endless (open)")


async def test_several_traces_are_drawn_one_after_another_with_their_links(recorder: Recorder) -> None:
    from opentelemetry.trace import Link

    tracer = recorder.provider.get_tracer("tests")
    first = tracer.start_span("first")
    first.end()
    tracer.start_span("second", links=[Link(first.get_span_context())]).end()

    assert str(recorder.tree(links=True)) == "first\nsecond @links=[first#1]"
    assert recorder.tree() == tree("""
        first
        second @links=[first#1]
    """)


async def test_a_failure_shows_the_lines_that_differ(recorder: Recorder) -> None:
    cycle(recorder)
    written = tree("""
        cycle
          monitor count=4
          analyze
    """)

    explanation = pytest_assertrepr_compare("==", recorder.tree(), written)
    turned = pytest_assertrepr_compare("==", written, recorder.tree())

    assert explanation == turned
    assert explanation is not None
    assert explanation[1:] == ["  cycle", "-   monitor count=4", "+   monitor count=3", "    analyze"]


async def test_other_comparisons_are_left_to_pytest(recorder: Recorder) -> None:
    assert pytest_assertrepr_compare("==", 1, 2) is None


def test_the_representation_can_be_pasted_into_a_test() -> None:
    drawn = Tree([Node("cycle", {"number": "1"}, (Node("monitor"),))], asked=["number"])

    assert eval(repr(drawn), {"tree": tree}) == drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        ("node-1", "node-1"),
        ("3", '"3"'),
        ("true", '"true"'),
        ("two words", '"two words"'),
        ("", '""'),
        (("a", "b c"), '[a,"b c"]'),
    ],
)
def test_values_of_different_types_are_drawn_differently(value: object, text: str) -> None:
    assert render(value) == text
    assert tree(f"span key={text} other=1").roots[0].facts == {"key": text, "other": "1"}


@pytest.mark.parametrize("drawing", ["  lost\nroot", "root word"], ids=["indented under nothing", "no pair"])
def test_a_drawing_that_cannot_be_read_is_refused(drawing: str) -> None:
    with pytest.raises(ValueError, match=r"indented|word"):
        tree(drawing)
