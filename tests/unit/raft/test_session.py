"""What is asked of consensus: what is refused at once, how long it is waited for, and what is said then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from mapek_domains.raft.commands import MOST_KEY, MOST_VALUE
from mapek_domains.raft.plugin import domain
from mapek_domains.raft.session import AloneSession, RaftSession, Standing
from mapek_domains.raft.settings import RaftSettings, check_timing, members_of
from mapek_runtime import Cycle, Runtime
from mapek_runtime.errors import ConfigError, EngineUnavailable, NoConsensus
from mapek_runtime.loop.domain import Consensus, DomainContext, FollowsNodes, Grant


class Nobody:
    async def crashed(self, node_id: str) -> None: ...

    async def restarted(self, node_id: str) -> None: ...


class Silent:
    """An engine that never answers."""

    def standing(self, _node_id: str) -> Standing:
        return Standing(leader="node-2", term=4, commit_index=17)

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool) -> Grant:
        await asyncio.sleep(3600)
        raise AssertionError((node_id, key, hold, leader_only))

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        await asyncio.sleep(3600)

    def claims(self, _node_id: str) -> Mapping[str, str]:
        return {"drain a~b": "node-1", "restart c": "node-2"}

    async def configure(self, node_id: str, name: str, value: str, *, expected: int | None) -> int:
        await asyncio.sleep(3600)
        raise AssertionError((node_id, name, value, expected))

    def configured(self, _node_id: str, name: str) -> tuple[str, int]:
        return name, 3

    def trouble(self, _node_id: str) -> str:
        return "nobody leads"

    def statistics(self, _node_id: str) -> Mapping[str, int]:
        return {}

    def crashed(self, node_id: str) -> None: ...

    def restarted(self, node_id: str) -> None: ...


@pytest.fixture
def silent() -> RaftSession:
    return RaftSession(Silent(), ("node-1", "node-2"), patience=0.01)


def context(*nodes: str, state: Path | None = None) -> DomainContext:
    return DomainContext(nodes=nodes, supervisor=Nobody(), rng=random.Random(1), state=state)


async def test_what_no_majority_answers_in_time_is_no_consensus(silent: RaftSession) -> None:
    with pytest.raises(NoConsensus, match=r"the claim of 'k' by 'node-1' was not answered within 0\.01 s"):
        await silent.claim("node-1", "k", hold=1.0)
    with pytest.raises(NoConsensus, match=r"the release of 'k' .*: nobody leads"):
        await silent.release("node-1", "k", fence=3)
    with pytest.raises(NoConsensus, match="the configuration of 'k'"):
        await silent.configure("node-1", "k", "v")


@pytest.mark.parametrize("hold", [0.0, -1.0, float("nan"), float("inf"), 86_401.0])
async def test_a_hold_that_is_no_time_is_refused_at_once(silent: RaftSession, hold: float) -> None:
    with pytest.raises(ValueError, match="hold is"):
        await silent.claim("node-1", "k", hold=hold)


@pytest.mark.parametrize("key", ["", "k" * (MOST_KEY + 1), "half \ud83d"])
async def test_a_key_that_the_log_does_not_hold_is_refused_at_once(silent: RaftSession, key: str) -> None:
    with pytest.raises(ValueError, match="a key"):
        await silent.claim("node-1", key, hold=1.0)
    with pytest.raises(ValueError, match="a key"):
        await silent.release("node-1", key, fence=1)
    with pytest.raises(ValueError, match="a name"):
        await silent.configure("node-1", key, "v")


async def test_a_value_that_is_too_long_is_refused_at_once(silent: RaftSession) -> None:
    with pytest.raises(ValueError, match="a value of 701 characters; it must have 0 to 700"):
        await silent.configure("node-1", "n", "v" * (MOST_VALUE + 1))


async def test_a_node_that_does_not_run_here_is_said_so(silent: RaftSession) -> None:
    with pytest.raises(EngineUnavailable, match=r"'node-9' does not run here; here run node-1, node-2"):
        silent.leader("node-9")
    with pytest.raises(EngineUnavailable):
        await silent.claim("node-9", "k", hold=1.0)


def test_claims_are_read_by_what_they_begin_with(silent: RaftSession) -> None:
    assert silent.claims("node-1", "drain ") == {"drain a~b": "node-1"}
    assert len(silent.claims("node-1")) == 2
    assert silent.configured("node-1", "n") == ("n", 3)


def test_a_session_is_a_consensus_that_follows_nodes_and_a_node_alone_is_none(silent: RaftSession) -> None:
    assert isinstance(silent, Consensus)
    assert isinstance(silent, FollowsNodes)
    assert not isinstance(AloneSession(), Consensus)


async def test_a_cycle_sees_where_its_node_stands(silent: RaftSession) -> None:
    cycles: list[Cycle] = []
    ended = asyncio.Event()

    def keep(cycle: Cycle) -> None:
        cycles.append(cycle)
        ended.set()

    async with Runtime(*silent.plugins("node-2"), node_id="node-2", interval=60.0, on_cycle=keep):
        await ended.wait()

    seen = {each.name: each.value for each in cycles[0].observations}
    assert seen == {
        "raft.term": 4.0,
        "raft.commit_index": 17.0,
        "raft.is_leader": 1.0,
        "raft.has_leader": 1.0,
    }


# Settings


def test_the_default_times_are_right() -> None:
    check_timing(RaftSettings())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (RaftSettings(heartbeat=0.1, election_least=0.3), "election_least must be above 0.3"),
        (RaftSettings(election_least=0.6), "election_most must be above it"),
        (RaftSettings(election_least=0.7, election_most=0.6), "election_most must be above it"),
    ],
)
async def test_times_with_which_no_leader_would_stay_one_are_refused(
    settings: RaftSettings, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_timing(settings)


@pytest.mark.parametrize(
    ("members", "nodes", "found"),
    [
        ((), ("b", "a"), ("a", "b")),
        ((), ("a",), ()),
        (("a",), ("a",), ("a",)),
        (("c", "b", "a"), ("a",), ("a", "b", "c")),
    ],
)
def test_the_members_are_those_named_or_those_of_this_process(
    members: tuple[str, ...], nodes: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert members_of(RaftSettings(members=members), nodes) == found


@pytest.mark.parametrize(
    ("members", "words"),
    [(("a", "a", "b"), "names a node twice"), (("b", "c"), "and a is to run here; members must name every")],
)
def test_a_list_of_members_that_cannot_be_is_refused(members: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        members_of(RaftSettings(members=members), ("a",))


def test_a_name_that_no_frame_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 65 characters; a member's name has at most 64"):
        members_of(RaftSettings(), ("a" * 65, "b"))


# The domain


async def test_one_node_that_was_told_of_no_others_goes_on_without_consensus(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[tuple[str, Mapping[str, object]]] = []
    alone = DomainContext(
        nodes=("node-1",), supervisor=Nobody(), rng=random.Random(1),
        emit=lambda name, fields: events.append((name, fields)),
    )  # fmt: skip

    async with domain.open(RaftSettings(), alone) as session:
        assert isinstance(session, AloneSession)
        assert session.plugins("node-1") == ()

    assert [name for name, _ in events] == ["raft.off"]
    assert "name all nodes of the group in [raft] members" in caplog.text


async def test_without_links_it_is_said_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="so add mesh to the domains; or set"):
        async with domain.open(RaftSettings(), context("node-1", "node-2")):
            pass


async def test_one_member_alone_needs_no_links_leads_at_once_and_remembers(tmp_path: Path) -> None:
    settings = RaftSettings(members=("node-1",))

    async with domain.open(settings, context("node-1", state=tmp_path)) as session:
        assert isinstance(session, RaftSession)
        first = await session.claim("node-1", "k", hold=60.0, leader_only=True)
        epoch = await session.configure("node-1", "n", "v")
        leader = session.leader("node-1")
    async with domain.open(settings, context("node-1", state=tmp_path)) as session:
        assert isinstance(session, RaftSession)
        again = await session.claim("node-1", "k", hold=60.0)
        kept = session.claims("node-1"), session.configured("node-1", "n")

    assert (first.granted, first.term, leader, epoch) == (True, 1, "node-1", 1)
    assert (again.granted, again.term) == (True, 2)
    assert again.fence > first.fence
    assert kept == ({"k": "node-1"}, ("v", 1))
