"""What five nodes of the embedded engine agree upon: who has a claim, until when, and what is configured."""

from __future__ import annotations

import asyncio
import time

import pytest

from mapek_runtime.errors import MapekError, NoConsensus
from tests.raft_embedded import CALM, group, replica_of
from tests.raft_group import FAST, NODES


async def test_a_claim_ends_after_its_time_and_not_before_its_holder_thinks_so() -> None:
    async with group() as made:
        await made.settle()
        grant = await made.session.claim("node-1", "k", hold=0.3)
        loop = asyncio.get_running_loop()
        refused = await made.session.claim("node-2", "k", hold=0.3)
        while True:
            granted = await made.session.claim("node-3", "k", hold=5.0)
            if granted.granted:
                break
        then = loop.time()

    assert (grant.granted, grant.owner, refused.granted, refused.owner) == (True, "node-1", False, "node-1")
    assert refused.reason == "node-1 has it"
    assert then > grant.until
    assert granted.fence > grant.fence


async def test_a_clock_that_somebody_sets_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with group(settings=CALM) as made:
        await made.settle()
        grant = await made.session.claim("node-1", "k", hold=600.0)
        leader, term = made.leader(), grant.term
        real = time.time
        for jump in (1e6, -1e6):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            again = await made.session.claim("node-1", "k", hold=600.0)
            other = await made.session.claim("node-2", "k", hold=600.0)

            assert (again.granted, again.term, other.granted) == (True, term, False)
        assert made.leader() == leader


async def test_an_epoch_is_changed_only_where_it_is_as_expected() -> None:
    async with group() as made:
        await made.settle()
        first = await made.session.configure("node-1", "goal", "calm", expected=0)
        same = await made.session.configure("node-2", "goal", "calm")
        second = await made.session.configure("node-3", "goal", "fast", expected=1)
        with pytest.raises(MapekError, match="its epoch is 2, and 1 was expected"):
            await made.session.configure("node-4", "goal", "slow", expected=1)
        await made.settle()
        found = {made.session.configured(node, "goal") for node in NODES}

    assert (first, same, second, found) == (1, 1, 2, {("fast", 2)})


async def test_a_claim_is_granted_once_although_messages_are_lost_and_doubled() -> None:
    async with group(seed=3) as made:
        await made.settle()
        made.messenger.loss, made.messenger.doubled, made.messenger.delay = 0.2, 0.3, 0.02
        fences = []
        for number in range(30):
            asker = NODES[number % 5]
            fences.append((await made.session.claim(asker, f"k{number}", hold=60.0)).fence)
        await made.settle()
        claims = replica_of(made.session, "node-1").decisions.claims

    assert fences == sorted(set(fences))
    # Who was told a fence still has that one: what was asked again was not granted again.
    assert [held.fence for held in claims.values()] == fences


async def test_a_group_without_a_majority_says_why_it_does_not_answer() -> None:
    async with group(settings=FAST) as made:
        await made.settle()
        made.crash("node-1", "node-2", "node-3")

        with pytest.raises(NoConsensus, match=r"was not answered within 0\.4 s: .* of the 4 others it heard"):
            await made.session.claim("node-4", "k", hold=1.0)
        with pytest.raises(NoConsensus, match="node-1 is down"):
            await made.session.claim("node-1", "k", hold=1.0)
