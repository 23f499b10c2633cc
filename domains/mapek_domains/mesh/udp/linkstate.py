"""The mesh's own link-state protocol: hellos, flooding, and a database of who links to whom.

This is what runs without the loop: a hello every second, a neighbour dead after four of silence,
and a link used only when both its ends advertise it and neither has drained it (OSPF's rules,
RFC 2328, without its areas). A hello carries a digest of the database, so that whoever knows more
sends it: that is the whole of database exchange. An LSA is sent again until it is acknowledged.

Pure: frames and times go in, `(peer, frame)` pairs to send come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .wire import Hello, Lsa, LsaAck, LsaLink

__all__ = ["DEAD_AFTER", "HELLO_INTERVAL", "LinkStateNode"]

HELLO_INTERVAL = 1.0
DEAD_AFTER = 4.0
_RETRANSMIT = 0.2
_REFRESH = 15.0
_MAX_AGE = 60.0
_MAX_NODES = 512
_MAX_SEQ = 0xFFFF_FFFF

Send = list[tuple[str, Hello | Lsa | LsaAck]]


@dataclass(slots=True)
class _Neighbour:
    cost: int
    heard_at: float | None = None
    two_way: bool = False
    drained: bool = False
    silent: bool = True
    unacked: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Origin → (seq, when to send again)."""


class LinkStateNode:
    """One node's part in the protocol.

    `version` grows whenever the usable links may have changed; compare it to know when routes have
    to be computed again.
    """

    def __init__(self, node_id: str, neighbours: Mapping[str, int], now: float) -> None:
        self.node_id = node_id
        self.version = 0
        self._neighbours = {peer: _Neighbour(cost) for peer, cost in neighbours.items()}
        self._database: dict[str, tuple[Lsa, float]] = {}
        self._seq = 0
        self._next_hello = now
        self._refresh_at = now + _REFRESH
        self._edges: tuple[tuple[str, str, int], ...] = ()
        self._edges_version = -1
        self._advertise(now)

    # -- what goes in ---------------------------------------------------------------------------

    def tick(self, now: float) -> Send:
        """What is due: hellos, what was not acknowledged, the dead, the aged."""
        out: Send = []
        lost = [peer for peer, neighbour in self._neighbours.items() if self._expire(neighbour, now)]
        if lost or now >= self._refresh_at:
            out += self._advertise(now)
        if now >= self._next_hello:
            # After a long sleep one hello is enough.
            self._next_hello = max(self._next_hello + HELLO_INTERVAL, now + HELLO_INTERVAL / 2)
            hello = self._hello(now)
            out += [(peer, hello) for peer in self._neighbours]
            self._age(now)
        for peer, neighbour in self._neighbours.items():
            for origin, (seq, due) in list(neighbour.unacked.items()):
                if now >= due:
                    lsa = self._database.get(origin)
                    if lsa is None or lsa[0].seq != seq:
                        del neighbour.unacked[origin]
                        continue
                    neighbour.unacked[origin] = (seq, now + _RETRANSMIT)
                    out.append((peer, lsa[0]))
        return out

    def hello(self, peer: str, frame: Hello, now: float) -> Send:
        """A neighbour said hello."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None or frame.node != peer:
            return []
        out: Send = []
        fresh = neighbour.heard_at is None
        neighbour.heard_at = now
        two_way = self.node_id in frame.heard
        if fresh or not two_way:
            # Answered at once, so that two nodes agree within a round trip and not within seconds.
            out.append((peer, self._hello(now)))
        if two_way != neighbour.two_way:
            neighbour.two_way = two_way
            # A hello is heard as well as a probe, and comes first.
            neighbour.silent &= not two_way
            neighbour.unacked.clear()
            out += self._advertise(now)
        known = dict(frame.digest)
        if known.get(self.node_id, 0) > self._seq:
            # They remember an earlier life of this node: go on from there.
            self._seq = known[self.node_id]
            out += self._advertise(now)
        for origin, (lsa, _) in self._database.items():
            if lsa.seq > known.get(origin, 0) and origin not in neighbour.unacked:
                out.append(self._send_lsa(peer, neighbour, lsa, now))
        return out

    def lsa(self, peer: str, frame: Lsa, now: float) -> Send:
        """A neighbour passed on what a node says of its links."""
        if peer not in self._neighbours:
            return []
        out: Send = [(peer, LsaAck(origin=frame.origin, seq=frame.seq))]
        if frame.origin == self.node_id:
            if frame.seq > self._seq or (frame.seq == self._seq and frame != self._database[self.node_id][0]):
                self._seq = frame.seq
                out += self._advertise(now)
            return out
        held = self._database.get(frame.origin)
        if held is not None and held[0].seq >= frame.seq:
            if held[0].seq > frame.seq:
                out.append(self._send_lsa(peer, self._neighbours[peer], held[0], now))
            return out
        if held is None and len(self._database) >= _MAX_NODES:
            return out
        self._database[frame.origin] = (frame, now)
        if held is None or held[0].links != frame.links:
            self.version += 1
        self._neighbours[peer].unacked.pop(frame.origin, None)
        out += self._flood(frame, now, but=peer)
        return out

    def ack(self, peer: str, frame: LsaAck) -> None:
        """A neighbour has the LSA."""
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            held = neighbour.unacked.get(frame.origin)
            if held is not None and frame.seq >= held[0]:
                del neighbour.unacked[frame.origin]

    def set_drained(self, peer: str, drained: bool, now: float) -> Send:
        """Take the link to `peer` out of use, or give it back, as far as this end is concerned."""
        neighbour = self._neighbours[peer]
        if neighbour.drained == drained:
            return []
        neighbour.drained = drained
        return self._advertise(now)

    def set_silent(self, silent: Mapping[str, bool], now: float) -> Send:
        """Say of each link whether probes are heard over it."""
        changed = False
        for peer, is_silent in silent.items():
            neighbour = self._neighbours[peer]
            changed |= neighbour.silent != is_silent
            neighbour.silent = is_silent
        return self._advertise(now) if changed else []

    # -- what comes out -------------------------------------------------------------------------

    def drained_here(self, peer: str) -> bool:
        """Whether this end has drained the link to `peer`."""
        return self._neighbours[peer].drained

    def drained(self, peer: str) -> bool:
        """Whether either end has drained the link to `peer`."""
        if self._neighbours[peer].drained:
            return True
        held = self._database.get(peer)
        return held is not None and any(link.drained for link in held[0].links if link.peer == self.node_id)

    def adjacent(self, peer: str) -> bool:
        """Whether both ends of the link to `peer` hear each other's hellos."""
        return self._neighbours[peer].two_way

    def nodes(self) -> Iterable[str]:
        """Every node heard of: neighbours, and whoever has an LSA."""
        return self._database.keys() | self._neighbours.keys()

    def heard(self) -> set[str]:
        """The nodes that are heard: by this one, by one that it hears, and so on.

        What others say counts only where they are heard themselves: of two that die at once each may still be
        said to be heard by the other, and whoever lies behind a dead node cannot tell what it hears now.
        """
        heard, further = {self.node_id}, [self.node_id]
        while further:
            held = self._database.get(further.pop())
            if held is not None:
                news = {link.peer for link in held[0].links if not link.silent} - heard
                heard |= news
                further += news
        return heard

    def missed(self, heard: set[str]) -> set[str]:
        """The nodes that are not heard, and next to one that is."""
        beside = (held[0].links for origin, held in self._database.items() if origin in heard)
        return {link.peer for links in beside for link in links} - heard

    def edges(self) -> tuple[tuple[str, str, int], ...]:
        """The usable links with their costs, each once, in order: both ends advertise, none drained."""
        if self._edges_version != self.version:
            usable = {
                (origin, link.peer): link.cost
                for origin, (lsa, _) in self._database.items()
                for link in lsa.links
                if link.adjacent and not link.drained
            }
            self._edges = tuple(
                sorted(
                    (a, b, max(cost, usable[b, a]))
                    for (a, b), cost in usable.items()
                    if a < b and (b, a) in usable
                )
            )
            self._edges_version = self.version
        return self._edges

    # -- inside ---------------------------------------------------------------------------------

    def _expire(self, neighbour: _Neighbour, now: float) -> bool:
        if neighbour.heard_at is None or now - neighbour.heard_at < DEAD_AFTER:
            return False
        neighbour.heard_at = None
        neighbour.unacked.clear()
        was, neighbour.two_way = neighbour.two_way, False
        return was

    def _age(self, now: float) -> None:
        for origin, (_, since) in list(self._database.items()):
            if origin != self.node_id and now - since > _MAX_AGE:
                del self._database[origin]
                self.version += 1

    def _hello(self, now: float) -> Hello:
        return Hello(
            node=self.node_id,
            heard=[peer for peer, neighbour in self._neighbours.items() if neighbour.heard_at is not None],
            digest=[(origin, lsa.seq) for origin, (lsa, _) in self._database.items()],
        )

    def _advertise(self, now: float) -> Send:
        links = [
            LsaLink(peer=peer, cost=n.cost, adjacent=n.two_way, drained=n.drained, silent=n.silent)
            for peer, n in self._neighbours.items()
            if n.two_way or not n.silent
        ]
        held = self._database.get(self.node_id)
        if held is None or held[0].links != links:
            self.version += 1
        self._seq = min(self._seq + 1, _MAX_SEQ)
        self._refresh_at = now + _REFRESH
        lsa = Lsa(origin=self.node_id, seq=self._seq, links=links)
        self._database[self.node_id] = (lsa, now)
        return self._flood(lsa, now)

    def _flood(self, lsa: Lsa, now: float, *, but: str = "") -> Send:
        return [
            self._send_lsa(peer, neighbour, lsa, now)
            for peer, neighbour in self._neighbours.items()
            if peer != but and neighbour.heard_at is not None
        ]

    def _send_lsa(self, peer: str, neighbour: _Neighbour, lsa: Lsa, now: float) -> tuple[str, Lsa]:
        neighbour.unacked[lsa.origin] = (lsa.seq, now + _RETRANSMIT)
        return peer, lsa
