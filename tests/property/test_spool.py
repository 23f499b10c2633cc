"""Whatever happens to a spool, in whatever order: first in, first out, and every span is accounted for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mapek_runtime.export.spool import Found, Record, Spool
from mapek_runtime.export.spool.segment import HEAD_SIZE, RECORD_SIZE

MAX_AGE = 100
SEGMENT = 300
MAX_BYTES = 1500


class Stored(NamedTuple):
    """What the model knows of a batch."""

    payload: bytes
    spans: int
    time: float


class Stays(RuleBasedStateMachine):
    """A spool with small limits beside a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.now = 1_000.0
        self.number = 0
        self.model: list[Stored] = []
        self.hand: Record | None = None
        self.appended = self.found = self.done = self.given_up = 0
        self.lost: Counter[str] = Counter()
        self.start()

    def start(self, max_bytes: int = MAX_BYTES) -> Found:
        self.spool = Spool(
            self.directory,
            max_bytes=max_bytes,
            segment_bytes=SEGMENT,
            max_age=MAX_AGE,
            fsync="never",
            clock=lambda: self.now,
        )
        found = self.spool.open()
        self.found += found.spans
        self.hand = None
        return found

    def settle_losses(self, room_was_short: bool = False) -> None:
        """Take what the spool says was lost from the front of the model, but for what is in hand."""
        for spans, reason in self.spool.take_lost():
            self.lost[reason] += spans
            assert reason in {"spool_full", "spool_expired"}, "nothing here is damaged"
            assert reason != "spool_full" or room_was_short
            left = spans
            skip = 1 if self.hand is not None else 0
            while left > 0:
                gone = self.model.pop(skip)
                left -= gone.spans
                assert reason != "spool_expired" or gone.time < self.now - MAX_AGE
            assert left == 0, "whole batches are lost, from the oldest on"

    @rule(size=st.integers(1, 200), count=st.integers(1, 9))
    def append(self, size: int, count: int) -> None:
        self.number += 1
        payload = b"<%d:" % self.number + b"x" * size
        short = self.spool.size_bytes + RECORD_SIZE + HEAD_SIZE + len(payload) > MAX_BYTES
        self.spool.append(payload, count)
        self.appended += count
        self.model.append(Stored(payload, count, self.now))
        self.settle_losses(short)

    @rule()
    def take_the_oldest(self) -> None:
        record = self.spool.oldest()
        self.settle_losses()
        if record is None:
            assert self.model == []
        else:
            assert (record.payload, record.count, record.spooled_at) == self.model[0]
            assert record is self.hand or record.spooled_at >= self.now - MAX_AGE
        self.hand = record

    @precondition(lambda self: self.hand is not None)
    @rule()
    def deliver_it(self) -> None:
        assert self.hand is not None
        self.spool.done(self.hand)
        self.done += self.hand.count
        self.model.pop(0)
        self.hand = None

    @precondition(lambda self: self.hand is not None)
    @rule()
    def fail_to_deliver_it(self) -> None:
        assert self.hand is not None
        self.spool.put_back(self.hand)
        self.hand = None
        self.settle_losses(room_was_short=True)

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        short = self.spool.size_bytes > MAX_BYTES
        self.spool.expire()
        self.settle_losses(short)
        assert self.hand is not None or not self.model or self.model[0].time >= self.now - MAX_AGE

    @rule(killed=st.booleans(), max_bytes=st.sampled_from([MAX_BYTES, MAX_BYTES // 2]))
    def start_again(self, killed: bool, max_bytes: int) -> None:
        was = self.hand
        if killed:
            self.spool.after_fork()
            # What was in hand when its file had to go, dies with the process.
            if was is not None and not self.on_disk(was.payload):
                self.given_up += self.model.pop(0).spans
        else:
            self.spool.close()
            self.hand = None
            self.settle_losses(room_was_short=True)
        before = sum(stored.spans for stored in self.model)
        self.given_up += before
        found = self.start(max_bytes)
        assert found.spans == before
        assert found.torn_bytes == 0
        self.settle_losses(room_was_short=True)
        assert self.spool.size_bytes <= max_bytes
        self.spool.close()
        self.given_up += self.spool.spans
        self.start()
        self.settle_losses()

    @precondition(lambda self: self.hand is None and self.model)
    @rule(data=st.data())
    def crash_in_the_middle_of_the_last_append(self, data: st.DataObject) -> None:
        self.spool.after_fork()
        last = self.model.pop()
        size = RECORD_SIZE + len(last.payload)
        file = max(self.directory.glob("*/*.seg"), key=lambda path: path.name)
        tail = data.draw(st.sampled_from([b"", b"\0" * 50, b"\xf5rec" * 9]))
        # With a whole header and something behind it, it would be a damaged batch, not a torn one; and
        # what is behind it may look like the last byte of its checksum, but not like all four.
        torn = data.draw(st.integers(len(last.payload) + 4 if tail else 1, size))
        os.truncate(file, file.stat().st_size - torn)
        with file.open("ab") as end:
            end.write(tail)
        self.given_up += last.spans + sum(stored.spans for stored in self.model)

        found = self.start()

        assert found.spans == sum(stored.spans for stored in self.model)
        self.settle_losses(room_was_short=found.bytes > MAX_BYTES)

    @rule()
    def another_process_comes_and_goes(self) -> None:
        other = Spool(self.directory, fsync="never", clock=lambda: self.now)
        assert other.open() == Found()
        self.number += 1
        other.append(b"%d" % self.number, 4)
        self.model.append(Stored(b"%d" % self.number, 4, self.now))
        other.after_fork()
        found = self.spool.adopt()
        assert found.spans == 4
        self.found += 4

    def on_disk(self, payload: bytes) -> bool:
        return any(payload in path.read_bytes() for path in self.directory.glob("*/*.seg"))

    @invariant()
    def every_span_is_in_one_place(self) -> None:
        stored = sum(stored.spans for stored in self.model)
        assert self.spool.spans == stored
        gone = self.done + self.lost.total() + self.given_up
        assert self.appended + self.found == gone + stored

    @invariant()
    def the_size_is_that_of_the_files(self) -> None:
        files = list(self.directory.glob("*/*.seg"))
        assert self.spool.size_bytes == sum(path.stat().st_size for path in files)
        assert bool(files) == bool(self.spool.size_bytes)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.directory)


TestSpool = Stays.TestCase
TestSpool.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
