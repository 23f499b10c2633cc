"""The stock: whose spans are on disk, in the order of the disk.

The disk knows bytes and counts; the account knows batches. What is sent, lost or too old goes in order,
so that a number of spans says whose they were.
"""

from __future__ import annotations

from collections import deque

from mapek_runtime.export.account import Fate

__all__ = ["Stock"]


class Stock:
    """The fates of what is on disk, but for what is in hand."""

    def __init__(self) -> None:
        self._fates: deque[Fate] = deque()

    @property
    def spans(self) -> int:
        """How many spans there are."""
        return sum(fate.count for fate in self._fates)

    def put(self, fate: Fate) -> None:
        """A batch was written behind the others."""
        self._fates.append(fate)

    def put_back(self, fate: Fate) -> None:
        """What was claimed last is on disk as before."""
        self._fates.appendleft(fate)

    def claim(self, count: int) -> list[Fate]:
        """Take the fates of the first `count` spans.

        Fewer, where something was written for a loop that was gone before it could count it, and where
        the next batch is larger and is known elsewhere as a whole.
        """
        claimed: list[Fate] = []
        while count > 0 and self._fates:
            if (whole := self._fates[0]).count > count and whole.is_shared:
                break
            fate = self._fates.popleft()
            if fate.count > count:
                self._fates.appendleft(fate.split(count))
            count -= fate.count
            claimed.append(fate)
        return claimed
