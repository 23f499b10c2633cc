"""Agreeing with the other nodes before an action is carried out.

What only one node may do is claimed first, by the `Consensus` of the run. Two kinds of action ask for it:
`needs_consensus`, which without an agreement is not done at all, and `exclusive`, which is done alone
where the nodes agree in time, and all the same where they cannot: a link that swallows everything may lie
between this node and those it would have to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mapek_runtime.errors import NoConsensus

from .domain import Consensus, Grant
from .model import Action

__all__ = ["Agreement", "Refusal", "nobody_agrees"]

Refusal = tuple[str, str]
"""A rule, and the reason in words."""

_MARGIN = 1.0
"""Seconds beyond its verification for which an action stays the business of whoever did it."""
_AT_MOST = 0.1
"""Seconds that an exclusive action waits for the others."""


def nobody_agrees() -> Consensus | None:
    """What finds no consensus."""
    return None


class Agreement:
    """Asks for one node; `find` gives the consensus of the run, once there is one."""

    def __init__(self, node_id: str, find: Callable[[], Consensus | None] = nobody_agrees) -> None:
        self._node_id = node_id
        self._find = find

    def refusal(self, action: Action) -> Refusal | None:
        """What speaks against planning the action, as far as this node knows; never waits."""
        if not (action.needs_consensus or action.exclusive):
            return None
        consensus = self._find()
        if consensus is None:
            return _nobody(action) if action.needs_consensus else None
        if action.needs_consensus:
            leader = consensus.leader(self._node_id)
            if leader is None:
                return "no leader", f"only the leader may {action.name} {action.target}, and nobody leads now"
            if leader != self._node_id:
                return (
                    "not the leader",
                    f"{leader} leads, and decides whether to {action.name} {action.target}",
                )
        key = _key(action)
        owner = consensus.claims(self._node_id, key).get(key)
        if owner is not None and owner != self._node_id:
            return _taken(action, owner)
        return None

    async def ask(self, action: Action) -> Grant | Refusal | None:
        """Claim the action: the grant, why it is not to be done, or None where it is done unasked."""
        if not (action.needs_consensus or action.exclusive):
            return None
        consensus = self._find()
        if consensus is None:
            return _nobody(action) if action.needs_consensus else None
        hold = action.verify_within + _MARGIN
        try:
            async with asyncio.timeout(None if action.needs_consensus else _AT_MOST):
                grant = await consensus.claim(
                    self._node_id, _key(action), hold=hold, leader_only=action.needs_consensus
                )
        except (NoConsensus, TimeoutError) as error:
            if not action.needs_consensus:
                return None
            return "no consensus", str(error) or "no majority of the nodes answered in time"
        if not grant.granted:
            return _taken(action, grant.owner) if grant.owner else ("refused by consensus", grant.reason)
        if asyncio.get_running_loop().time() >= grant.until:
            return "too late", "by the time the nodes had agreed, the claim was over"
        return grant

    async def give_back(self, grant: Grant) -> None:
        """Let others have it: it failed. What cannot be given back ends by itself."""
        consensus = self._find()
        if consensus is None:
            return
        try:
            await consensus.release(self._node_id, grant.key, fence=grant.fence)
        except NoConsensus:
            return


def _key(action: Action) -> str:
    return f"{action.name} {action.target}"


def _taken(action: Action, owner: str) -> Refusal:
    return "another node does it", f"the nodes agreed that {owner} may {action.name} {action.target}"


def _nobody(action: Action) -> Refusal:
    return (
        "no consensus",
        f"{action.name} {action.target} needs the consent of the nodes, and no domain of this run gives it; "
        "add raft to domains",
    )
