"""The UDP engine: one node of the mesh behind one socket.

Everything a node knows changes on the loop's thread between two awaits: datagrams are handled as
they come, and one timer sends probes, hellos and what was not acknowledged. Which neighbour a
datagram is from is its address; the addresses are configured, and other senders are dropped and
counted, as is everything that does not decode.

A node that finds its own timer late by more than `OVERSLEPT` says so to its meters: what it missed
proves nothing about its links.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from mapek_domains.mesh import spans
from mapek_domains.mesh.detect import Normal
from mapek_domains.mesh.echo import Echo
from mapek_domains.mesh.engine import LinkReading, link_id
from mapek_domains.mesh.meter import LinkMeter
from mapek_domains.mesh.probe import DEFAULT_INTERVAL, Probe
from mapek_domains.mesh.routes import RouteTable
from mapek_runtime.errors import EngineUnavailable

from .emulator import Emulator
from .linkstate import DEAD_AFTER, LinkStateNode
from .messages import MessagePlane
from .port import Address, UdpPort
from .wire import Data, Frame, FrameError, Hello, Lsa, LsaAck, decode, encode

__all__ = ["OVERSLEPT", "UdpNode"]

OVERSLEPT = 0.06
"""Seconds by which the timer may be late before the node distrusts what it missed."""
_LATELY = 1.0
_NEW = 1.0
_LARGE = 32
_SETTLE = 0.05
_ECHO = "mesh.echo"


class UdpNode:
    """One node; `open`, tell it its `peers`, and run `run()` in a task of its own.

    `emulator` stands between this node and its socket; `on_action` hears of what was done here;
    `alarm(node_id, reason)` is called once when a link begins to look bad, once more when its peer
    looks dead, and not again until the link was well; `restarter` is how a node of the same process
    is started again. May be opened again after `close`, as a new life of the same node: it then
    knows nothing of the one before.
    """

    notices_after = DEAD_AFTER

    def __init__(
        self,
        node_id: str,
        *,
        rng: random.Random,
        interval: float = DEFAULT_INTERVAL,
        emulator: Emulator | None = None,
        on_action: Callable[[str, str, str], None] = lambda _action, _node, _target: None,
        restarter: Callable[[str], object] | None = None,
        alarm: Callable[[str, str], None] = lambda _node, _reason: None,
    ) -> None:
        self.node_id = node_id
        self._rng = rng
        self._interval = interval
        self._emulator = emulator
        self._on_action = on_action
        self._restarter = restarter
        self._alarm = alarm
        self._alarmed: dict[str, str] = {}
        self._port = UdpPort()
        self._peers: dict[str, Address] = {}
        self._by_address: dict[Address, str] = {}
        self._clock = asyncio.get_running_loop().time
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self.messages = MessagePlane(node_id, next_hop=self._next_hop, transmit=self._transmit)
        self._echo = Echo(self._say)
        self.messages.receive(_ECHO, lambda frame: self._echo.heard(frame.source, frame.payload))
        self.begin(())

    # -- a life -----------------------------------------------------------------------------------

    def begin(
        self, peers: Iterable[str], *, normal: Mapping[str, tuple[Normal, Normal]] | None = None
    ) -> None:
        """Forget everything and start anew with these neighbours."""
        now = self._clock()
        epoch = self._rng.randint(1, 0xFFFF_FFFF)
        known = normal or {}
        self._meters = {
            peer: LinkMeter(
                link_id(self.node_id, peer),
                peer,
                epoch=epoch,
                now=now,
                interval=self._interval,
                normal=known.get(peer),
            )
            for peer in peers
        }
        self._by_link = {meter.link: peer for peer, meter in self._meters.items()}
        self._state = LinkStateNode(self.node_id, dict.fromkeys(self._meters, 1), now)
        self._table = RouteTable(self.node_id, ())
        self._paths: dict[str, tuple[str, ...]] = {}
        self._routed: tuple[tuple[str, str, int], ...] = ()
        self._routed_version = -1
        self._routed_at = now
        self._edges: tuple[tuple[str, str], ...] = ()
        self._due = now
        self._slept = (-_LATELY, 0.0)
        self._alarmed.clear()
        self._once_heard: set[str] = set()
        self._echo.forget()
        self.messages.begin(epoch)

    async def open(self, address: Address) -> Address:
        """Bind the socket; returns where. Raises `ConfigError` when the address cannot be used."""
        await self._port.open(address, self._received, name=self.node_id)
        return self._port.address

    def connect(self, peers: Mapping[str, Address]) -> None:
        """Name the neighbours and where they listen."""
        self._peers = dict(peers)
        self._by_address = {address: peer for peer, address in peers.items()}
        self.begin(peers)

    def close(self) -> None:
        """Be gone at once, without a farewell."""
        self._port.close()

    @property
    def running(self) -> bool:
        """Whether the socket is open."""
        return self._port.is_open

    async def run(self) -> None:
        """Send what is due, until cancelled. Run it in an empty context."""
        self._due = self._clock()
        while True:
            self._notice_sleep(self._clock())
            self._tick(self._clock())
            self._due += self._interval
            await asyncio.sleep(max(0.0, self._due - self._clock()))

    # -- what the plugins read ------------------------------------------------------------------

    def links(self) -> Sequence[LinkReading]:
        """The node's own links."""
        now = self._clock()
        self._notice_sleep(now)
        state = self._state
        return tuple(
            meter.reading(
                now,
                drained=state.drained(peer),
                drained_here=state.drained_here(peer),
                peer_alive=not self._dead(peer, meter, now),
            )
            for peer, meter in self._meters.items()
        )

    def nodes(self) -> Mapping[str, bool]:
        """Every node this one has heard of, and whether it can be reached now."""
        reached = self._table.destinations
        return {
            node: node == self.node_id or node in reached
            for node in sorted({self.node_id, *self._state.nodes()})
        }

    def edges(self) -> Sequence[tuple[str, str]]:
        """The links of the whole mesh that carry traffic now, as this node knows them."""
        return self._edges

    def route(self, destination: str) -> Sequence[str]:
        """The path in force from here, both ends included; empty when there is none."""
        if destination == self.node_id:
            return (self.node_id,)
        return self._paths.get(destination, ())

    def stalled(self) -> float:
        """Seconds by which this node overslept within the last second."""
        at, seconds = self._slept
        return seconds if self._clock() - at < _LATELY else 0.0

    def statistics(self) -> Mapping[str, int]:
        """Frames received, datagrams dropped by reason, messages, and bytes sent by kind of frame."""
        return {
            **self._counts,
            **{f"dropped.{reason}": count for reason, count in self._port.dropped.items()},
            **{f"messages.{name}": count for name, count in self.messages.counts.items()},
            **{f"bytes.{kind}": count for kind, count in self._bytes.items()},
        }

    def unheard(self) -> Sequence[str]:
        """Nodes other than neighbours that were heard once, and that no node in reach hears now."""
        heard = self._state.heard()
        self._once_heard |= heard
        return sorted((self._state.missed(heard) & self._once_heard) - self._meters.keys())

    def normals(self) -> Mapping[str, tuple[Normal, Normal]]:
        """What was learned to be normal on each link, in and out."""
        return {meter.link: meter.normal for meter in self._meters.values()}

    def restore(self, link: str, normal: tuple[Normal, Normal]) -> None:
        """Start from what was learned of a link before, when nothing was learned since."""
        peer = self._by_link.get(link)
        if peer is not None:
            self._meters[peer].restore(normal)

    def ask(self, node_id: str) -> None:
        """Ask a node for an answer over the route in force."""
        self._echo.ask(node_id, self._clock())

    def answered(self, node_id: str, since: float) -> bool:
        """Whether the node has answered a question asked since then."""
        return self._echo.answered(node_id, since)

    def cannot_restart(self, node_id: str) -> str:
        """Why this node cannot start that one again; empty where it may be tried."""
        if self._restarter is not None:
            return ""
        return (
            f"{node_id} runs in another process; its service manager starts it again "
            "(systemd: Restart=on-failure)"
        )

    # -- what the plugins tell it -----------------------------------------------------------------

    async def drain(self, link: str) -> str:
        """Advertise the link as not usable; returns in words what changed."""
        return self._set_drained(link, True)

    async def undrain(self, link: str) -> str:
        """Advertise the link as usable again; returns in words what changed."""
        return self._set_drained(link, False)

    async def restart(self, node_id: str) -> str:
        """Start a dead node of this process again."""
        if self._restarter is None:
            why = self.cannot_restart(node_id)
            raise EngineUnavailable(f"the UDP mesh cannot restart {node_id!r} from {self.node_id!r}: {why}")
        self._on_action("restart", self.node_id, node_id)
        restarted = self._restarter(node_id)
        if asyncio.iscoroutine(restarted):
            await restarted
        return f"{node_id} was started again by {self.node_id}"

    def _set_drained(self, link: str, drained: bool) -> str:
        peer = self._by_link.get(link)
        if peer is None:
            raise EngineUnavailable(
                f"{self.node_id!r} has no link {link!r}; it has {', '.join(sorted(self._by_link)) or 'none'}"
            )
        now = self._clock()
        before = dict(self._paths)
        if self._state.drained_here(peer) == drained:
            return f"{link} was already {'drained' if drained else 'in use'} here"
        self._on_action("drain" if drained else "undrain", self.node_id, link)
        self._control(self._state.set_drained(peer, drained, now))
        self._converge(now, at_once=True)
        moved = sum(before.get(node) != path for node, path in self._paths.items())
        word = "not usable" if drained else "usable"
        return f"{self.node_id} advertises {link} as {word}; {moved} of its routes changed"

    # -- datagrams ------------------------------------------------------------------------------

    def _received(self, datagram: bytes, address: Address) -> None:
        peer = self._by_address.get(address)
        if peer is None:
            self._counts["dropped.unknown_sender"] += 1
            return
        try:
            frame = decode(datagram)
        except FrameError as error:
            self._counts[f"dropped.{error.reason}"] += 1
            return
        self._counts["received"] += 1
        now = self._clock()
        match frame:
            case Probe():
                self._meters[peer].heard(frame, now)
                self._watch(peer, self._meters[peer], now)
            case Data():
                self.messages.arrived(frame)
            case Hello():
                if frame.node != peer:
                    self._counts["dropped.wrong_node"] += 1
                    return
                self._control(self._state.hello(peer, frame, now))
                self._converge(now)
            case Lsa():
                self._control(self._state.lsa(peer, frame, now))
                self._converge(now)
            case LsaAck():
                self._state.ack(peer, frame)

    def _control(self, frames: Iterable[tuple[str, Frame]]) -> None:
        for peer, frame in frames:
            self._transmit(peer, frame)

    def _transmit(self, peer: str, frame: Frame) -> None:
        address = self._peers.get(peer)
        if address is None:
            return
        datagram = encode(frame)
        self._bytes[type(frame).__name__.lower()] += len(datagram)
        fate = 0.0 if self._emulator is None else self._emulator.fate(self.node_id, peer)
        if fate is None:
            return
        if fate:
            asyncio.get_running_loop().call_later(fate, self._port.send, datagram, address)
        else:
            self._port.send(datagram, address)

    # -- time -----------------------------------------------------------------------------------

    def _notice_sleep(self, now: float) -> None:
        late = now - self._due
        if late > OVERSLEPT:
            self._slept = (now, late)
            self._due = now
            self._counts["overslept"] += 1
            for meter in self._meters.values():
                meter.overslept(now)

    def _tick(self, now: float) -> None:
        # Right after its start hellos come before probes: within a second none was missed yet.
        silent = {
            peer: meter.silent(now)
            and (meter.probe.seen or not self._state.adjacent(peer) or meter.probe.silence(now) > _NEW)
            for peer, meter in self._meters.items()
        }
        self._control(self._state.set_silent(silent, now))
        for peer, meter in self._meters.items():
            self._transmit(peer, meter.next_probe(now))
            self._watch(peer, meter, now)
        self._control(self._state.tick(now))
        self._converge(now)

    def _watch(self, peer: str, meter: LinkMeter, now: float) -> None:
        """Raise the alarm for the link, and once more when its peer turns out to be dead."""
        if not meter.alarmed(now):
            self._alarmed.pop(peer, None)
            return
        told = self._alarmed.get(peer, "")
        if not told and not self._state.drained(peer) and meter.alarming(now):
            self._alarmed[peer] = "link"
            self._alarm(self.node_id, f"link {meter.link} looks bad")
        elif told != "node" and self._dead(peer, meter, now):
            self._alarmed[peer] = "node"
            self._alarm(self.node_id, f"node {peer} looks dead")

    def _dead(self, peer: str, meter: LinkMeter, now: float) -> bool:
        return meter.silent(now) and peer not in self._state.heard()

    def _say(self, node: str, body: bytes) -> None:
        self.messages.send(node, _ECHO, body, traced=False)

    def _next_hop(self, destination: str) -> str | None:
        return self._table.next_hop(destination)

    def _converge(self, now: float, *, at_once: bool = False) -> None:
        """Compute the routes again where the usable links have changed."""
        if self._state.version == self._routed_version:
            return
        edges = self._state.edges()
        if edges != self._routed:
            # A large mesh tells of a change in many LSAs: one computation for all of them.
            if len(edges) > _LARGE and not at_once and now - self._routed_at < _SETTLE:
                return
            self._routed = edges
            self._routed_at = now
            self._edges = tuple((a, b) for a, b, _ in edges)
            self._table = RouteTable(self.node_id, edges)
            paths = {node: self._table.path(node) for node in self._table.destinations}
            changed = [node for node in paths if paths[node] != self._paths.get(node)]
            self._paths = paths
            for node in changed:
                with spans.route_calculation(self.node_id, node, hops=len(paths[node]) - 1):
                    pass
        self._routed_version = self._state.version
