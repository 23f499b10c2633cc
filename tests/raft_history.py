"""A history of decisions: what was asked of the consensus, when, and what it answered.

`tests/linearizability.py` judges it. All times are of one clock, that of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mapek_runtime.errors import EngineUnavailable, MapekError, NoConsensus
from mapek_runtime.loop.domain import Consensus, Grant

__all__ = ["Operation", "Recording", "Restart"]

Kind = Literal["claim", "release", "configure", "read"]
_NO_ANSWER = (NoConsensus, EngineUnavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one process, which is a node.

    | kind | argument | result |
    |---|---|---|
    | claim | (hold, leader_only) | the `Grant` |
    | release | the fence | None |
    | configure | (value, expected) | the epoch; None where it was refused |
    | read | "claim" or "configured" | the owner, empty for nobody; (value, epoch) |

    `answered` is None where no answer came: it may have happened at any time since, or never.
    """

    process: str
    kind: Kind
    key: str
    argument: Any
    result: Any
    invoked: float
    answered: float | None


@dataclass(frozen=True, slots=True)
class Restart:
    """A process forgot everything that was not on disk: what it reads may be older than before."""

    process: str
    at: float


class Recording:
    """Asks a consensus, and keeps what was asked and answered.

    `consensus` may be another one after a restart; what was not answered by the old one never is.
    """

    def __init__(self, consensus: Consensus) -> None:
        self.consensus = consensus
        self.restarts: list[Restart] = []
        self._operations: list[_Open] = []
        self._last = 0.0

    @property
    def operations(self) -> list[Operation]:
        """All so far, those that still wait among them."""
        return [each.operation() for each in self._operations]

    def restarted(self, *processes: str) -> None:
        """These processes forget, now or within the same step of the loop."""
        self.restarts += [Restart(process, self._now()) for process in processes]

    async def claim(self, node_id: str, key: str, *, hold: float, leader_only: bool = False) -> Grant | None:
        """The grant or the refusal; None where no majority answered."""
        grant: Grant | None = None
        with self._asking(node_id, "claim", key, (hold, leader_only)) as asked:
            grant = await self.consensus.claim(node_id, key, hold=hold, leader_only=leader_only)
            asked.answer(grant)
        return grant

    async def release(self, node_id: str, key: str, *, fence: int) -> None:
        """Give back, whether a majority answers or not."""
        with self._asking(node_id, "release", key, fence) as asked:
            await self.consensus.release(node_id, key, fence=fence)
            asked.answer(None)

    async def configure(
        self, node_id: str, name: str, value: str, *, expected: int | None = None
    ) -> int | None:
        """The epoch; None where it was refused, or where no majority answered."""
        epoch: int | None = None
        with self._asking(node_id, "configure", name, (value, expected)) as asked:
            try:
                epoch = await self.consensus.configure(node_id, name, value, expected=expected)
            except _NO_ANSWER:
                raise
            except MapekError:
                asked.answer(None)
            else:
                asked.answer(epoch)
        return epoch

    def owner(self, node_id: str, key: str) -> str:
        """Who has the key, as that node knows; empty for nobody."""
        with self._asking(node_id, "read", key, "claim") as asked:
            found = self.consensus.claims(node_id, key).get(key, "")
            asked.answer(found)
        return found

    def configured(self, node_id: str, name: str) -> tuple[str, int]:
        """Value and epoch, as that node knows them."""
        with self._asking(node_id, "read", name, "configured") as asked:
            found = self.consensus.configured(node_id, name)
            asked.answer(found)
        return found

    def _now(self) -> float:
        """The loop's time, and a trifle more where something was noted at that time already.

        What happened one after another in this process has an order, however coarse the clock.
        """
        self._last = max(asyncio.get_running_loop().time(), math.nextafter(self._last, math.inf))
        return self._last

    @contextmanager
    def _asking(self, process: str, kind: Kind, key: str, argument: object) -> Iterator[_Open]:
        asked = _Open(process, kind, key, argument, self._now)
        self._operations.append(asked)
        try:
            yield asked
        except _NO_ANSWER:
            return


class _Open:
    def __init__(
        self, process: str, kind: Kind, key: str, argument: object, now: Callable[[], float]
    ) -> None:
        self._about = (process, kind, key, argument)
        self._now = now
        self._invoked = now()
        self._answered: float | None = None
        self._result: object = None

    def answer(self, result: object) -> None:
        self._result = result
        self._answered = self._now()

    def operation(self) -> Operation:
        process, kind, key, argument = self._about
        return Operation(
            process=process,
            kind=kind,
            key=key,
            argument=argument,
            result=self._result,
            invoked=self._invoked,
            answered=self._answered,
        )
