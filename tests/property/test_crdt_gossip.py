"""Nodes that share knowledge over a mesh which loses, doubles, delays and parts: in the end they agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.crdt.settings import CrdtSettings
from mapek_runtime.testing import AutojumpClock, Recorder
from tests.unit.crdt.net import Fleet, fleet, incident, leaves, until

NODES = 4
nodes = st.integers(1, NODES).map(lambda number: f"node-{number}")
happenings = st.one_of(
    st.tuples(st.just("close"), nodes),
    st.tuples(st.just("remember"), nodes),
    st.tuples(st.just("goal"), nodes),
    st.tuples(st.just("cycle"), nodes),
    st.tuples(st.just("wait"), st.floats(0.0, 6.0)),
    st.tuples(st.just("split"), st.sets(nodes, max_size=NODES - 1)),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("crash"), nodes),
    st.tuples(st.just("restart"), nodes),
)


class Story:
    """What happened, and what must be known of it in the end."""

    def __init__(self, here: Fleet, loss: float) -> None:
        self.here = here
        self.loss = loss
        self.number = 0
        self.surely: set[float] = set()
        self.counted: Counter[str] = Counter()

    async def happen(self, what: str, value: Any) -> None:
        here = self.here
        match what:
            case "wait":
                await asyncio.sleep(value)
            case "split":
                here.net.split(value, here.net.nodes - value)
            case "heal":
                here.net.split(here.net.nodes)
            case "crash" if value in here.net.nodes and len(here.net.nodes) > 2:
                # What others have is not lost with it: that it was told of is waited for here.
                here.net.heal()
                await here.publish(*here.net.nodes)
                await until(here.is_one, limit=600.0)
                here.net.loss = self.loss
                here.crash(value)
            case "restart" if value not in here.net.nodes:
                here.restart(value)
            case "close" | "remember" | "goal" | "cycle" if value in here.net.nodes:
                await self._learn(what, value)

    async def _learn(self, what: str, node: str) -> None:
        self.number += 1
        knowledge = self.here.knowledge[node]
        if what == "close":
            knowledge.close(incident(self.number))
            self.surely.add(1.7e9 + self.number)
            self.counted[node] += 1
        elif what == "remember":
            knowledge.remember("threshold", self.number)
        elif what == "goal":
            knowledge.set_goal("loss", self.number)
        else:
            await self.here.publish(node)

    async def end(self) -> None:
        here = self.here
        here.net.heal()
        for node in sorted({f"node-{number}" for number in range(1, NODES + 1)} - here.net.nodes):
            here.restart(node)
        for _ in range(4):
            await here.publish()
            await until(here.is_one, limit=600.0)


async def run(story: list[tuple[str, Any]], loss: float, doubled: float, latest: float, seed: int) -> Story:
    with AutojumpClock():
        async with fleet(NODES, seed=seed, settings=CrdtSettings(interval=1.0)) as here:
            here.net.loss, here.net.doubled, here.net.latest = loss, doubled, latest
            told = Story(here, loss)
            for what, value in story:
                await told.happen(what, value)
            await told.end()
            check(told)
            return told


def check(told: Story) -> None:
    here = told.here
    documents = [here.document(f"node-{number}") for number in range(1, NODES + 1)]
    assert all(leaves(document) == leaves(documents[0]) for document in documents)
    assert all(document.view.values == documents[0].view.values for document in documents)
    assert {each.opened for each in documents[0].incidents().values()} == told.surely
    outcomes = {node: counts for (node, _, _), counts in documents[0].outcomes().items()}
    assert outcomes == {node: (count, 0) for node, count in told.counted.items()}
    for knowledge in here.knowledge.values():
        assert {each.opened for each in knowledge.incidents()} == told.surely
        assert len(knowledge.incidents()) == len(told.surely)
    assert len({knowledge.goal("loss") for knowledge in here.knowledge.values()}) == 1
    for number in range(1, NODES + 1):
        gossip = here.session.gossip(f"node-{number}")
        # None: it was restarted just now.
        assert gossip is None or not gossip.counts["refused.failed"]


@settings(max_examples=60)
@given(
    st.lists(happenings, max_size=25),
    st.floats(0.0, 0.5),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.integers(0, 999),
)
def test_nodes_agree_in_the_end_and_nothing_that_was_told_is_lost(
    story: list[tuple[str, Any]], loss: float, doubled: float, latest: float, seed: int
) -> None:
    with Recorder() as recorder:
        told = asyncio.run(run(story, loss, doubled, latest, seed))

    assert not recorder.open
    # A merge is in the trace of the broadcast that it heard, or a trace of its own.
    broadcasts = {(span.context.trace_id, span.context.span_id) for span in recorder.named("crdt.broadcast")}
    for merge in recorder.named("crdt.merge"):
        if merge.parent is not None:
            assert (merge.parent.trace_id, merge.parent.span_id) in broadcasts
            assert merge.context.trace_id == merge.parent.trace_id
    peers = [(span.attributes or {})["peers"] for span in recorder.named("crdt.broadcast")]
    assert sum(int(str(count)) for count in peers) == told.here.net.updates()
