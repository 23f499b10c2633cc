"""The session of federated learning, and its domain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.fl_federation import InProcess, NoLoops, federation
from mapek_domains.fl.normality import INPUTS
from mapek_domains.fl.plugin import domain
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import FRESH
from mapek_runtime import SpanGroup
from mapek_runtime.errors import ConfigError
from mapek_runtime.loop.domain import DomainContext, Judgement, Normality
from mapek_runtime.testing import AutojumpClock, Recorder, tree

from .toy import NAMES, WISHES, Toy, net, until

group = SpanGroup("test")


@group.span
def cause(node: str) -> None:
    """Something that asks for a round."""


async def test_a_learner_that_judges_makes_the_session_a_normality(autojump: AutojumpClock) -> None:
    class Judges(Toy):
        def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement:
            return Judgement(score=0.5, threshold=0.9, version=3)

        def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
            self.seen = node_id, kind, features, normal

    async with net(Judges(WISHES)) as here, net(Toy(WISHES)) as other:
        assert isinstance(here.session, Normality)
        assert here.session.judge("a", "k", [1.0]) == Judgement(score=0.5, threshold=0.9, version=3)
        here.session.observe("a", "k", [1.0], normal=True)
        other.session.observe("a", "k", [1.0], normal=True)
        assert other.session.judge("a", "k", [1.0]) is None
    assert isinstance(here.learner, Judges)
    assert here.learner.seen == ("a", "k", [1.0], True)


async def test_a_model_too_large_to_be_sent_stops_the_start(autojump: AutojumpClock) -> None:
    class Large(Toy):
        def initial(self) -> Any:
            return (np.zeros(2_000_000, np.float32),)

    with pytest.raises(ConfigError, match=r"model of 'toy' cannot be sent: a Model of 80000.. bytes"):
        async with net(Large(WISHES)):
            pass


async def test_without_a_messenger_nothing_is_learned_and_nothing_fails(autojump: AutojumpClock) -> None:
    async with federation(Toy(WISHES), FlSettings(), None, nodes=NAMES) as session:
        await asyncio.sleep(60.0)
        await session.nodes["a"].ask("news")

        assert session.nodes["a"].version == FRESH
    assert session.counts("a")["unsent.no_messenger"] == 1


async def test_an_error_in_the_block_is_raised_as_itself(autojump: AutojumpClock) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with net(Toy(WISHES)):
            raise KeyError("mine")


async def test_nothing_is_left_behind(autojump: AutojumpClock) -> None:
    before = asyncio.all_tasks()
    async with net(Toy(WISHES)) as here:
        await here.rounds(1)

    assert asyncio.all_tasks() == before


async def test_a_session_opened_inside_a_span_is_not_part_of_it(
    autojump: AutojumpClock, recorder: Recorder
) -> None:
    with cause("opens"):
        async with net(Toy({"a": 1.0}), nodes=("a",)) as here:
            await here.rounds(1)

    assert recorder.tree() == tree("""
        test.cause
        fl.aggregation
          fl.model_download
          fl.local_training
          fl.model_upload
    """)


async def test_the_domain_learns_what_is_normal_on_links(autojump: AutojumpClock) -> None:
    rng, inputs = random.Random(3), INPUTS["mesh.link"]
    messenger, events = InProcess(NAMES), list[str]()

    def reading(around: float) -> list[float]:
        return [rng.gauss(around, 0.1) for _ in range(inputs)]

    context = DomainContext(
        nodes=NAMES,
        supervisor=NoLoops(),
        rng=random.Random(1),
        emit=lambda name, _fields: events.append(name),
        find=lambda protocol: messenger if isinstance(messenger, protocol) else None,
    )
    async with domain.open(domain.settings(), context) as session:
        for name in NAMES:
            for _ in range(300):
                session.observe(name, "mesh.link", reading(0.2), normal=True)
                session.observe(name, "mesh.link", reading(0.8), normal=False)
        before = session.judge("b", "mesh.link", reading(0.2))
        await until(lambda: all(node.version.round == 3 for node in session.nodes.values()))
        well, bad = (session.judge("b", "mesh.link", reading(around)) for around in (0.2, 0.8))

    assert domain.name == "fl"
    assert before is None
    assert well is not None
    assert bad is not None
    assert well.version == bad.version == 3
    assert well.score < well.threshold <= bad.score
    assert events == ["round.finished"] * 3
