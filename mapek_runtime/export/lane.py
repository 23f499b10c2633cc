"""A lane: the batches on their way to one exporter.

Each exporter has its own, so that a slow one holds up nobody else. What waits is bounded in spans and
bytes; what does not fit goes from the oldest batch, and is counted for this exporter alone.
"""

from __future__ import annotations

from collections import deque

from .account import Account, Fate, Outcome, Place, SinkAccount
from .notice import Notices
from .outbox import Batch
from .sink import Sink

__all__ = ["Lane"]

MOST_BYTES = 96 * 1024 * 1024
"""Encoded bytes that may wait, whatever the number of spans."""


class Lane:
    """What waits for one exporter, and what it is working on.

    Batches in flight belong to an owner, the batch task of one loop. When that loop is gone they are
    given back, and an owner that wakes up later finds out that they are no longer its own.
    """

    def __init__(self, sink: Sink, ledger: Account, notices: Notices, *, capacity: int) -> None:
        self.sink = sink
        self.account = SinkAccount()
        self._ledger = ledger
        self._notices = notices
        self._capacity = capacity
        self._waiting: deque[Batch] = deque()
        self._spans = self._bytes = 0
        self._flying: dict[Batch, object] = {}

    @property
    def has_waiting(self) -> bool:
        """Whether there is a batch that could be sent now."""
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another batch can wait without pushing one out."""
        return self._spans < self._capacity and self._bytes < MOST_BYTES

    @property
    def at_once(self) -> int:
        """How many batches are in flight."""
        return len(self._flying)

    @property
    def unsent(self) -> int:
        """How many spans this exporter has not taken, for good or for now."""
        return sum(self.account.dropped.values()) + self.account.places[Place.SPOOLED]

    def oldest(self, otherwise: int) -> int:
        """How many spans had left the ring before the oldest one here; `otherwise` when there is none."""
        oldest = min((batch.start for batch in self._flying), default=otherwise)
        return min(oldest, self._waiting[0].start) if self._waiting else oldest

    def put(self, batch: Batch) -> None:
        """Add a batch that the account knows of; the oldest ones go when there are too many."""
        batch = batch.part(takes_bytes=self.sink.takes_bytes)
        self._waiting.append(batch)
        self._weigh(batch, 1)
        while (self._spans > self._capacity or self._bytes > MOST_BYTES) and len(self._waiting) > 1:
            gone = self._pop()
            self._ledger.settle(gone.fate, self.account, Place.QUEUED, Outcome(0, gone.count, "queue_full"))
            self._notices.warn(
                f"{self.sink.name}/queue_full",
                "%s: it is too slow, the oldest spans that wait for it go",
                self.sink.name,
                count=gone.count,
            )

    def take(self, owner: object) -> Batch | None:
        """The next batch, which is in flight from now on; None when none waits."""
        if not self._waiting:
            return None
        batch = self._pop()
        self._flying[batch] = owner
        self._ledger.move(batch.fate, self.account, Place.QUEUED, Place.IN_FLIGHT)
        return batch

    def settle(self, batch: Batch, owner: object, outcome: Outcome) -> bool:
        """Write down what became of a batch; False when it was taken from its owner meanwhile."""
        if self._flying.get(batch) is not owner:
            return False
        del self._flying[batch]
        self._ledger.settle(batch.fate, self.account, Place.IN_FLIGHT, outcome)
        return True

    def spooled(self, batch: Batch) -> bool:
        """A batch in flight was written to disk; False when it was taken back meanwhile."""
        if self._flying.pop(batch, None) is None:
            return False
        self.move(batch.fate, Place.IN_FLIGHT, Place.SPOOLED)
        return True

    def recover(self, fate: Fate) -> None:
        """Spans of an earlier process were found on disk."""
        self._ledger.recover(fate, self.account)

    def move(self, fate: Fate, source: Place, target: Place) -> None:
        """What is on disk goes on its way, or comes back."""
        self._ledger.move(fate, self.account, source, target)

    def close(self, fate: Fate, source: Place, outcome: Outcome) -> None:
        """What was on disk has come to its end."""
        self._ledger.settle(fate, self.account, source, outcome)

    def give_back(self, owner: object) -> None:
        """What `owner` had in flight waits again, before everything else."""
        back = sorted((batch for batch, whose in self._flying.items() if whose is owner), key=_start)
        for batch in reversed(back):
            del self._flying[batch]
            self._ledger.move(batch.fate, self.account, Place.IN_FLIGHT, Place.QUEUED)
            self._waiting.appendleft(batch)
            self._weigh(batch, 1)

    def abandon(self, reason: str) -> None:
        """Give up everything that waits."""
        while self._waiting:
            batch = self._pop()
            self._ledger.settle(batch.fate, self.account, Place.QUEUED, Outcome(0, batch.count, reason))

    def after_fork(self) -> None:
        """This is the child of a fork: what is here belongs to the parent."""
        self.account = SinkAccount()
        self._waiting.clear()
        self._spans = self._bytes = 0
        self._flying.clear()
        self.sink.after_fork()

    def _pop(self) -> Batch:
        batch = self._waiting.popleft()
        self._weigh(batch, -1)
        return batch

    def _weigh(self, batch: Batch, sign: int) -> None:
        self._spans += sign * batch.count
        self._bytes += sign * len(batch.payload)


def _start(batch: Batch) -> int:
    return batch.start
