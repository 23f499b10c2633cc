"""Whoever follows forks is told in the child, in order, and is not kept alive for it."""

from __future__ import annotations

import gc
import os

import pytest

from mapek_runtime.trace import forks
from mapek_runtime.trace.forks import follow_forks
from mapek_runtime.trace.sampling import CycleSampler
from mapek_runtime.trace.watching.live import LiveSpans
from tests.unit.trace.traced import Traced


class Follower:
    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told
        follow_forks(self.tell)

    def tell(self) -> None:
        self.told.append(self.name)


def in_a_child(see: list[str]) -> str:
    """What `see` holds in the child of a fork."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.write(there, ",".join(see).encode())
        os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    with os.fdopen(here) as said:
        return said.read()


pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_only_the_child_is_told_and_in_the_order_of_following() -> None:
    told: list[str] = []
    followers = [Follower("first", told), Follower("gone", told), Follower("last", told)]
    del followers[1]
    gc.collect()

    assert in_a_child(told) == "first,last"
    assert told == []


def test_one_that_fails_keeps_no_other_from_being_told() -> None:
    class Fails:
        def tell(self) -> None:
            raise LookupError("what it followed is gone")

    fails = Fails()
    follow_forks(fails.tell)
    told: list[str] = []
    follower = Follower("last", told)

    assert in_a_child(told) == follower.name


def test_the_child_of_a_fork_has_no_open_spans_to_tell_of() -> None:
    live = LiveSpans()
    traced = Traced()
    traced.provider.add_span_processor(live)
    counts: list[str] = []

    class Count:
        def tell(self) -> None:
            counts.append(str(live.open_count))

    count = Count()
    follow_forks(count.tell)
    with traced.tracer.start_as_current_span("open"):
        assert in_a_child(counts) == "0"
        assert live.open_count == 1


def test_who_is_gone_leaves_nothing_behind() -> None:
    gc.collect()
    before = len(forks._followers)
    for _ in range(100):
        LiveSpans()
        CycleSampler()
    gc.collect()

    assert len(forks._followers) == before
