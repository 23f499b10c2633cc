"""A group that agrees, and frames of one of its nodes to another, also such as it would never send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.embedded.wire import (
    Append,
    Body,
    Frame,
    Say,
)
from tests.unit.raft.simulation import World

__all__ = ["Scene", "log_of", "scene_of", "sent"]


@dataclass
class Scene:
    """A group of five that agrees, its leader, and one that follows."""

    world: World
    leader: Replica
    follower: Replica
    seq: int = 1 << 40

    def frame(
        self, source: str, to: Replica, body: Body, /, *, term: int | None = None, **other: Any
    ) -> Frame:
        """A frame as `source` would send it next, but for what is said otherwise."""
        self.seq += 1
        journal = self.world.nodes[source].replica.journal
        values: dict[str, Any] = {
            "group": to.group,
            "sender": source,
            "identity": journal.birth.identity,
            "life": journal.life,
            "seq": self.seq,
            "to": to.journal.birth.identity,
            "say": Say.SETTLED,
            "term": to.term if term is None else term,
            "body": body,
        }
        return Frame(**(values | other))

    def to_follower(self, body: Body, **other: Any) -> tuple[str, bool]:
        """Such a frame from the leader to the follower."""
        return self.follower.receive(
            self.leader.node_id, self.frame(self.leader.node_id, self.follower, body, **other)
        )

    def to_leader(self, body: Body, **other: Any) -> tuple[str, bool]:
        """The other way."""
        return self.leader.receive(
            self.follower.node_id, self.frame(self.follower.node_id, self.leader, body, **other)
        )

    def said(self, replica: Replica) -> list[Body]:
        """What it is about to send."""
        outgoing, replica.outbox = replica.outbox, []
        return [each.body for each in outgoing]


def scene_of(made: World) -> Scene:
    made.until(made.agree)
    for number in range(6):
        made.claim("n1", f"key {number}")
        made.run(0.05)
    made.until(made.agree)
    leader = made.nodes[made.leader() or ""].replica
    follower = next(node.replica for node in made.nodes.values() if node.replica is not leader)
    return Scene(made, leader, follower)


def log_of(replica: Replica) -> list[tuple[bytes, int, int]]:
    return replica.journal[:]


def sent(replica: Replica, first: int, last: int) -> Append:
    """The entries between two indexes, as its leader sent them once."""
    entries = [(term, command) for command, index, term in replica.journal[:] if first <= index <= last]
    return Append(first - 1, replica.journal.term_at(first - 1) or 0, last, entries)
