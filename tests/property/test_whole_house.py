"""Whatever happens, every span of mesh nodes that agree, share and learn has the right parent.

Which one that is, witnesses say that do not ask the spans: the log of the group, what went over the
links, and who acted in which cycle.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from mapek_domains.raft.commands import Claim, Release
from mapek_runtime.testing import Recorder
from tests.virtual_time import in_virtual_time
from tests.whole_house import NODES, House, house

Id = tuple[int, int]

PARENTS: dict[str, set[str]] = {
    "mape_k.cycle": {""},
    **{
        f"mape_k.{phase}": {"mape_k.cycle"}
        for phase in ("monitor", "analyze", "plan", "execute", "knowledge")
    },
    "raft.leader_election": {""},
    # Without a parent: what a leader sends again to who has missed it, or found to be over by its clock.
    "raft.log_replicate": {"mape_k.execute", "raft.leader_election", ""},
    "raft.commit": {"mape_k.execute", "raft.leader_election", ""},
    "crdt.broadcast": {"mape_k.knowledge"},
    # Without one: what a node has asked for by itself, as it had missed it.
    "crdt.merge": {"crdt.broadcast", ""},
    "fl.aggregation": {"mape_k.knowledge", ""},
    "fl.local_training": {"fl.aggregation"},
    "fl.model_upload": {"fl.aggregation"},
    "fl.model_download": {"fl.aggregation", ""},
}

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["act", "act", "act", "all act", "crash", "restart", "part", "noise", "mend", "mend", "wait"]
        ),
        st.integers(0, len(NODES) - 1),
        st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3]),
    ),
    min_size=5,
    max_size=40,
)


async def tell(script: list[tuple[str, int, float]], seed: int) -> House:
    async with house(seed) as whole:
        await asyncio.sleep(0.5)
        for what, number, pause in script:
            await happen(whole, what, NODES[number], pause)
            await asyncio.sleep(pause)
        whole.messenger.heal()
        for node in NODES:
            await whole.restart(node)
        await asyncio.sleep(1.0)
        for node in NODES:
            whole.act(node)
        await asyncio.sleep(1.0)
        whole.entries = whole.log()
    return whole


async def happen(whole: House, what: str, node: str, pause: float) -> None:
    messenger = whole.messenger
    match what:
        case "act":
            whole.act(node)
        case "all act":
            for each in NODES:
                whole.act(each)
        case "crash":
            await whole.crash(node)
        case "restart":
            await whole.restart(node)
        case "part":
            messenger.part([node])
        case "noise":
            messenger.loss, messenger.doubled, messenger.delay = 0.2, 0.3, pause
        case "mend":
            messenger.heal()
        case _:
            pass


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def id_of(span: ReadableSpan) -> Id:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


class Spans:
    """What was recorded, by id; `above` a span are its parent, the parent's parent, and so on."""

    def __init__(self, recorder: Recorder) -> None:
        self.all = recorder.spans
        self.by_id = {id_of(span): span for span in recorder.spans}
        self.by_name = defaultdict[str, list[ReadableSpan]](list)
        for span in recorder.spans:
            self.by_name[span.name].append(span)

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        return None if span.parent is None else self.by_id[span.parent.trace_id, span.parent.span_id]

    def above(self, span: ReadableSpan) -> list[ReadableSpan]:
        parent = self.parent(span)
        return [] if parent is None else [parent, *self.above(parent)]

    def node(self, span: ReadableSpan) -> str:
        """Whose cycle it is part of."""
        return str(attributes(self.above(span)[-1])["node_id"])


def check(whole: House, spans: Spans) -> None:
    for span in spans.all:
        parent = spans.parent(span)
        assert (parent.name if parent else "") in PARENTS[span.name]
        if parent is not None:
            assert id_of(parent)[0] == id_of(span)[0]
            assert (parent.start_time or 0) <= (span.start_time or 0)
    agreed(whole, spans)
    shared(whole, spans)
    learned(whole, spans)


def agreed(whole: House, spans: Spans) -> None:
    """Replication and commit stand below the Execute of a cycle whose claim is in the log."""
    own = defaultdict[tuple[str, int], list[int]](list)
    for index, entry in whole.entries.items():
        if isinstance(entry, Claim | Release):
            own[whole.claimed[entry.key]].append(index)
    said = defaultdict[tuple[str, int], int](int)
    for span in spans.by_name["raft.commit"] + spans.by_name["raft.log_replicate"]:
        above = spans.above(span)
        if above and above[0].name == "mape_k.execute":
            acting = attributes(above[-1])["node_id"], id_of(span)[0]
            assert acting in whole.claimed.values()
            if span.name == "raft.commit":
                said[acting] += attributes(span)["entries"]
                assert min(own[acting]) <= attributes(span)["commit_index"]
    for acting, count in said.items():
        assert count <= len(own[acting]), "more is said to be final than was asked for"
    for entry in whole.entries.values():
        if isinstance(entry, Claim):
            assert whole.claimed[entry.key][0] == entry.request.owner
    # A message with entries goes to the follower that its span names.
    for sent in whole.messenger.log:
        if sent.topic == "raft" and sent.span in spans.by_id:
            span = spans.by_id[sent.span]
            if span.name == "raft.log_replicate":
                assert attributes(span)["follower_id"] == sent.destination


def shared(whole: House, spans: Spans) -> None:
    """A broadcast is of the node whose cycle it stands in; a merge, of one that it was sent to."""
    told = defaultdict[Id, set[str]](set)
    for sent in whole.messenger.log:
        if sent.topic == "crdt" and sent.span in spans.by_id:
            span = spans.by_id[sent.span]
            assert span.name == "crdt.broadcast"
            assert spans.node(span) == sent.source
            told[sent.span].add(sent.destination)
    for merge in spans.by_name["crdt.merge"]:
        parent = spans.parent(merge)
        if parent is not None:
            assert attributes(merge)["replica_id"] in told[id_of(parent)]


def learned(whole: House, spans: Spans) -> None:
    """Training and sending in stand below the round that they are part of."""
    for name in ("fl.local_training", "fl.model_upload"):
        for span in spans.by_name[name]:
            (round_, *_) = spans.above(span)
            if name == "fl.local_training":
                assert attributes(round_)["round"] == attributes(span)["round"]
    senders = {sent.span: sent.source for sent in whole.messenger.log if sent.topic == "fl"}
    for span in spans.by_name["fl.model_upload"]:
        if id_of(span) in senders:
            assert senders[id_of(span)] == attributes(span)["client_id"]


def run(script: list[tuple[str, int, float]], seed: int) -> None:
    wholes: list[House] = []

    async def story() -> None:
        wholes.append(await tell(script, seed))

    with Recorder() as recorder:
        in_virtual_time(story, seed)
    assert recorder.open == ()
    check(wholes[0], Spans(recorder))


@pytest.mark.blocking
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(steps, st.integers(0, 1 << 16))
def test_no_span_has_a_wrong_parent(script: list[tuple[str, int, float]], seed: int) -> None:
    run(script, seed)


@pytest.mark.slow
@pytest.mark.blocking
@settings(max_examples=100, deadline=None)
@given(steps, st.integers(0, 1 << 16))
def test_no_span_has_a_wrong_parent_over_many_stories(
    script: list[tuple[str, int, float]], seed: int
) -> None:
    run(script, seed)


async def plain() -> None:
    await tell([("all act", 0, 0.3)] * 12, 1)


@pytest.mark.blocking
def test_the_story_has_all_of_them() -> None:
    with Recorder() as recorder:
        in_virtual_time(plain, 1)
    assert {span.name for span in recorder.spans} == set(PARENTS)
