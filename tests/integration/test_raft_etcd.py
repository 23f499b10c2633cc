"""The etcd engine against three real etcd servers: what it agrees upon, and what etcd itself says of it.

Skipped with the reason where etcd is not installed. Nothing here asserts how fast it is:
`python -m benchmarks.raft` measures that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mapek_domains.raft.etcd.session import open_etcd
from mapek_domains.raft.etcd.settings import EtcdEngine
from mapek_domains.raft.settings import RaftSettings
from mapek_runtime.errors import ConfigError, EngineUnavailable, MapekError
from mapek_runtime.loop.domain import Consensus, FollowsNodes
from mapek_runtime.testing import Recorder
from tests.integration.certificates import authority
from tests.integration.etcd_cluster import EtcdCluster, etcdctl, put, require_etcd
from tests.integration.etcd_session import context, eventually, leader, serving, session

KEY = "drain a~b"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    try:
        require_etcd()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as servers:
        yield servers


@pytest.fixture(autouse=True)
def all_servers_run(cluster: EtcdCluster) -> Iterator[None]:
    yield
    cluster.restore()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A fleet of its own for each test."""
    return f"/{quote(request.node.name[:100], safe='').replace('%', '-')}"


async def test_it_is_a_consensus_that_follows_nodes(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", "b") as consensus:
        assert isinstance(consensus, Consensus)
        assert isinstance(consensus, FollowsNodes)
        assert len(consensus.plugins("a")) == 1
        with pytest.raises(EngineUnavailable, match="node 'c' does not run here; here run a, b"):
            consensus.leader("c")


async def test_the_term_is_the_revision_of_the_leadership_as_etcdctl_says_it(
    cluster: EtcdCluster, prefix: str, recorder: Recorder
) -> None:
    async with session(cluster, prefix, "a", "b", "c") as consensus:
        leads = await leader(consensus, "a")
        await asyncio.sleep(0.2)
        (key,) = etcd_keys(cluster, f"{prefix}/leader")
        status = etcdctl(cluster.servers[0], "endpoint", "status")[0]["Status"]

    won = [span for span in recorder.named("raft.leader_election") if (span.attributes or {}).get("won")]
    assert len(won) == 1
    assert won[0].parent is None
    assert won[0].attributes == {
        "term": key["create_revision"],
        "candidate_id": leads,
        "won": True,
        "etcd.raft_term": status["raftTerm"],
    }


async def test_a_commit_is_of_the_revision_that_etcdctl_says(
    cluster: EtcdCluster, prefix: str, recorder: Recorder
) -> None:
    async with session(cluster, prefix, "a", "b") as consensus:
        await leader(consensus, "a")
        recorder.clear()
        grant = await consensus.claim("a", KEY, hold=30.0)
        (claimed,) = etcd_keys(cluster, f"{prefix}/claims/{KEY}")
        await consensus.configure("b", "mode", "calm")
        (configured,) = etcd_keys(cluster, f"{prefix}/configuration/mode")

    revisions = [(span.attributes or {})["commit_index"] for span in recorder.named("raft.commit")]
    assert revisions == [claimed["mod_revision"], configured["mod_revision"]]
    assert grant.fence == claimed["mod_revision"]


async def test_what_is_claimed_and_configured_in_one_process_is_known_in_another(
    cluster: EtcdCluster, prefix: str
) -> None:
    async with session(cluster, prefix, "a") as one, session(cluster, prefix, "b") as other:
        first = await one.claim("a", KEY, hold=30.0)
        second = await other.claim("b", KEY, hold=30.0)
        await eventually(lambda: other.claims("b", "drain") == {KEY: "a"})
        await one.release("a", KEY, fence=first.fence)
        third = await other.claim("b", KEY, hold=30.0)
        epochs = [await one.configure("a", "mode", "x"), await other.configure("b", "mode", "y", expected=1)]
        with pytest.raises(MapekError, match="is of epoch 2, and 1 was expected"):
            await one.configure("a", "mode", "z", expected=1)
        await eventually(lambda: one.configured("a", "mode") == ("y", 2))

        assert (first.granted, second.granted, second.owner, third.granted) == (True, False, "a", True)
        assert third.fence > first.fence
        assert epochs == [1, 2]


async def test_only_the_leader_gets_what_is_for_the_leader(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", "b") as consensus:
        leads = await leader(consensus, "a")
        other = "b" if leads == "a" else "a"
        refused = await consensus.claim(other, KEY, hold=5.0, leader_only=True)
        granted = await consensus.claim(leads, KEY, hold=5.0, leader_only=True)

        assert not refused.granted
        assert refused.reason == f"only the leader may have it, and {leads} leads"
        assert granted.granted
        assert granted.term == consensus.engine.standing(leads).term


async def test_a_claim_ends_by_itself_and_not_before_its_time(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", "b") as consensus:
        grant = await consensus.claim("a", KEY, hold=1.0)
        await eventually(lambda: consensus.claims("b") == {})
        ended = asyncio.get_running_loop().time()
        again = await consensus.claim("b", KEY, hold=1.0)

        assert ended >= grant.until
        assert again.granted


async def test_a_claim_with_any_key_that_may_be_asked_for(cluster: EtcdCluster, prefix: str) -> None:
    keys = ["é🙂", "a/b/../c", "line\nbreak", " ", "\x00", "x" * 200]
    async with session(cluster, prefix, "a") as consensus:
        for key in keys:
            assert (await consensus.claim("a", key, hold=30.0)).granted

        assert consensus.claims("a") == dict.fromkeys(keys, "a")


async def test_a_node_that_crashed_comes_back_in_another_life(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", "b") as consensus:
        first = await leader(consensus, "a")
        other = "b" if first == "a" else "a"
        term = consensus.engine.standing(other).term
        consensus.crashed(first)
        second = await leader(consensus, other, first)
        consensus.restarted(first)
        await leader(consensus, first)

        assert second == other
        assert consensus.engine.standing(other).term > term
        assert consensus.leader(first) == other


async def test_what_somebody_else_wrote_is_refused_counted_and_left_alone(
    cluster: EtcdCluster, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = cluster.servers[0]
    async with session(cluster, prefix, "a") as consensus:
        await leader(consensus, "a")
        await asyncio.to_thread(put, server, f"{prefix}/claims/{KEY}", "\x80\x04K\x01.")
        await asyncio.to_thread(put, server, f"{prefix}/claims/other", '{"v":99}')
        await asyncio.to_thread(put, server, f"{prefix}/configuration/mode", "x" * 1_000_000)
        await asyncio.to_thread(put, server, f"{prefix}/something", "else")
        await eventually(lambda: sum(consensus.engine.view.refused.values()) == 4)
        grant = await consensus.claim("a", KEY, hold=5.0)
        with pytest.raises(MapekError, match="left alone"):
            await consensus.configure("a", "mode", "calm")

        assert not grant.granted
        assert "what is not this runtime's" in grant.reason
        assert consensus.engine.view.refused == {"malformed": 1, "version": 1, "oversized": 1, "unknown": 1}
        assert consensus.leader("a") == "a"
    assert len([r for r in caplog.records if "not this runtime's" in r.getMessage()]) == 4


async def test_more_than_one_answer_holds_is_read_all_the_same(cluster: EtcdCluster, prefix: str) -> None:
    server = cluster.servers[0]

    def fill() -> None:
        for number in range(20):
            put(server, f"{prefix}/claims/{number:02}", "x" * 1_000_000)
        put(server, f"{prefix}/claims/zz", '{"v":1,"owner":"b","request":"r","seconds":9}')

    await asyncio.to_thread(fill)
    async with session(cluster, prefix, "a", answer=5.0) as consensus:
        assert consensus.claims("a") == {"zz": "b"}
        assert consensus.engine.view.refused["oversized"] == 20


async def test_a_history_that_etcd_has_compacted_is_read_anew(cluster: EtcdCluster, prefix: str) -> None:
    async with session(cluster, prefix, "a", patience=30.0) as consensus:
        await consensus.configure("a", "mode", "x")
        server = serving(cluster, consensus)
        server.pause()
        try:
            others = [each for each in cluster.servers if each is not server]
            await asyncio.to_thread(put, others[0], f"{prefix}/something", "else")
            revision = etcdctl(others[0], "endpoint", "status")[0]["Status"]["header"]["revision"]
            await asyncio.to_thread(etcdctl, others[0], "compact", str(revision))
        finally:
            server.resume()
        epoch = await consensus.configure("a", "mode", "y")

        assert epoch == 2
        await eventually(lambda: consensus.engine.view.refused["unknown"] >= 1)


async def test_what_was_agreed_upon_is_there_after_all_servers_were_started_anew(
    cluster: EtcdCluster, prefix: str
) -> None:
    async with session(cluster, prefix, "a", patience=20.0) as consensus:
        grant = await consensus.claim("a", KEY, hold=300.0)
        await consensus.configure("a", "mode", "x")
        for server in cluster.servers:
            server.kill()
        await asyncio.to_thread(cluster.restore)
        again = await consensus.claim("a", KEY, hold=300.0)
        await leader(consensus, "a")

        assert again.fence > grant.fence
        assert consensus.configured("a", "mode") == ("x", 1)
        assert await consensus.configure("a", "mode", "y", expected=1) == 2


async def test_it_speaks_tls_and_says_who_it_is(tmp_path: Path) -> None:
    issuer = authority(tmp_path)
    server, client = issuer.issue("server"), issuer.issue("client")
    secured = EtcdCluster(
        tmp_path,
        1,
        more=(
            "--cert-file", server.certificate, "--key-file", server.key,
            "--client-cert-auth", "--trusted-ca-file", issuer.certificate,
        ),
    )  # fmt: skip
    secured.servers[0].use_tls(issuer.certificate, client.certificate, client.key)
    with secured:
        tls: dict[str, Any] = {"tls": True, "ca": issuer.certificate}
        known = {**tls, "certificate": client.certificate, "key": client.key}
        async with session(secured, "/tls", "a", **known) as consensus:
            assert (await consensus.claim("a", KEY, hold=5.0)).granted
        with pytest.raises(EngineUnavailable, match="no server answers there"):
            async with open_etcd(wrong(secured, **tls), context("a")):
                pass
        with pytest.raises(ConfigError, match=r"\[raft.etcd\] ca is .*No such file"):
            async with open_etcd(wrong(secured, tls=True, ca=f"{tmp_path}/none.pem"), context("a")):
                pass


async def test_it_authenticates_and_again_when_its_token_is_worth_nothing_any_more(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, 1) as guarded:
        server = guarded.servers[0]
        etcdctl(server, "user", "add", "root:hush-hush")
        etcdctl(server, "user", "grant-role", "root", "root")
        # As little as it needs.
        etcdctl(server, "user", "add", "mapek:hush-hush")
        etcdctl(server, "role", "add", "fleet")
        etcdctl(server, "role", "grant-permission", "fleet", "readwrite", "/auth/", "--prefix")
        etcdctl(server, "user", "grant-role", "mapek", "fleet")
        etcdctl(server, "auth", "enable")
        async with session(
            guarded, "/auth", "a", user="mapek", password="hush-hush", patience=20.0
        ) as consensus:
            assert (await consensus.claim("a", KEY, hold=5.0)).granted
            # Tokens are in memory alone.
            server.kill()
            await asyncio.to_thread(guarded.restore)
            assert (await consensus.claim("a", "another", hold=5.0)).granted
            await leader(consensus, "a")
        for given, said in (
            ({}, "wants a user"),
            ({"user": "mapek", "password": "wrong-wrong"}, "authentication failed"),
            ({"user": "mapek", "password": "hush-hush", "prefix": "/other"}, "permission denied"),
        ):
            with pytest.raises(EngineUnavailable, match=said) as caught:
                async with open_etcd(wrong(guarded, **given), context("a")):
                    pass
            assert "-wrong" not in str(caught.value)


def wrong(cluster: EtcdCluster, **more: Any) -> RaftSettings:
    engine = EtcdEngine(endpoints=cluster.endpoints, dial=1.0, **more)
    return RaftSettings(engine="etcd", etcd=engine)


def etcd_keys(cluster: EtcdCluster, key: str) -> list[dict[str, int]]:
    """What etcd's own client says of a key."""
    found: list[dict[str, int]] = etcdctl(cluster.servers[0], "get", key).get("kvs", [])
    return found
