"""The autonomic loop of every node of a Babel lab in one process, started and ended with its node."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from mapek_domains.mesh.heal import MeshHealer
from mapek_domains.mesh.lab import Lab
from mapek_domains.mesh.watch import MeshWatcher
from mapek_runtime import Cycle, Runtime

from .mesh import BabelMesh

__all__ = ["BabelLoops"]


class BabelLoops:
    """`async with BabelLoops(lab) as loops:` heals a lab that is up until the block is left.

    A loop runs every `interval` seconds, and at once when a link of its node begins to look bad.
    Other keywords are settings of `Runtime`.
    """

    def __init__(
        self, lab: Lab, *, interval: float = 0.25, probe_interval: float = 0.02, **settings: Any
    ) -> None:
        self.mesh = BabelMesh(
            lab,
            alarm=self._alarm,
            crashed=self._crashed,
            restarted=self._restarted,
            probe_interval=probe_interval,
        )
        self.cycles: list[Cycle] = []
        """Every cycle of every node that found or did something, in the order in which they ended."""
        self._settings = {"interval": interval, **settings}
        self._runtimes: dict[str, Runtime] = {}

    async def __aenter__(self) -> BabelLoops:
        await self.mesh.__aenter__()
        try:
            for node in self.mesh.nodes:
                await self._restarted(node)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._runtimes:
                _, runtime = self._runtimes.popitem()
                await runtime.__aexit__(None, None, None)
        finally:
            await self.mesh.__aexit__(kind, error, trace)

    def carried_out(self, action: str) -> tuple[tuple[str, str], ...]:
        """(node, target) of each action of that name that succeeded, in order."""
        return tuple(
            (cycle.node_id, outcome.action.target)
            for cycle in self.cycles
            for outcome in cycle.outcomes
            if outcome.action.name == action and outcome.success
        )

    def _alarm(self, node: str, reason: str) -> None:
        if node in self._runtimes:
            self._runtimes[node].trigger(reason)

    def _note(self, cycle: Cycle) -> None:
        if cycle.findings or cycle.outcomes or cycle.insights or not cycle.success:
            self.cycles.append(cycle)

    async def _crashed(self, node: str) -> None:
        runtime = self._runtimes.pop(node, None)
        if runtime is not None:
            await runtime.cancel()

    async def _restarted(self, node: str) -> None:
        watcher = MeshWatcher(self.mesh.nodes[node])
        runtime = Runtime(watcher, MeshHealer(watcher), node_id=node, on_cycle=self._note, **self._settings)
        self._runtimes[node] = await runtime.__aenter__()
