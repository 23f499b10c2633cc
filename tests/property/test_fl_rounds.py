"""Rounds under whatever happens: loss, doubles, delays, islands and crashes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.fl.node import FlNode
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Download, Upload, Version, weights_of
from mapek_runtime.testing import AutojumpClock, Recorder
from tests.unit.fl.toy import Net, Toy, net, until

NAMES = ("a", "b", "c", "d")
WISHES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0}

happenings = st.one_of(
    st.tuples(st.just("islands"), st.lists(st.integers(0, 1), min_size=4, max_size=4).map(tuple)),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("crash"), st.sampled_from(NAMES)),
    st.tuples(st.just("restart"), st.sampled_from(NAMES)),
    st.tuples(st.just("ask"), st.sampled_from(NAMES)),
    st.tuples(st.just("data"), st.tuples(st.sampled_from(NAMES), st.integers(0, 50))),
    st.tuples(st.just("wait"), st.floats(0.0, 15.0)),
)


@settings(max_examples=25)
@given(
    st.lists(happenings, max_size=20),
    st.floats(0.0, 0.4),
    st.sampled_from(["mean", "median", "trimmed"]),
    st.integers(0, 999),
)
def test_models_only_get_newer_are_what_was_averaged_and_become_one(
    story: list[tuple[str, Any]], loss: float, method: Any, seed: int
) -> None:
    with Recorder() as recorder:
        here, lives = asyncio.run(run(story, loss, method, seed))

    assert any(lives.values())
    for versions in lives.values():
        assert versions == sorted(set(versions))
    assert not any(
        reason in here.session.counts(name)
        for name in NAMES
        for reason in ("dropped.failed", "round.failed", "download.failed")
    )
    trained = {upload.token for _, _, upload in here.sent(Upload)}
    for span in recorder.named("fl.local_training"):
        # Under the round that it is part of, over however many hops.
        assert span.parent is not None
        assert above(recorder, span)[-1].name == "fl.aggregation"
        assert (above(recorder, span)[-1].attributes or {})["round"] == (span.attributes or {})["round"]
    assert trained <= {download.token for _, _, download in here.sent(Download)}
    assert recorder.open == ()
    for _, _, upload in here.sent(Upload):
        assert all(((array >= 0) & (array <= 8)).all() for array in weights_of(upload.model))
    finished = [event for event in here.events if event["name"] == "round.finished"]
    assert finished
    assert all(event["clients"] >= 2 and 0.0 <= event["loss"] <= 8.0 for event in finished)


async def run(story: list[tuple[str, Any]], loss: float, method: Any, seed: int) -> Any:
    rng = random.Random(seed)
    lives: dict[tuple[str, int], list[Version]] = {}
    seen: set[FlNode] = set()
    calm = False

    def fate(_source: str, _destination: str) -> Sequence[float]:
        if calm:
            return (0.0,)
        copies = 0 if rng.random() < loss else 2 if rng.random() < 0.1 else 1
        return [rng.uniform(0.0, 0.3) for _ in range(copies)]

    def witness(node: FlNode) -> None:
        if node in seen:
            return
        seen.add(node)
        adopt, mine = node.adopt, lives.setdefault((node.node_id, len(lives)), [])

        def adopted(version: Version, weights: Any) -> bool:
            took = adopt(version, weights)
            if took:
                mine.append(version)
                assert all(np.isfinite(array).all() for array in weights)
            return took

        node.adopt = adopted  # type: ignore[method-assign]

    with AutojumpClock():
        async with net(Toy(WISHES), FlSettings(method=method), nodes=NAMES, fate=fate) as here:
            for node in here.session.nodes.values():
                witness(node)
            for what, value in story:
                await happen(here, what, value)
                if what == "restart":
                    witness(here.session.nodes[value])
            calm = True
            await happen(here, "heal", None)
            here.learner.samples.update(dict.fromkeys(NAMES, 10))
            for name in sorted(here.messenger.away):
                await happen(here, "restart", name)
                witness(here.session.nodes[name])
            count = len(here.events)
            await here.rounds(count + 2)
            await until(lambda: len(set(here.versions().values())) == 1)
            return here, lives


async def happen(here: Net, what: str, value: Any) -> None:
    """One thing of the story; a crash of a node that is down, and the like, is none."""
    match what:
        case "islands":
            here.messenger.islands = dict(zip(NAMES, value, strict=True))
        case "heal":
            here.messenger.islands = {}
        case "crash":
            here.session.crashed(value)
            here.messenger.away.add(value)
        case "restart":
            here.messenger.away.discard(value)
            here.session.restarted(value)
        case "ask" if value in here.session.nodes:
            await here.session.nodes[value].ask("news")
        case "data":
            here.learner.samples[value[0]] = value[1]
        case "wait":
            await asyncio.sleep(value)


def above(recorder: Recorder, span: Any) -> list[Any]:
    """The spans above one, up to its root."""
    by_id = {each.context.span_id: each for each in recorder.spans if each.context}
    found = []
    while span.parent is not None and span.parent.span_id in by_id:
        span = by_id[span.parent.span_id]
        found.append(span)
    return found
