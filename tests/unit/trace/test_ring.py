"""The ring: what it keeps, what it lets go, and when it asks to be emptied."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode

from mapek_runtime.trace.ring import Ring

RESOURCE = Resource({})
PARENT = SpanContext(1, 1, is_remote=False)


def ordinary(name: str) -> ReadableSpan:
    return ReadableSpan(name, parent=PARENT, resource=RESOURCE)


def root(name: str) -> ReadableSpan:
    return ReadableSpan(name, resource=RESOURCE)


def failed(name: str) -> ReadableSpan:
    return ReadableSpan(name, parent=PARENT, status=Status(StatusCode.ERROR), resource=RESOURCE)


def drained(ring: Ring, most: int = 1000) -> list[str]:
    return [span.name for span in ring.drain(most)]


def filled(capacity: int, *spans: ReadableSpan) -> Ring:
    ring = Ring(capacity, lambda: None)
    for span in spans:
        ring.append(span)
    return ring


def test_spans_come_out_in_the_order_in_which_they_ended() -> None:
    ring = filled(10, *(ordinary(str(n)) for n in range(5)))

    assert drained(ring, 2) == ["0", "1"]
    assert drained(ring) == ["2", "3", "4"]


def test_a_full_ring_drops_the_oldest() -> None:
    ring = filled(3, *(ordinary(str(n)) for n in range(5)))

    assert drained(ring) == ["2", "3", "4"]
    assert ring.dropped == 2
    assert ring.ended == 5


def test_roots_and_errors_go_last() -> None:
    ring = filled(4, root("r"), ordinary("a"), failed("e"), *(ordinary(str(n)) for n in range(4)))

    assert drained(ring) == ["r", "e", "2", "3"]


def test_when_only_roots_and_errors_are_left_the_oldest_of_them_goes() -> None:
    ring = filled(2, root("r1"), failed("e"), root("r2"), root("r3"))

    assert drained(ring) == ["r2", "r3"]
    assert ring.dropped == 2


def test_spared_spans_count_against_the_capacity() -> None:
    spans: list[ReadableSpan] = []
    for number in range(100):
        spans += [ordinary(f"o{number}"), root(f"r{number}")]
    ring = filled(10, *spans)

    assert len(ring) == 10
    assert ring.ended == ring.dropped + len(ring) == 200
    assert drained(ring) == [f"r{number}" for number in range(90, 100)]


def test_it_asks_once_for_each_arming() -> None:
    calls: list[int] = []
    ring = Ring(100, lambda: calls.append(len(ring)))

    ring.arm(3)
    for number in range(10):
        ring.append(ordinary(str(number)))
    assert calls == [3]

    ring.drain(100)
    ring.arm(2)
    for number in range(5):
        ring.append(ordinary(str(number)))
    assert calls == [3, 2]


def test_disarmed_it_does_not_ask_even_when_it_overflows() -> None:
    calls: list[int] = []
    ring = Ring(3, lambda: calls.append(1))

    ring.disarm()
    for number in range(10):
        ring.append(ordinary(str(number)))

    assert calls == []
    assert len(ring) == 3


def test_armed_with_zero_it_asks_at_every_append() -> None:
    calls: list[int] = []
    ring = Ring(100, lambda: calls.append(1))

    ring.arm(0)
    for number in range(4):
        ring.append(ordinary(str(number)))

    assert len(calls) == 4


def test_appends_from_many_threads_lose_nothing() -> None:
    ring = Ring(1_000_000, lambda: None)
    taken: list[Any] = []
    done = threading.Event()

    def end_spans() -> None:
        for number in range(2_000):
            ring.append(ordinary(str(number)))

    def take() -> None:
        while not done.is_set():
            taken.extend(ring.drain(64))

    threads = [threading.Thread(target=end_spans) for _ in range(8)]
    taker = threading.Thread(target=take)
    taker.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    taker.join()
    taken += ring.drain(1_000_000)

    assert len(taken) == ring.ended == ring.taken == 16_000


def test_an_overflow_from_many_threads_counts_what_went() -> None:
    ring = Ring(50, lambda: None)

    def end_spans() -> None:
        for number in range(1_000):
            ring.append(root(str(number)) if number % 3 else ordinary(str(number)))

    threads = [threading.Thread(target=end_spans) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ring.ended == 4_000 == ring.dropped + len(ring)
    assert len(ring) <= 50
