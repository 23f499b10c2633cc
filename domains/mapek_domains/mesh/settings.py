"""The mesh's section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mapek_runtime.errors import ConfigError

from .udp.emulator import ring_with_chords
from .udp.port import Address, parse_address

__all__ = ["BabelEngine", "MeshSettings", "check_engine", "peer_addresses", "topology_of"]

_Interval = Annotated[float, msgspec.Meta(ge=0.005, le=10.0)]
_Babel = Annotated[float, msgspec.Meta(ge=0.02, le=600.0)]
_Rate = Annotated[float, msgspec.Meta(ge=0.0, le=10_000.0)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class BabelEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How babeld is tuned and its links are probed, where the engine is Babel."""

    hello: _Babel = 0.2
    """Seconds between Babel's hellos; without a loop a dead link is noticed after some four of them."""
    update: _Babel = 1.0
    """Seconds between Babel's full updates."""
    link_detect: bool = True
    """Let babeld watch the carrier: then only a silent link needs the loop, not one that is down."""
    smoothing: Annotated[int, msgspec.Meta(ge=0, le=600)] = 0
    """Half-life in seconds of Babel's metric smoothing; 0 takes a better route back at once."""
    probe_interval: _Interval = 0.02
    """Seconds between the probes of a link, in each direction."""


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mesh: what carries its packets, who is linked to whom, and how links are probed."""

    engine: Literal["udp", "babel"] = "udp"
    """What carries the packets: the UDP mesh, which needs no rights, or babeld in network namespaces of
    this machine, which needs root or a user namespace; its six nodes are called n1 to n6."""
    listen: str = ""
    """HOST:PORT of this node in a real deployment; empty for a demonstration on loopback."""
    peers: dict[str, str] = {}
    """The neighbours of this node in a real deployment: name → HOST:PORT."""
    links: tuple[tuple[str, str], ...] = ()
    """The links of a demonstration, as pairs of node names; a ring with chords when empty."""
    probe_interval: _Interval = 0.05
    """Seconds between the probes of a link of the UDP mesh, in each direction."""
    loss: _Share = 0.0
    """Share of the datagrams lost on every link of a demonstration, in each direction, all the time."""
    boot: Annotated[float, msgspec.Meta(ge=0.0, le=600.0)] = 0.0
    """Seconds that a node of a demonstration takes to start; restarted meanwhile, it begins anew."""
    chaos: Literal["hard", "mild", "all"] = "hard"
    """Which faults `--chaos` makes in a demonstration: hard ones, which stop most of what a link carries
    (blackholes, links and nodes down, losses of 40 to 70 %); mild ones (losses of 10 to 40 % and delays of
    10 to 100 ms, half of them in one direction only); or all of these."""
    traffic: _Rate = 20.0
    """Messages a second that each node of a demonstration sends to others, to measure delivery."""
    traced_share: _Share = 0.02
    """Share of those messages that carry a trace; the UDP mesh's, because the kernel carries Babel's."""
    babel: BabelEngine = BabelEngine()


def check_engine(settings: MeshSettings) -> None:
    """Raises `ConfigError` for settings of the UDP mesh where the engine is Babel."""
    if settings.engine == "udp":
        return
    default = MeshSettings()
    for name in ("listen", "peers", "links", "loss", "boot", "chaos"):
        if getattr(settings, name) != getattr(default, name):
            raise ConfigError(
                f"[mesh] {name} belongs to the UDP mesh, and engine is 'babel', which builds a lab of its "
                f"own; leave {name} out, or set engine to 'udp'"
            )


def topology_of(settings: MeshSettings, nodes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The links of a demonstration; raises `ConfigError` for one that is not between two of `nodes`."""
    if not settings.links:
        return ring_with_chords(nodes)
    unique: dict[frozenset[str], tuple[str, str]] = {}
    for a, b in settings.links:
        if a not in nodes or b not in nodes or a == b:
            raise ConfigError(
                f"[mesh] links: {[a, b]!r} is not a link between two nodes; the nodes are {', '.join(nodes)}"
            )
        unique[frozenset((a, b))] = (a, b)
    return tuple(unique.values())


def peer_addresses(settings: MeshSettings, node_id: str) -> dict[str, Address]:
    """The neighbours of a real node; raises `ConfigError` for what cannot be an address or a name."""
    addresses: dict[str, Address] = {}
    for peer, text in settings.peers.items():
        if peer == node_id:
            raise ConfigError(f"[mesh.peers] {peer!r} is this node itself; name only its neighbours")
        if not 0 < len(peer) <= 64 or "~" in peer:
            raise ConfigError(f"[mesh.peers] {peer!r} is not a node name: 1 to 64 characters without '~'")
        addresses[peer] = parse_address(text, where=f"[mesh.peers] {peer}")
    if len(set(addresses.values())) < len(addresses):
        raise ConfigError("[mesh.peers] two neighbours have one address; each needs its own")
    return addresses
