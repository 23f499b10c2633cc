"""Federated learning in the loop of a node: what it has learned is seen, and news are learned from soon."""

from __future__ import annotations

from collections.abc import Iterable

from mapek_runtime import Cycle, Insight, Observation

from .node import FlNode

__all__ = ["RoundAsker"]


class RoundAsker:
    """Asks for a round when the loop has acted: the cycle saw something that a round may teach all nodes."""

    name = "fl"

    def __init__(self, node: FlNode, gap: float) -> None:
        self._node = node
        self._gap = gap
        self._asked_at = float("-inf")
        self._told = node.version

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """The round that made the node's model, and what the node has to train it on."""
        node = self._node
        seen = [
            Observation(name="fl.round", value=node.version.round, unit="{round}", target=cycle.node_id),
            Observation(name="fl.samples", value=node.samples(), unit="{sample}", target=cycle.node_id),
        ]
        if node.loss is not None:
            seen.append(Observation(name="fl.loss", value=node.loss, target=cycle.node_id))
        return seen

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        """Ask for a round after an action, and tell of a new model."""
        if cycle.outcomes and cycle.started - self._asked_at >= self._gap:
            self._asked_at = cycle.started
            action = cycle.outcomes[0].action
            await self._node.ask(f"{action.name} {action.target}")
        version = self._node.version
        if version == self._told:
            return ()
        self._told = version
        return (
            Insight(
                name="fl.model",
                target=cycle.node_id,
                value=version.round,
                message=f"round {version.round}, coordinated by {version.coordinator}, "
                "made the model of what is normal",
            ),
        )
