"""What the nodes of a Babel mesh tell one another beside Babel, over the sockets of the probes.

Babel is a distance-vector protocol: no node knows more than its next hops, and an end that takes a
link out of use cannot say so to the other end over a link that is dead. So each node floods a small
advert: the links it uses, the links it wants drained, and its next hops. The flood takes every link,
the dead one and all ways around it, so the other end learns of a drain within a round trip.

Adverts are state, not commands: the next one repairs what a lost one did not say.

Adverts are not signed, as Babel is not here: whoever can send on a link is believed, so a mesh over a
network that is not trusted belongs inside a tunnel.

Pure: times and values are passed in. What comes off a socket is hostile until `decode` gave it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from mapek_domains.mesh.engine import link_id
from mapek_domains.mesh.probe import Probe

__all__ = ["LIFETIME", "MAX_DATAGRAM", "Advert", "Adverts", "Malformed", "decode", "encode"]

LIFETIME = 1.0
"""Seconds after which a node that said nothing is no longer thought alive."""

MAX_DATAGRAM = 8192
_HEAD = b"MB\x01"
_MAX_HOPS = 16
_MAX_NODES = 512

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Names = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=64)]


class Malformed(ValueError):
    """These bytes are neither a probe nor an advert."""


class Advert(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """What one node says of itself."""

    origin: _Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=(1 << 62))]
    """Grows with every advert, restarts included: it starts at the time of day."""
    hops: Annotated[int, msgspec.Meta(ge=0, le=_MAX_HOPS)]
    """How often it may still be handed on."""
    peers: _Names
    """The other ends of the links that carry its traffic."""
    drained: _Names
    """The other ends of the links it wants out of use."""
    next_hops: Annotated[dict[_Name, _Name], msgspec.Meta(max_length=128)]
    """Destination → the neighbour its packets go to."""

    def handed_on(self) -> Advert | None:
        """The same with one hop fewer; None when it has travelled far enough."""
        return msgspec.structs.replace(self, hops=self.hops - 1) if self.hops > 0 else None


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Probe | Advert] = msgspec.msgpack.Decoder(Probe | Advert)


def encode(frame: Probe | Advert) -> bytes:
    """The datagram of a frame."""
    return _HEAD + _encoder.encode(frame)


def decode(datagram: bytes) -> Probe | Advert:
    """The frame of a datagram; raises `Malformed` and nothing else."""
    if len(datagram) > MAX_DATAGRAM or not datagram.startswith(_HEAD):
        raise Malformed("not of this mesh")
    try:
        return _decoder.decode(memoryview(datagram)[len(_HEAD) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


@dataclass(slots=True)
class Adverts:
    """The newest advert of every other node, as `node_id` heard them."""

    node_id: str
    _newest: dict[str, Advert] = field(default_factory=dict)
    _heard_at: dict[str, float] = field(default_factory=dict)

    def take(self, advert: Advert, now: float) -> bool:
        """Keep an advert; False for one that is one's own, old, or one too many."""
        origin = advert.origin
        if origin == self.node_id:
            return False
        known = self._newest.get(origin)
        # A lower number is believed once the node was silent: its clock may have been set back.
        if known is not None and advert.seq <= known.seq and self._fresh(origin, now):
            return False
        if known is None and len(self._newest) >= _MAX_NODES:
            return False
        self._newest[origin] = advert
        self._heard_at[origin] = now
        return True

    def overslept(self, seconds: float) -> None:
        """This node slept: that it heard nothing meanwhile proves nothing."""
        for origin in self._heard_at:
            self._heard_at[origin] += seconds

    def clear(self) -> None:
        """Forget everyone, as a node that starts anew."""
        self._newest.clear()
        self._heard_at.clear()

    def alive(self, now: float) -> dict[str, bool]:
        """Every node ever heard of, and whether it still speaks."""
        return {origin: self._fresh(origin, now) for origin in self._newest}

    def wants_drained(self, peer: str, now: float) -> bool:
        """Whether the other end of the link to `peer` wants that link out of use."""
        advert = self._newest.get(peer)
        return advert is not None and self.node_id in advert.drained and self._fresh(peer, now)

    def edges(self, own_peers: Sequence[str], now: float) -> tuple[tuple[str, str], ...]:
        """The links that both their ends use, each once, in the order of their names."""
        says = {o: set(a.peers) for o, a in self._newest.items() if self._fresh(o, now)}
        says[self.node_id] = set(own_peers)
        found = {
            link_id(node, peer): (min(node, peer), max(node, peer))
            for node, peers in says.items()
            for peer in peers
            if node in says.get(peer, ())
        }
        return tuple(found[name] for name in sorted(found))

    def route(self, own_next_hops: Mapping[str, str], destination: str) -> tuple[str, ...]:
        """Follow next hops from here; empty when they end, or go round in a circle."""
        path = [self.node_id]
        hops = own_next_hops
        while path[-1] != destination:
            step = hops.get(destination)
            if step is None or step in path:
                return ()
            path.append(step)
            advert = self._newest.get(step)
            hops = advert.next_hops if advert is not None else {}
        return tuple(path)

    def _fresh(self, origin: str, now: float) -> bool:
        return now - self._heard_at.get(origin, -LIFETIME) < LIFETIME
