"""Messages that harm, and those of strangers, are refused and counted; the group goes on."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping

from mapek_domains.raft.embedded.member import TOPIC
from tests.raft_embedded import Group, group, replica_of
from tests.raft_group import NODES, until


async def test_hostile_messages_are_refused_and_counted_and_the_group_goes_on() -> None:
    rng = random.Random(1)
    async with group() as made:
        await made.settle()
        await made.session.claim("node-1", "k", hold=600.0)
        real = await real_messages(made)
        hostile = [
            b"",
            pickle.dumps({"type": "append_entries"}),
            b"MR\x01" + pickle.dumps({"type": "request_vote", "term": 99}),
            b"MR\x02" + real[0][3:],
            bytes(15_000),
            *(rng.randbytes(rng.randrange(300)) for _ in range(200)),
            *(b"MR\x01" + rng.randbytes(rng.randrange(300)) for _ in range(200)),
            *(changed(rng, message) for message in real for _ in range(20)),
        ]
        for message in hostile:
            for source in ("node-2", "node-3"):
                await made.messenger.send(source, "node-1", TOPIC, message)
        statistics = made.session.engine.statistics
        await until(
            lambda: refused(statistics("node-1"), "invalid", "undecodable") > 200, "they have arrived"
        )
        await made.settle()
        counts = statistics("node-1")
        claims = {node: made.session.claims(node) for node in NODES}
        granted = await made.session.claim("node-4", "k2", hold=1.0)
        await made.settle()
        states = {replica_of(made.session, node).decisions.dump() for node in NODES}

    assert len(states) == 1
    assert refused(counts, "version") >= 2
    assert refused(counts, "not_ours") >= 2
    assert granted.granted
    assert all(each == {"k": "node-1"} for each in claims.values())


async def test_a_stranger_is_not_heard() -> None:
    async with group() as made:
        await made.settle()
        (message, *_) = await real_messages(made)
        made.messenger._island["stranger"] = 0
        await made.messenger.send("stranger", "node-1", TOPIC, message)
        await until(
            lambda: made.session.engine.statistics("node-1").get("refused.stranger") == 1, "it is counted"
        )


def refused(counts: Mapping[str, int], *reasons: str) -> int:
    return sum(counts.get(f"refused.{reason}", 0) for reason in reasons)


def changed(rng: random.Random, message: bytes) -> bytes:
    """A message with some bytes changed, but for those that say who sends it and what it holds is final."""
    data = bytearray(message)
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(3, len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(3, len(data))])


async def real_messages(made: Group) -> list[bytes]:
    """Some messages of the group, as they were sent."""
    real: list[bytes] = []
    send = made.messenger.send

    async def keep(source: str, destination: str, topic: str, payload: bytes) -> None:
        real.append(payload)
        await send(source, destination, topic, payload)

    made.messenger.send = keep  # type: ignore[method-assign]
    await made.session.claim("node-2", "real", hold=600.0)
    await made.session.release("node-2", "real", fence=replica_of(made.session, "node-2").commit_index)
    made.messenger.send = send  # type: ignore[method-assign]
    return real[:30]
