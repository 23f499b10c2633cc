"""The lab: namespaces, veth links and one babeld in each, made and removed as one.

Everything it makes carries a token of its own, so that two labs never meet, and is written down in
the registry before it is made, so that `sweep` finds what a crash left behind.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from anyio import CancelScope, move_on_after

from mapek_runtime.errors import ConfigError, EngineUnavailable

from . import faults
from .daemon import BabelSettings, Daemon
from .namespace import NETNS, command, inside, ip_batch
from .registry import Claim, Entry, entries
from .rights import require
from .topology import SIX_NODES, LinkPlan, Topology

__all__ = ["Lab", "dismantle", "sweep"]

_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_SYSCTLS = {
    **dict.fromkeys(_FORWARDING, "1"),
    # The larger of `all` and the interface's own counts, and an interface copies `default` when it
    # is made: both must be off before the first link.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    # Link-local addresses are usable at once: a tentative one costs babeld its first hellos.
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
}
_REMOVAL_LIMIT = 20.0


class Lab:
    """`async with Lab() as lab:` gives a running lab; all of it is gone when the block is left.

    `folder` holds sockets, pid files and logs (a temporary one by default).
    """

    def __init__(
        self,
        topology: Topology = SIX_NODES,
        settings: BabelSettings | None = None,
        *,
        folder: Path | None = None,
    ) -> None:
        self.topology = topology
        self.settings = settings or BabelSettings()
        self._given = folder
        self._claim: Claim | None = None
        self.daemons: Mapping[str, Daemon] = {}

    async def __aenter__(self) -> Lab:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    @property
    def entry(self) -> Entry:
        """The lab's entry in the registry; only while it is up."""
        if self._claim is None:
            raise EngineUnavailable("the lab is not up; enter it with `async with`")
        return self._claim.entry

    def namespace(self, node: str) -> str:
        """The network namespace of a node."""
        return self.entry.namespace(node)

    async def up(self) -> None:
        """Build everything and start the daemons; on failure nothing is left."""
        await asyncio.to_thread(require)
        folder = self._given or Path(tempfile.mkdtemp(prefix="mapek-lab-"))
        self._claim = Claim.new(self.topology.nodes, folder, remove_folder=self._given is None)
        try:
            self.daemons = {node: self._daemon(node, folder) for node in self.topology.nodes}
            await _to_its_end(self._build)
            async with asyncio.TaskGroup() as group:
                for daemon in self.daemons.values():
                    group.create_task(daemon.start())
        except BaseException as error:
            await self.down()
            if isinstance(error, ExceptionGroup):
                raise error.exceptions[0] from error
            raise

    async def down(self) -> None:
        """End the daemons and remove the namespaces."""
        if self._claim is not None:
            claim, self._claim = self._claim, None
            with move_on_after(_REMOVAL_LIMIT, shield=True):
                for daemon in self.daemons.values():
                    await daemon.stop(kill=True)
                await dismantle(claim)

    def leave_running(self) -> Entry:
        """Keep the lab beyond this process: `down` is for `mapek lab down` from now on."""
        entry = self.entry
        assert self._claim is not None
        self._claim.keep()
        self._claim.release()
        self._claim = None
        return entry

    # -- faults -------------------------------------------------------------------------------

    async def drop(self, link: str, *, towards: str, share: float = 1.0) -> None:
        """Drop a share of what travels towards one end; 1 is a silent one-way blackhole."""
        plan = self._end(link, towards)
        await asyncio.to_thread(faults.drop_ingress, self.namespace(towards), plan.interface(towards), share)

    async def heal(self, link: str) -> None:
        """Take every fault of a link away, at both ends."""
        plan = self.topology.link(link)
        for node in (plan.a, plan.b):
            await asyncio.to_thread(faults.heal_ingress, self.namespace(node), plan.interface(node))
            await asyncio.to_thread(faults.set_link, self.namespace(node), plan.interface(node), up=True)
        await asyncio.to_thread(self._address, plan)

    async def cut(self, link: str, *, at: str) -> None:
        """Set the link down at one end; the other end sees its carrier go."""
        plan = self._end(link, at)
        await asyncio.to_thread(faults.set_link, self.namespace(at), plan.interface(at), up=False)

    async def kill(self, node: str) -> None:
        """Kill the daemon of a node, without a farewell."""
        await self.daemons[node].stop(kill=True)

    async def crash(self, node: str) -> None:
        """Let a node fall silent as a machine that lost power: no daemon, no routes, no forwarding."""
        namespace = self.namespace(node)
        await asyncio.to_thread(_forward, namespace, on=False)
        await self.kill(node)
        await asyncio.to_thread(faults.forget_routes, namespace)

    async def start(self, node: str) -> None:
        """Start the daemon of a node again, and let it forward."""
        await asyncio.to_thread(_forward, self.namespace(node), on=True)
        await self.daemons[node].start()

    # -- building -----------------------------------------------------------------------------

    def _end(self, link: str, node: str) -> LinkPlan:
        plan = self.topology.link(link)
        if node not in (plan.a, plan.b):
            raise ConfigError(f"{node!r} is no end of {link!r}; its ends are {plan.a!r} and {plan.b!r}")
        return plan

    def _daemon(self, node: str, folder: Path) -> Daemon:
        interfaces = tuple(plan.interface(node) for plan in self.topology.of(node))
        return Daemon(self.namespace(node), folder, node, interfaces, self.settings)

    def _build(self) -> None:
        topology = self.topology
        ip_batch(f"netns add {self.namespace(node)}" for node in topology.nodes)
        for node in topology.nodes:
            with inside(self.namespace(node)):
                for name, value in _SYSCTLS.items():
                    (Path("/proc/sys/net") / name).write_text(value)
            ip_batch(
                (
                    "link set lo up",
                    f"addr add {topology.identity(node)}/32 dev lo",
                    f"addr add {topology.identity6(node)}/128 dev lo",
                ),
                self.namespace(node),
            )
        ip_batch(
            f"link add {plan.interface(plan.a)} netns {self.namespace(plan.a)} type veth "
            f"peer name {plan.interface(plan.b)} netns {self.namespace(plan.b)}"
            for plan in topology.links
        )
        for node in topology.nodes:
            lines = [
                f"addr add {plan.address(node)}/30 dev {plan.interface(node)}" for plan in topology.of(node)
            ]
            lines += [f"link set {plan.interface(node)} up" for plan in topology.of(node)]
            ip_batch(lines, self.namespace(node))

    def _address(self, plan: LinkPlan) -> None:
        # Setting a link down keeps its IPv4 address, and removes it on no kernel seen: assert it.
        for node in (plan.a, plan.b):
            command(
                "ip", "-n", self.namespace(node), "addr", "replace",
                f"{plan.address(node)}/30", "dev", plan.interface(node),
            )  # fmt: skip


def _forward(namespace: str, *, on: bool) -> None:
    with inside(namespace):
        for name in _FORWARDING:
            (Path("/proc/sys/net") / name).write_text("1" if on else "0")


async def _to_its_end(work: Callable[[], None]) -> None:
    """Work in a thread; a cancellation waits for it, or it would build what was just removed."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
    task.result()


async def dismantle(claim: Claim) -> None:
    """Remove the lab of an entry: its daemons, its namespaces, its files, then the entry."""
    entry = claim.entry
    folder = Path(entry.folder)
    for node in entry.nodes:
        with suppress(ConfigError):
            # Killed at once: nobody is left to hear a farewell, and they leave no state to keep.
            daemon = Daemon(entry.namespace(node), folder, node, (), BabelSettings())
            await daemon.stop(kill=True)
    gone = [entry.namespace(node) for node in entry.nodes if (NETNS / entry.namespace(node)).exists()]
    for namespace in gone:
        with suppress(EngineUnavailable):
            await asyncio.to_thread(command, "ip", "netns", "del", namespace)
    if entry.remove_folder:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        for node in entry.nodes:
            for suffix in ("sock", "pid", "state", "log"):
                (folder / f"{node}.{suffix}").unlink(missing_ok=True)
    left = [name for name in gone if (NETNS / name).exists()]
    if left:
        claim.release()
        raise EngineUnavailable(f"babel: these namespaces could not be removed: {', '.join(left)}")
    claim.forget()


async def sweep() -> tuple[str, ...]:
    """Remove the labs that a crash left behind; gives their tokens. Labs in use are not touched."""
    removed = []
    for token in entries():
        claim = Claim.take(token)
        if claim is None:
            continue
        if claim.entry.kept:
            claim.release()
            continue
        with CancelScope(shield=True), move_on_after(_REMOVAL_LIMIT):
            await dismantle(claim)
        removed.append(token)
    return tuple(removed)
