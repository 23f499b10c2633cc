"""A Babel mesh while it is open: a lab, a node beside each babeld, faults in the kernel, a referee."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType

from mapek_domains.mesh.chaos import BreakableSession, Chaos
from mapek_domains.mesh.lab import BabelSettings, Lab
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.messenger import MessengerSession
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Fault

from .mesh import BabelMesh
from .node import BabelNode
from .plane import KernelData

__all__ = ["BabelSession", "lab_settings"]

_LOSS = (0.5, 0.7)


def lab_settings(settings: MeshSettings) -> BabelSettings:
    """How babeld is tuned under these settings."""
    babel = settings.babel
    return BabelSettings(
        hello=babel.hello, update=babel.update, link_detect=babel.link_detect, smoothing=babel.smoothing
    )


class BabelSession(BreakableSession[BabelNode], MessengerSession[BabelNode]):
    """`async with BabelSession(lab, context, settings) as session:`, in a lab that is up."""

    def __init__(self, lab: Lab, context: DomainContext, settings: MeshSettings) -> None:
        super().__init__(context)
        self.lab = lab
        self.mesh = BabelMesh(
            lab,
            alarm=context.trigger,
            crashed=context.supervisor.crashed,
            restarted=self._restarted,
            on_action=self._on_action,
            probe_interval=settings.babel.probe_interval,
        )
        self.nodes: Mapping[str, BabelNode] = {}
        self._plane = KernelData(lab, lambda: self.nodes)
        self.chaos = Chaos(
            self,
            self._plane,
            nodes=lab.topology.nodes,
            links=lab.topology.pairs,
            context=context,
            traffic=settings.traffic,
            traced_share=0.0,
            loss=_LOSS,
        )
        self._group = asyncio.TaskGroup()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> BabelSession:
        await self.mesh.__aenter__()
        self.nodes = self.mesh.nodes
        try:
            self._plane.open()
            await self._group.__aenter__()
        except BaseException as error:
            self._plane.close()
            await self.mesh.__aexit__(type(error), error, error.__traceback__)
            raise
        self._tasks = self.chaos.start(self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            # An error of the block leaves it as it is, not wrapped into a group.
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)
        finally:
            self._plane.close()
            await self.mesh.__aexit__(kind, error, trace)

    async def converged(self, limit: float) -> None:
        """Wait until every node knows a way to every other; raises `EngineUnavailable` after `limit` s."""
        try:
            async with asyncio.timeout(limit):
                while not self._plane.whole():  # noqa: ASYNC110 - six daemons' tables have no one event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise EngineUnavailable(
                f"babel: the lab has not converged within {limit:g} s; "
                f"its logs are in {self.lab.entry.folder!r}"
            ) from None

    def alive(self) -> Mapping[str, bool]:
        """Whether each node runs."""
        return {name: node.running for name, node in self.nodes.items()}

    # Messenger

    def reachable(self, node_id: str) -> Sequence[str]:
        """The other nodes to which `node_id` has a route installed; none while it is down."""
        node = self._node(node_id)
        return node.reachable() if node.running else ()

    # Breakable

    async def crash(self, node_id: str) -> None:
        """Kill the node's babeld with SIGKILL; the machine forwards nothing until it is started again."""
        await self.lab.crash(node_id)

    async def revive(self, node_id: str) -> None:
        """Start a node that is down."""
        if not self._node(node_id).running:
            await self.mesh.restart(node_id)

    async def break_link(self, fault: Fault) -> None:
        """Drop packets by nft on the receiver's side, or set one end of the link down."""
        plan = self.lab.topology.link(fault.target)
        match fault.kind:
            case "link.blackhole":
                await self.lab.drop(plan.link, towards=plan.a if fault.parameters.get("reverse") else plan.b)
            case "link.down":
                await self.lab.cut(plan.link, at=plan.a if fault.number % 2 else plan.b)
            case _:
                for end in (plan.a, plan.b):
                    await self.lab.drop(plan.link, towards=end, share=fault.parameters.get("loss", 0.6))

    async def mend_link(self, fault: Fault) -> None:
        """Take every fault of the link away."""
        await self.lab.heal(fault.target)

    # Inside

    async def _restarted(self, node_id: str) -> None:
        self.chaos.referee.started(node_id)
        await self._context.supervisor.restarted(node_id)
