"""The recorder: which spans it gets, and that it leaves nothing behind."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link

from mapek_runtime import SpanGroup, traced
from mapek_runtime.testing import Recorder

group = SpanGroup("recorder_tests")

early_tracer = trace.get_tracer("taken before any provider was set")


@group.span
def declared(node: str) -> None:
    """A span of these tests."""


@traced
def decorated() -> None:
    """A function with a span."""


def test_declared_spans_are_recorded() -> None:
    with Recorder() as recorder:
        with declared("node-1"):
            pass
        decorated()

    assert [span.name for span in recorder.spans] == ["recorder_tests.declared", "decorated"]


def test_tracers_of_the_api_are_recorded() -> None:
    with Recorder() as recorder:
        with trace.get_tracer("late").start_as_current_span("late"):
            pass
        early_tracer.start_span("early").end()

    assert {span.name for span in recorder.spans} == {"late", "early"}


def test_a_tracer_that_was_used_inside_follows_the_next_recorder() -> None:
    with Recorder() as first:
        early_tracer.start_span("first").end()
    with Recorder() as second:
        early_tracer.start_span("second").end()

    assert [span.name for span in first.spans] == ["first"]
    assert [span.name for span in second.spans] == ["second"]


def test_the_global_provider_is_what_it_was() -> None:
    before = trace.get_tracer_provider()

    with Recorder() as recorder:
        early_tracer.start_span("inside").end()
    early_tracer.start_span("outside").end()
    with declared("node-1"):
        pass

    assert trace.get_tracer_provider() is before
    assert [span.name for span in recorder.spans] == ["inside"]


def test_recorders_nest() -> None:
    with Recorder() as outer:
        with Recorder() as inner, declared("inner"):
            pass
        with declared("outer"):
            pass

    assert [span.attributes for span in inner.spans] == [{"node": "inner"}]
    assert [span.attributes for span in outer.spans] == [{"node": "outer"}]


def test_one_says_what_there_was_instead(recorder: Recorder) -> None:
    with declared("a"):
        pass

    assert recorder.one("recorder_tests.declared").attributes == {"node": "a"}
    with pytest.raises(AssertionError, match="0 spans are named 'missing', not one; recorded: rec"):
        recorder.one("missing")


def test_children_and_open_spans_can_be_asked_for(recorder: Recorder) -> None:
    tracer = recorder.provider.get_tracer("tests")
    with tracer.start_as_current_span("parent") as parent:
        tracer.start_span("child").end()
        left = tracer.start_span("left")

    names = [span.name for span in recorder.children(recorder.one("parent"))]
    assert names == ["child", "left"]
    assert [span.name for span in recorder.open] == ["left"]
    left.end()
    assert recorder.open == ()
    assert parent.get_span_context() == recorder.one("parent").get_span_context()


def test_a_link_out_of_the_recording_is_drawn_as_elsewhere(recorder: Recorder) -> None:
    with Recorder() as other:
        stranger = other.provider.get_tracer("tests").start_span("stranger")
    tracer = recorder.provider.get_tracer("tests")
    tracer.start_span("here", links=[Link(stranger.get_span_context())]).end()

    assert str(recorder.tree(links=True)) == "here @links=[elsewhere]"


def test_clear_forgets(recorder: Recorder) -> None:
    with declared("a"):
        pass

    recorder.clear()

    assert recorder.spans == ()
    assert str(recorder.tree()) == ""
