"""The view: what etcd has, by kind; what is not ours is refused, counted and told of once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.etcd.store import Batch, Deletion, KeyValue, Snapshot
from mapek_domains.raft.etcd.values import (
    Claim,
    Configured,
    Keys,
    Managing,
    Presence,
    Refused,
    Tenure,
    Value,
    decoded,
    encoded,
)
from mapek_domains.raft.etcd.view import View
from tests.unit.raft_etcd.group import PREFIX, eventually, leader, process
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

KINDS: tuple[type[Value], ...] = (Presence, Tenure, Claim, Configured, Managing)

values = st.one_of(
    st.builds(Presence, instance=st.text(min_size=1, max_size=8), fleet=st.text(max_size=8)),
    st.builds(Tenure, node=st.text(min_size=1, max_size=8), instance=st.text(min_size=1, max_size=8)),
    st.builds(Configured, value=st.text(max_size=700), request=st.text(min_size=1, max_size=8)),
)
texts = st.text(st.characters(exclude_categories=()), max_size=20)


def pair(key: str, value: bytes, at: int = 1) -> KeyValue:
    return KeyValue(key=key, value=value, created=at, modified=at, version=1)


def view() -> View:
    etcd = MemoryEtcd()
    return View(MemoryServer(etcd), Keys(PREFIX))  # type: ignore[arg-type]


@given(value=values)
def test_a_value_is_read_as_it_was_written(value: Value) -> None:
    assert decoded(encoded(value), type(value)) == value


@given(raw=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_whatever_the_bytes_they_are_a_value_or_refused(raw: bytes, kind: type[Value]) -> None:
    reason = ""
    try:
        decoded(raw, kind)
    except Refused as refused:
        reason = refused.reason

    assert reason in {"", "malformed", "version", "oversized"}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"v":1,"owner":"a"}', "malformed"),
        (b'{"v":1,"owner":"a","request":""}', "malformed"),
        (b'{"v":1,"owner":"a","request":NaN}', "malformed"),
        (b'{"v":2,"owner":"a","request":"r"}', "version"),
        (b"[" * 8000, "malformed"),
        (b'{"v":1,"owner":"' + b"a" * 9000 + b'","request":"r"}', "oversized"),
        (b"\xff\xfe", "malformed"),
    ],
)
def test_what_is_refused_is_refused_for_a_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        decoded(raw, Claim)

    assert caught.value.reason == reason


async def test_garbage_is_counted_by_reason_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    found = view()
    claims = [pair(f"{PREFIX}/claims/k{i}", b"garbage") for i in range(50)]
    found.replace(Snapshot(revision=9, pairs=(*claims, pair(f"{PREFIX}/what", b"")), skipped=1))

    assert found.refused == {"malformed": 50, "unknown": 1, "oversized": 1}
    assert found.claims.known == {}
    assert len(caplog.records) == 3
    assert all(r.levelno == logging.WARNING and "etcdctl del" in r.getMessage() for r in caplog.records)


@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["leader", "nodes/", "claims/", "configuration/", "fleet/", "", "other/"]),
            texts,
            st.none() | st.binary(max_size=40) | values.map(encoded),
        ),
        max_size=30,
    )
)
async def test_whatever_changes_the_view_holds_what_it_would_read(
    changes: list[tuple[str, str, bytes | None]],
) -> None:
    followed, read = view(), view()
    followed.replace(Snapshot(revision=1, pairs=()))
    there: dict[str, KeyValue] = {}
    for at, (kind, name, value) in enumerate(changes, start=2):
        key = f"{PREFIX}/{kind}{name}"
        if value is None:
            there.pop(key, None)
            followed.apply(Batch(changes=(Deletion(key, at),)))
        else:
            there[key] = pair(key, value, at)
            followed.apply(Batch(changes=(there[key],)))
    read.replace(Snapshot(revision=followed.revision, pairs=tuple(there.values())))

    assert followed.leader == read.leader
    assert followed.leader_key == read.leader_key
    for mine, theirs in zip(followed._tables, read._tables, strict=True):
        assert mine.known == theirs.known
        assert mine.taken == theirs.taken


async def test_a_revision_is_reached_when_all_of_it_has_come() -> None:
    found = view()
    found.replace(Snapshot(revision=4, pairs=()))
    part = Batch(changes=(pair(f"{PREFIX}/claims/a", b"", 5),), whole=False)
    found.apply(part)
    before = found.revision
    found.apply(Batch(changes=(pair(f"{PREFIX}/claims/b", b"", 5),)))

    assert (before, found.revision) == (4, 5)


@pytest.mark.usefixtures("autojump")
async def test_a_broken_watch_is_begun_again_and_nothing_is_missed() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await leader(session, "a")
        server.faults["read"] = deque(["refused"] * 10)
        server.break_watches()
        etcd.put(f"{PREFIX}/configuration/mode", encoded(Configured(value="x", request="r")))
        await eventually(lambda: session.configured("a", "mode") == ("x", 1))

        assert session.engine.statistics("a")["breaks"] >= 1


@pytest.mark.usefixtures("autojump")
async def test_what_was_deleted_while_the_watch_was_broken_is_gone() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        await session.claim("a", "k", hold=60.0)
        server.down = True
        await asyncio.sleep(1.0)
        etcd.delete(f"{PREFIX}/claims/k")
        etcd.compacted = etcd.revision
        server.down = False
        await eventually(lambda: session.claims("a") == {})


@pytest.mark.usefixtures("autojump")
async def test_a_cluster_that_lost_its_data_is_followed_from_its_new_beginning() -> None:
    etcd = MemoryEtcd()
    server = MemoryServer(etcd)
    async with process(etcd, "a", servers=[server]) as session:
        for number in range(20):
            await session.configure("a", "mode", f"{number}")
        server.etcd = new = MemoryEtcd()
        server.break_watches()
        await eventually(lambda: session.configured("a", "mode") == ("", 0))
        await eventually(lambda: session.leader("a") == "a")
        epoch = await session.configure("a", "mode", "again")

        assert epoch == 1
        assert session.engine.view.revision == new.revision
