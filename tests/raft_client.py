"""One node's part of a history: it claims, gives back, configures and reads what it was told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from mapek_runtime.loop.domain import Grant
from tests.raft_history import Recording

__all__ = ["Client", "busy"]


class Client:
    """Asks as one node, and reads while the node `runs`: an answer may come at the moment of a crash."""

    def __init__(self, recording: Recording, node_id: str, runs: Callable[[], bool] = lambda: True) -> None:
        self.node_id = node_id
        self.runs = runs
        self._recording = recording
        self._grants: list[Grant] = []

    async def claim(self, key: str, *, hold: float, leader_only: bool = False, back: bool = False) -> None:
        """Claim, and where that is granted, look who has it; then give it `back` at once, or keep it."""
        grant = await self._recording.claim(self.node_id, key, hold=hold, leader_only=leader_only)
        if grant is not None and grant.granted:
            self._grants.append(grant)
            self.read([key], [])
            if back:
                await self._recording.release(self.node_id, key, fence=grant.fence)

    async def release(self, choice: int) -> None:
        """Give one of the grants back, which may be over, or given back already."""
        if self._grants:
            grant = self._grants[-1 - choice % min(len(self._grants), 4)]
            if choice % 8:
                self._grants.remove(grant)
            await self._recording.release(self.node_id, grant.key, fence=grant.fence)

    async def configure(self, name: str, value: str, *, choice: int) -> None:
        """Change, whatever it is; or where it is as this node knows it, or was a while ago."""
        known = self._recording.configured(self.node_id, name)[1]
        expected = (None, known, known, max(0, known - 1))[choice % 4]
        if await self._recording.configure(self.node_id, name, value, expected=expected) is not None:
            self.read([], [name])

    def read(self, keys: Sequence[str], names: Sequence[str]) -> None:
        """What the node knows now."""
        if not self.runs():
            return
        for key in keys:
            self._recording.owner(self.node_id, key)
        for name in names:
            self._recording.configured(self.node_id, name)


async def busy(
    client: Client,
    rng: random.Random,
    *,
    keys: Sequence[str],
    names: Sequence[str],
    pause: float,
) -> None:
    """Ask one thing after another until cancelled, while the node runs."""
    for number in range(1_000_000):
        await asyncio.sleep(rng.expovariate(1 / pause))
        if not client.runs():
            continue
        client.read(keys, names)
        choice = rng.randrange(1 << 16)
        match rng.choices(("claim", "release", "configure"), (4, 2, 2))[0]:
            case "claim":
                hold = rng.choice([0.2, 1.0, 5.0])
                key, back = rng.choice(keys), choice % 3 == 0
                await client.claim(key, hold=hold, leader_only=choice % 4 == 0, back=back)
            case "release":
                await client.release(choice)
            case _:
                value = f"{client.node_id} {number % 4}"
                await client.configure(rng.choice(names), value, choice=choice)
