"""The autonomic loop of every node of a Babel lab in one process, started and ended with its node."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Any

from mapek_domains.mesh.lab import Lab
from mapek_domains.mesh.settings import BabelEngine, MeshSettings
from mapek_runtime import Cycle, Runtime
from mapek_runtime.loop.domain import DomainContext

from .session import BabelSession

__all__ = ["BabelLoops"]


class BabelLoops:
    """`async with BabelLoops(lab) as loops:` heals a lab that is up until the block is left.

    A loop runs every `interval` seconds, and at once when a link of its node begins to look bad.
    Other keywords are settings of `Runtime`. It is the supervisor of its session, and nothing more:
    `mapek run` is the same with configuration, traffic and output.
    """

    def __init__(
        self, lab: Lab, *, interval: float = 0.25, probe_interval: float = 0.02, **settings: Any
    ) -> None:
        context = DomainContext(
            nodes=lab.topology.nodes, supervisor=self, rng=random.Random(0), trigger=self._trigger
        )
        quiet = MeshSettings(engine="babel", traffic=0.0, babel=BabelEngine(probe_interval=probe_interval))
        self.session = BabelSession(lab, context, quiet)
        self.mesh = self.session.mesh
        self.cycles: list[Cycle] = []
        """Every cycle of every node that found or did something, in the order in which they ended."""
        self._settings = {"interval": interval, **settings}
        self._runtimes: dict[str, Runtime] = {}

    async def __aenter__(self) -> BabelLoops:
        await self.session.__aenter__()
        try:
            for node in self.mesh.nodes:
                await self.restarted(node)
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
            await self.session.__aexit__(kind, error, trace)

    def carried_out(self, action: str) -> tuple[tuple[str, str], ...]:
        """(node, target) of each action of that name that succeeded, in order."""
        return tuple(
            (cycle.node_id, outcome.action.target)
            for cycle in self.cycles
            for outcome in cycle.outcomes
            if outcome.action.name == action and outcome.success
        )

    # Supervisor

    async def crashed(self, node_id: str) -> None:
        """The node is gone: its loop ends at once."""
        self.session.crashed(node_id)
        runtime = self._runtimes.pop(node_id, None)
        if runtime is not None:
            await runtime.cancel()

    async def restarted(self, node_id: str) -> None:
        """The node is back: a loop of its own begins."""
        runtime = Runtime(
            *self.session.plugins(node_id), node_id=node_id, on_cycle=self._note, **self._settings
        )
        self._runtimes[node_id] = await runtime.__aenter__()

    def _trigger(self, node_id: str, reason: str) -> None:
        if node_id in self._runtimes:
            self._runtimes[node_id].trigger(reason)

    def _note(self, cycle: Cycle) -> None:
        if cycle.findings or cycle.outcomes or cycle.insights or not cycle.success:
            self.cycles.append(cycle)
