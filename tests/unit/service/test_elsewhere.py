"""Cycles of nodes in other processes are read from the store, each once."""

from __future__ import annotations

from pathlib import Path

from mapek_runtime import Cycle
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.service.elsewhere import Elsewhere
from mapek_runtime.store import TraceStore
from mapek_runtime.testing import Recorder, run_cycle
from tests.unit.service.links import Calm, Link


async def test_cycles_of_other_nodes_are_told_once_and_our_own_are_not(
    tmp_path: Path, recorder: Recorder
) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        early = await run_cycle(Calm(), node="far-1")
        service = str(recorder.spans[0].resource.attributes["service.name"])
        elsewhere = Elsewhere(store, service, ["a", "b"], since=0)
        await run_cycle(Calm(), node="a")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        first = await elsewhere.news()
        recorder.clear()
        late = await run_cycle(Link(), node="far-2")
        await run_cycle(Calm(), node="b")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        second = await elsewhere.news()
        third = await elsewhere.news()
        # As after a time in which nobody listened.
        elsewhere._asked = float("-inf")
        fourth = await elsewhere.news()

    assert [(cycle.node, cycle.trace_id) for cycle in first] == [("far-1", trace_id(early))]
    assert [(cycle.node, cycle.trace_id) for cycle in second] == [("far-2", trace_id(late))]
    assert second[0].actions[0].action == "drain"
    assert (third, fourth) == ([], [])


async def test_a_node_of_another_service_with_a_name_of_ours_is_told_apart(
    tmp_path: Path, recorder: Recorder
) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        elsewhere = Elsewhere(store, "ours", ["a"], since=0)
        await run_cycle(Calm(), node="a")
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        news = await elsewhere.news()

    service = str(recorder.spans[0].resource.attributes["service.name"])
    assert service != "ours"
    assert [cycle.node for cycle in news] == [f"a ({service})"]


async def test_what_is_older_than_the_run_is_not_told(tmp_path: Path, recorder: Recorder) -> None:
    async with TraceStore(tmp_path / "t.sqlite") as store:
        await run_cycle(Calm(), node="far-1")
        end = max(span.end_time or 0 for span in recorder.spans)
        elsewhere = Elsewhere(store, "ours", ["a"], since=end)
        await store.send(encode_spans(recorder.spans), len(recorder.spans))
        news = await elsewhere.news()

    assert news == []


def trace_id(cycle: Cycle) -> str:
    assert cycle.span_context is not None
    return f"{cycle.span_context.trace_id:032x}"
