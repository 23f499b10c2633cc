"""One node of a Babel mesh: babeld routes, this measures its links and does what the loop decides.

It keeps a control connection to its own babeld, probes each link over a socket of its own, and tells
the other nodes by adverts which links it wants drained; each end commands only its own babeld. The
node is its babeld: when that dies the node falls silent, as a machine that crashed.

Knows nothing of namespaces or of how babeld is started; `babel_mesh` gives it sockets and a way to
start a node again.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from mapek_domains.mesh.detect import Normal
from mapek_domains.mesh.echo import Echo
from mapek_domains.mesh.engine import LinkReading, link_id
from mapek_runtime.errors import EngineUnavailable

from .advert import Advert, Adverts, encode
from .control import BabelControl
from .identity import ECHO_PORT, MESSAGE_PORT, IdentitySocket
from .links import BabelLink, ProbedLinks
from .messages import KernelMessages

__all__ = ["BabelNode"]

_ADVERT_INTERVAL = 0.25
_ADVERT_HOPS = 8
_REPEATS = (0.03, 0.1)
"""Seconds after a drain or undrain at which it is told again: any of them may be lost."""


class BabelNode:
    """Implements `MeshEngine` over the babeld that listens on `control`.

    `open_sockets` gives a bound datagram socket for each peer, `open_identity` one on a port of the
    address that the node is known by. `node_of` names the node that a prefix belongs to, `address_of` the
    address of a node. `restart_node` starts a dead node again. `alarm` is called, at most once a
    probe interval, with the reason when a link begins to look bad: trigger the loop with it.
    `on_action` hears of each drain and undrain.
    `interface_parameters` go with an interface that is put back: babeld does not apply its own
    `default` statement to one that is added while it runs.
    """

    def __init__(
        self,
        node_id: str,
        links: Sequence[BabelLink],
        control: Path,
        *,
        open_sockets: Callable[[], Mapping[str, socket.socket]],
        node_of: Callable[[str], str | None],
        address_of: Callable[[str], str],
        open_identity: Callable[[int], socket.socket],
        restart_node: Callable[[str], Awaitable[str]],
        alarm: Callable[[str], None] = lambda _reason: None,
        on_action: Callable[[str, str], None] = lambda _action, _target: None,
        notices_after: float = 4.0,
        probe_interval: float = 0.02,
        interface_parameters: str = "",
    ) -> None:
        self.node_id = node_id
        self.alarm = alarm
        self.probe_interval = probe_interval
        self.adverts = Adverts(node_id)
        self._links = {link_id(node_id, link.peer): link for link in links}
        self.control_path = control
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended.set()
        self._open_sockets = open_sockets
        self._node_of = node_of
        self._restart_node = restart_node
        self._address_of = address_of
        self._open_identity = open_identity
        self._identity: IdentitySocket | None = None
        self._echo = Echo(self._say)
        self._kernel = KernelMessages(
            node_id, address_of=address_of, node_of=lambda address: node_of(f"{address}/32")
        )
        self.messages = self._kernel.plane
        self._on_action = on_action
        self.notices_after = notices_after
        self._interface_parameters = interface_parameters
        self._drained_here: set[str] = set()
        self._normals: dict[str, tuple[Normal, Normal]] = {}
        self._probed: ProbedLinks | None = None
        self._control: BabelControl | None = None
        self._loop = asyncio.get_running_loop()
        self._settling = asyncio.Lock()
        self._wake_settler = asyncio.Event()
        self._advert_at = 0.0
        self._advert_seq = 0

    # -- what the plugins read ------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the node lives: its babeld answers and its links are probed."""
        return self._probed is not None

    def links(self) -> Sequence[LinkReading]:
        """The node's own links; none while its babeld is dead."""
        if self._probed is None:
            return ()
        return self._probed.readings(
            drained_here=self._drained_here, peers_alive=self.adverts.alive(time.monotonic())
        )

    def nodes(self) -> Mapping[str, bool]:
        """Every node heard of, and whether it still speaks by any way."""
        return {self.node_id: self.running, **self.adverts.alive(time.monotonic())}

    def edges(self) -> Sequence[tuple[str, str]]:
        """The links of the mesh that both their ends use."""
        return self.adverts.edges(self._used_peers(), time.monotonic())

    def route(self, destination: str) -> Sequence[str]:
        """The path in force: our own next hop, then what each node on the way told of its own."""
        return self.adverts.route(self._next_hops(), destination)

    def reachable(self) -> Sequence[str]:
        """The other nodes to which a route is installed."""
        return sorted(self._next_hops())

    def unheard(self) -> Sequence[str]:
        """Nodes other than neighbours that were heard once, and whose adverts come by no way now."""
        peers = {link.peer for link in self._links.values()}
        spoken = self.adverts.alive(time.monotonic())
        return [node for node, speaks in spoken.items() if not speaks and node not in peers]

    def stalled(self) -> float:
        """The longest oversleep of the last second."""
        return self._probed.overslept() if self._probed is not None else 0.0

    def normals(self) -> dict[str, tuple[Normal, Normal]]:
        """What is usual on each link; kept in Knowledge."""
        if self._probed is not None:
            self._normals = self._probed.normals
        return {name: self._normals.get(name, (Normal(), Normal())) for name in self._links}

    def restore(self, link: str, normal: tuple[Normal, Normal]) -> None:
        """Begin with what was usual on a link before; for the next start of the node."""
        if link in self._links:
            self._normals[link] = normal

    @property
    def counts(self) -> Mapping[str, int]:
        """Datagrams sent, refused and malformed on the links, and messages."""
        links = self._probed.sockets.counts if self._probed is not None else {}
        return {**links, **{f"messages.{name}": count for name, count in self.messages.counts.items()}}

    def ask(self, node_id: str) -> None:
        """Ask a node for an answer over the routes in force."""
        self._echo.ask(node_id, time.monotonic())

    def answered(self, node_id: str, since: float) -> bool:
        """Whether the node has answered a question asked since then."""
        return self._echo.answered(node_id, since)

    # -- what the plugins command ---------------------------------------------------------------

    async def drain(self, link: str) -> str:
        """Take the link out of use here, and ask the other end for the same."""
        plan = self._link(link)
        if link not in self._drained_here:
            self._on_action("drain", link)
            self._drained_here.add(link)
        # Told before it is done: the other end flushes at the same time, not afterwards.
        self._tell()
        done = await self._settle(link)
        return f"{done or f'{plan.interface} was flushed already'}; {plan.peer} asked to flush its end"

    async def undrain(self, link: str) -> str:
        """Give up this end's wish to drain; the link is used again when the other end agrees."""
        plan = self._link(link)
        if link in self._drained_here:
            self._on_action("undrain", link)
            self._drained_here.discard(link)
        self._tell()
        done = await self._settle(link)
        if self._wants_drained(link, time.monotonic()):
            return f"{plan.interface} stays flushed: {plan.peer} still wants it drained"
        return f"{done or f'{plan.interface} was in use already'}; {plan.peer} asked to add its end"

    async def restart(self, node_id: str) -> str:
        """Start the babeld of a dead node again, where this process can."""
        return await self._restart_node(node_id)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until babeld dies or the task is cancelled; `started` and `ended` say where it stands.

        Raises `EngineUnavailable` when babeld does not answer.
        """
        control = BabelControl(self.control_path)
        await control.open()
        try:
            probed = self._begin(control)
            # Long-lived: none of it is a child of whatever span was open when the node was started.
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work, context=contextvars.Context())
                    for work in (control.follow(), self._probe(probed), self._settle_when_told())
                ]
                await control.lost.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._end()
            await control.aclose()

    def _begin(self, control: BabelControl) -> ProbedLinks:
        now = time.monotonic()
        self._control = control
        self._identity = IdentitySocket(self._open_identity(ECHO_PORT), self._heard)
        self._kernel.open(self._open_identity(MESSAGE_PORT))
        self._probed = ProbedLinks(
            self.node_id,
            tuple(self._links.values()),
            self._open_sockets(),
            interval=self.probe_interval,
            normals=self._normals,
            advert=self._told,
            stalled=self.adverts.overslept,
            in_use=lambda name: not self._wants_drained(name, time.monotonic()),
            alarm=lambda name: self.alarm(f"link {name} looks bad"),
        )
        self._advert_at = now
        self._advert_seq = max(self._advert_seq, time.time_ns() // 1000)
        self._wake_settler.set()
        self.ended.clear()
        self.started.set()
        return self._probed

    def _end(self) -> None:
        if self._probed is not None:
            self._normals = self._probed.normals
            self._probed.close()
        if self._identity is not None:
            self._identity.close()
        self._kernel.close()
        self._probed = self._identity = None
        self._echo.forget()
        self._control = None
        # What a dead node wanted is forgotten with it, as on a machine that crashed.
        self._drained_here.clear()
        self.adverts.clear()
        self.started.clear()
        self.ended.set()

    def _heard(self, address: str, body: bytes) -> None:
        node = self._node_of(f"{address}/32")
        if node is not None:
            self._echo.heard(node, body)

    def _say(self, node_id: str, body: bytes) -> None:
        if self._identity is not None:
            self._identity.send(self._address_of(node_id), ECHO_PORT, body)

    async def _probe(self, probed: ProbedLinks) -> None:
        while True:
            await probed.tick()
            now = time.monotonic()
            if now >= self._advert_at:
                self._advertise(now)
                # A peer that fell silent no longer wants anything drained.
                self._wake_settler.set()

    # -- telling the others ---------------------------------------------------------------------

    def _advertise(self, now: float) -> None:
        self._advert_at = now + _ADVERT_INTERVAL
        self._advert_seq += 1
        advert = Advert(
            origin=self.node_id,
            seq=self._advert_seq,
            hops=_ADVERT_HOPS,
            peers=tuple(sorted(self._used_peers())),
            drained=tuple(sorted(self._links[name].peer for name in self._drained_here)),
            next_hops=self._next_hops(),
        )
        if self._probed is not None:
            self._probed.send_all(encode(advert))

    def _told(self, peer: str, advert: Advert) -> None:
        if not self.adverts.take(advert, time.monotonic()):
            return
        further = advert.handed_on()
        if further is not None and self._probed is not None:
            self._probed.send_all(encode(further), but=peer)
        if link_id(self.node_id, advert.origin) in self._links:
            self._wake_settler.set()

    def _tell(self) -> None:
        self._advertise(time.monotonic())
        for delay in _REPEATS:
            self._loop.call_later(delay, lambda: self._advertise(time.monotonic()))

    # -- commanding babeld ----------------------------------------------------------------------

    async def _settle_when_told(self) -> None:
        while True:
            await self._wake_settler.wait()
            self._wake_settler.clear()
            for name in self._links:
                try:
                    await self._settle(name)
                except EngineUnavailable:
                    # babeld is going: `lost` says so in a moment. Else the next advert tries again.
                    break

    async def _settle(self, name: str) -> str:
        """Make babeld use the link, or not, as both ends want it; returns what was changed."""
        async with self._settling:
            if self._control is None:
                raise EngineUnavailable(f"babel: the babeld of {self.node_id!r} does not run")
            link = self._links[name]
            wanted = not self._wants_drained(name, time.monotonic())
            used = link.interface in self._control.state.interfaces
            if wanted == used:
                return ""
            if wanted:
                await self._control.add_interface(link.interface, self._interface_parameters)
                return f"{link.interface} added"
            await self._control.flush_interface(link.interface)
            return f"{link.interface} flushed"

    def _wants_drained(self, name: str, now: float) -> bool:
        return name in self._drained_here or self.adverts.wants_drained(self._links[name].peer, now)

    def _used_peers(self) -> list[str]:
        if self._control is None:
            return []
        interfaces = self._control.state.interfaces
        neighbour_on = self._control.state.neighbour_on
        return [
            link.peer
            for link in self._links.values()
            if link.interface in interfaces
            and (neighbour := neighbour_on(link.interface)) is not None
            and neighbour.usable
        ]

    def _next_hops(self) -> dict[str, str]:
        if self._control is None:
            return {}
        by_interface = {link.interface: link.peer for link in self._links.values()}
        return {
            node: by_interface[route.interface]
            for prefix, route in self._control.state.installed().items()
            if (node := self._node_of(prefix)) is not None and route.interface in by_interface
        }

    def _link(self, name: str) -> BabelLink:
        if name not in self._links:
            raise EngineUnavailable(
                f"babel: {self.node_id!r} has no link {name!r}; it has {', '.join(sorted(self._links))}"
            )
        return self._links[name]
