"""A sink with a spool: what the collector does not take now goes to disk, and is sent when it is back.

While the collector answers, nothing touches the disk. The first failure that may pass sends the batch
to the spool, and everything after it, without asking the collector again; then one spooled batch at a
time is tried, with backoff. When one gets through, fresh batches are sent directly again, and the
spooled ones follow in their order, after the fresh ones and at a bounded rate.

The model is the persistent queue of the OpenTelemetry Collector (exporterhelper), with the difference
that only what could not be sent is written.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from mapek_runtime.errors import SpoolError
from mapek_runtime.export.account import Fate, Outcome, Place
from mapek_runtime.export.lane import Lane
from mapek_runtime.export.notice import Notices
from mapek_runtime.export.outbox import Batch
from mapek_runtime.export.sink import Attempt, Sink
from mapek_runtime.export.worker import Worker

from .exporter import SpooledExporter
from .stock import Stock
from .store import Found, Lost, Record

__all__ = ["SpoolSink"]

logger = logging.getLogger(__name__)

LET_FRESH_PASS = 0.05
"""Seconds between two looks whether fresh batches still wait."""
FINISH_LIMIT = 1.0
"""Seconds that a write that has begun may still take when whoever waited for it is cancelled."""
LOOK_EVERY = 60.0
"""Seconds between two looks for what is too old, or was left by a process that has ended since."""


class SpoolSink(Sink):
    """How a `SpooledExporter` is called."""

    def __init__(self, name: str, spooled: SpooledExporter, timeout: float, notices: Notices) -> None:
        super().__init__(name, spooled.exporter, timeout, notices)
        self._once = getattr(spooled.exporter, "send_once", spooled.exporter.send)
        self._spool = spooled.spool
        self._rate = spooled.rate
        self._backoff = spooled.backoff
        self._worker = Worker(f"mapek-spool-{name}")
        self._random = random.Random()
        self._clear()

    def _clear(self) -> None:
        self._stock = Stock()
        self._hand: tuple[Record, list[Fate]] | None = None
        self._replayed: list[Fate] = []
        """What is in flight from the disk."""
        self._attended: Lane | None = None
        self._attendant: object = None
        """Who attends; one whose loop stopped finds out by this, should it wake up."""
        self._found: Found | None = None
        self._usable: bool | None = None
        self._opening: asyncio.Event | None = None
        self._stirred: asyncio.Event | None = None
        self._failures = 0
        self._not_before = 0.0
        self._hurried = False

    @property
    def is_away(self) -> bool:
        """Whether the collector did not take the last batch that it was given."""
        return self._failures > 0

    # Fresh batches

    async def attempt(self, batch: Batch, lane: Lane) -> Outcome | None:
        """Send the batch, or spool it; None when it is on disk."""
        why = "the shutdown is near" if self._hurried else "it did not answer before"
        if not (self.is_away or self._hurried):
            attempt = await self._try_once(batch.payload, batch.count, fresh=True)
            if not attempt.may_pass:
                self._tell(attempt)
                return attempt.outcome
            why = attempt.why
        if await self._store(batch, lane, why):
            return None
        # Without a disk there is what there was before: the exporter's own retries, in memory.
        attempt = await self._try(self._send(batch), batch.count)
        if not attempt.may_pass:
            self._here_again()
        self._tell(attempt)
        return attempt.outcome

    def hurry(self) -> None:
        """The end is near: what is being sent is spooled now, and so is everything after it."""
        self._hurried = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    async def _try_once(self, payload: bytes, count: int, *, fresh: bool) -> Attempt:
        attempt = await self._try(self._once(payload, count), count)
        if attempt.may_pass:
            # Fresh batches that failed together are one failure: the collector was asked once.
            self._failures = max(1, self._failures) if fresh else self._failures + 1
            wait = self._random.random() * self._backoff.ceiling(self._failures)
            self._not_before = asyncio.get_running_loop().time() + (attempt.retry_after or wait)
        else:
            self._here_again()
        return attempt

    def _here_again(self) -> None:
        if self._failures:
            self._failures = 0
            logger.info("%s: the collector is back; %d spooled spans follow", self.name, self._spool.spans)

    def _ask_again_if_empty(self) -> None:
        # What is spooled is what asks whether the collector is back; with nothing left fresh batches do.
        if not self._spool.spans:
            self._failures = 0

    async def _store(self, batch: Batch, lane: Lane, why: str) -> bool:
        await self._opened()
        if not self._usable:
            return False
        written: list[bool] = []

        def write() -> tuple[Lost, ...]:
            try:
                self._spool.append(batch.payload, batch.count)
                written.append(True)
            finally:
                lost = self._spool.take_lost()
            return lost

        lost: tuple[Lost, ...] = ()
        try:
            lost = await self._worker.call(write, finish=FINISH_LIMIT)
        except SpoolError as error:
            self._notices.warn(
                f"{self.name}/spool", "%s: not spooled: %s", self.name, error, count=batch.count
            )
            return False
        finally:
            if written and lane.spooled(batch):
                self._stock.put(batch.fate)
                self._stir()
        self._notices.warn(
            f"{self.name}/away", "%s: spans go to the spool: %s", self.name, why, count=batch.count
        )
        self._lose(lost, lane)
        return True

    # What is spooled

    async def attend(self, lane: Lane) -> None:
        """Open the spool, and send what is in it for as long as the loop runs."""
        self._attended = lane
        me = self._attendant = object()
        self._stirred = asyncio.Event()
        await self._open(lane)
        while self._usable and self._attendant is me:
            if not self._spool.spans:
                self._stirred.clear()
                try:
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._stirred.wait()
                except TimeoutError:
                    await self._find(self._spool.adopt, lane)
                    continue
            await self._wait_for_turn(lane)
            started = asyncio.get_running_loop().time()
            sent = await self._replay(lane, me)
            # The rate is that of the whole, so that what the sending took counts.
            await asyncio.sleep(max(0.0, started + sent / self._rate - asyncio.get_running_loop().time()))

    def take_back(self, lane: Lane) -> None:
        """What is being sent from the disk stays in hand, for whoever attends next."""
        self._attendant = self._opening = None
        for fate in self._replayed:
            lane.move(fate, Place.IN_FLIGHT, Place.SPOOLED)
        self._replayed = []

    async def _open(self, lane: Lane) -> None:
        if self._usable is not None:
            return

        def open_once() -> Found:
            # Not twice, when the loop that asked first was gone before it had the answer.
            self._found = self._found or self._spool.open()
            return self._found

        opening = self._opening = asyncio.Event()
        try:
            self._usable = await self._find(open_once, lane)
        finally:
            opening.set()

    async def _find(self, look: Callable[[], Found], lane: Lane) -> bool:
        """Take over what processes left that are gone; False when the disk cannot be used."""
        try:
            found, lost = await self._worker.call(lambda: (look(), self._spool.take_lost()))
        except SpoolError as error:
            self._notices.warn(f"{self.name}/spool", "%s: there is no spool: %s", self.name, error)
            return False
        self._recover(found, lane)
        self._lose(lost, lane)
        return True

    def _recover(self, found: Found, lane: Lane) -> None:
        if found.spans:
            fate = Fate(found.spans, Place.SPOOLED)
            lane.recover(fate)
            self._stock.put(fate)
            logger.info("%s: %d spans of another process are in the spool", self.name, found.spans)
        if found.torn_bytes or found.unreadable:
            logger.warning(
                "%s: of the spool in %s %d bytes were torn and cut, and cannot be read: %s",
                self.name,
                self._spool.directory,
                found.torn_bytes,
                ", ".join(map(str, found.unreadable)) or "nothing else",
            )

    async def _opened(self) -> None:
        if self._usable is None and self._opening is not None:
            await self._opening.wait()

    async def _wait_for_turn(self, lane: Lane) -> None:
        """Wait until fresh batches have gone, and until it is worth asking an absent collector again."""
        clock = asyncio.get_running_loop().time
        while lane.has_waiting and not (self.is_away or self._hurried):  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(LET_FRESH_PASS)
        while self.is_away and (wait := self._not_before - clock()) > 0:
            await asyncio.sleep(min(wait, LOOK_EVERY))
            self._lose(await self._work(self._spool.expire), lane)
            self._ask_again_if_empty()

    async def _replay(self, lane: Lane, me: object) -> int:
        """Send the oldest spooled batch; gives its bytes, or 0 when it could not be sent."""
        lost: list[Lost] = []

        def read() -> Record | None:
            try:
                return self._spool.oldest()
            finally:
                lost.extend(self._spool.take_lost())

        try:
            record = await self._worker.call(read)
        except SpoolError as error:
            self._notices.warn(f"{self.name}/spool", "%s: %s", self.name, error)
            await asyncio.sleep(self._backoff.maximum)
            return 0
        finally:
            self._lose(lost, lane)
        if self._attendant is not me:
            return 0
        if record is None:
            # Should the disk have lost what nobody told us of, it is lost here too.
            self._lose([Lost(self._stock.spans, "spool_damaged")] if self._stock.spans else [], lane)
            self._ask_again_if_empty()
            await asyncio.sleep(LET_FRESH_PASS)
            return 0
        if self._hand is None or self._hand[0] is not record:
            self._hand = (record, self._stock.claim(record.count))
        fates = self._replayed = self._hand[1]
        for fate in fates:
            lane.move(fate, Place.SPOOLED, Place.IN_FLIGHT)
        attempt = await self._try_once(record.payload, record.count, fresh=False)
        if self._attendant is not me:
            return 0
        self._hand, self._replayed = None, []
        if not attempt.may_pass:
            taken = attempt.outcome.exported
            for fate in fates:
                exported = min(taken, fate.count)
                taken -= exported
                outcome = Outcome(exported, fate.count - exported, attempt.outcome.reason)
                lane.close(fate, Place.IN_FLIGHT, outcome)
            self._tell(attempt)
            self._lose(await self._work(lambda: self._spool.done(record)), lane)
            return len(record.payload)
        for fate in reversed(fates):
            lane.move(fate, Place.IN_FLIGHT, Place.SPOOLED)
            self._stock.put_back(fate)
        self._notices.warn(f"{self.name}/away", "%s: spooled spans wait: %s", self.name, attempt.why, count=0)
        self._lose(await self._work(lambda: self._spool.put_back(record)), lane)
        return 0

    async def _work(self, function: Callable[[], object]) -> tuple[Lost, ...]:
        """Do something at the spool; a fault of the disk is told, and the spool goes on."""

        def work() -> tuple[Lost, ...]:
            try:
                function()
            except SpoolError as error:
                self._notices.warn(f"{self.name}/spool", "%s: %s", self.name, error)
            return self._spool.take_lost()

        return await self._worker.call(work, finish=FINISH_LIMIT)

    def _lose(self, lost: Iterable[Lost], lane: Lane) -> None:
        for spans, reason in lost:
            for fate in self._stock.claim(spans):
                lane.close(fate, Place.SPOOLED, Outcome(0, fate.count, reason))
            why = f"the spool in {self._spool.directory} gave them up"
            self._tell(Attempt(Outcome(0, spans, reason), why))

    def _stir(self) -> None:
        if self._stirred is not None:
            self._stirred.set()

    # Life

    async def aclose(self) -> None:
        """Close the exporter, and leave the spool to the next process."""
        try:
            await super().aclose()
        finally:
            if self._attended is not None:
                await self._worker.end(self._spool.close)
                # A batch in hand may have lost its place meanwhile.
                self._lose(self._spool.take_lost(), self._attended)

    def after_fork(self) -> None:
        """What is spooled belongs to the parent; the child has a folder of its own."""
        super().after_fork()
        self._worker.after_fork()
        usable = self._usable
        self._clear()
        self._usable = usable
        self._spool.after_fork()
