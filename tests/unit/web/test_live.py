"""Live events: nobody waits for a page, and a page knows what it has missed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.web.live import Listener, LiveEvents, TooManyListeners


def events(stream: bytes) -> list[tuple[str, str, Any]]:
    """(event, id, data) of each event of a stream."""
    read = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            read.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return read


def numbers(listener: Listener) -> list[int]:
    return [data["n"] for name, _, data in events(listener.take()) if name == "event"]


async def test_each_listener_gets_every_event_in_order() -> None:
    live = LiveEvents("r")

    with live.listening() as one, live.listening() as other:
        for n in range(3):
            live.publish("event", {"n": n})

        assert events(one.take()) == [("event", f"r-{n + 1}", {"n": n}) for n in range(3)]
        assert numbers(other) == [0, 1, 2]


async def test_an_event_is_encoded_once_for_all_and_not_before_somebody_listens() -> None:
    encoded: list[str] = []

    class Told:
        def __str__(self) -> str:
            encoded.append("x")
            return "told"

    live = LiveEvents("r")
    live.publish("event", {"n": Told()})
    assert encoded == []

    with live.listening() as one, live.listening() as other:
        live.publish("event", {"n": Told()})

        assert one.take() == other.take() != b""
    assert encoded == ["x"]


async def test_a_listener_that_does_not_take_loses_the_oldest_and_is_told_first_how_many() -> None:
    live = LiveEvents("r", queue=4)

    with live.listening() as listener:
        for n in range(10):
            live.publish("event", {"n": n})
        told = events(listener.take())
        live.publish("event", {"n": 10})

        assert told[0] == ("lost", "", {"count": 6})
        assert [data["n"] for _, _, data in told[1:]] == [6, 7, 8, 9]
        assert events(listener.take()) == [("event", "r-11", {"n": 10})]


async def test_of_a_state_only_the_newest_is_sent_and_it_takes_no_place() -> None:
    live = LiveEvents("r", queue=1)

    with live.listening() as listener:
        live.publish("event", {"n": 1})
        for n in range(5):
            live.show("mesh", {"n": n})
            live.show("health", {"n": n})

        assert events(listener.take()) == [
            ("event", "r-1", {"n": 1}),
            ("mesh", "r-1", {"n": 4}),
            ("health", "r-1", {"n": 4}),
        ]


async def test_a_state_that_nobody_heard_is_not_sent_later() -> None:
    live = LiveEvents("r")
    live.show("mesh", {"n": 1})

    with live.listening() as listener:
        assert listener.take() == b""


async def test_one_place_more_than_there_are_is_refused_and_a_place_is_given_back() -> None:
    live = LiveEvents("r", most_listeners=2)

    with live.listening():
        with live.listening(), pytest.raises(TooManyListeners), live.listening():
            pass
        with live.listening():
            assert live.listeners == 2
    assert live.listeners == 0


async def test_who_waits_for_listeners_waits_only_while_there_is_none() -> None:
    live = LiveEvents("r")

    async def heard() -> bool:
        try:
            async with asyncio.timeout(0.01):
                await live.somebody()
        except TimeoutError:
            return False
        return True

    before = await heard()
    with live.listening():
        during = await heard()
    after = await heard()

    assert (before, during, after) == (False, True, False)


async def test_waiting_ends_with_an_event_and_for_good_when_all_is_closed() -> None:
    live = LiveEvents("r")
    with live.listening() as listener:
        waiting = asyncio.create_task(listener.wait())
        await asyncio.sleep(0)
        live.publish("event", {"n": 1})
        await waiting
        live.close()
        listener.take()

        await listener.wait()
        assert listener.closed
    with live.listening() as late:
        assert late.closed


@given(published=st.integers(0, 40), kept=st.integers(1, 20), seen=st.integers(0, 40))
def test_a_listener_that_comes_back_gets_what_is_kept_and_the_number_of_the_rest(
    published: int, kept: int, seen: int
) -> None:
    seen = min(seen, published)
    live = LiveEvents("r", kept=kept)
    for n in range(1, published + 1):
        live.publish("event", {"n": n})

    lost, missed = live.missed(f"r-{seen}")

    got = [data["n"] for _, _, data in events(b"".join(each.encoded() for each in missed))]
    assert got == list(range(seen + 1 + lost, published + 1))
    assert lost == max(published - seen - kept, 0)


@pytest.mark.parametrize("last_id", ["", "nonsense", "other-2", "r-", "r--1", "r-²", "r-" + "9" * 5000])
async def test_an_id_of_another_process_counts_as_having_seen_nothing(last_id: str) -> None:
    live = LiveEvents("r", kept=2)
    for n in range(3):
        live.publish("event", {"n": n})

    lost, missed = live.missed(last_id)

    assert (lost, len(missed)) == (1, 2)


async def test_an_id_from_the_future_has_missed_nothing() -> None:
    live = LiveEvents("r")
    live.publish("event", {"n": 1})

    assert live.missed("r-99") == (0, [])


async def test_what_json_does_not_have_is_written_in_words() -> None:
    live = LiveEvents("r")
    with live.listening() as listener:
        live.publish("event", {"path": ValueError("a\nb"), "number": float("inf")})

        assert events(listener.take())[0][2] == {"path": "a\nb", "number": None}


async def test_a_text_that_is_no_unicode_does_not_end_the_stream() -> None:
    live = LiveEvents("r")
    with live.listening() as listener:
        # As in the message of an OSError about a file whose name is no text.
        live.publish("event", {"error": "cannot open 'a\udcff'", "\udcff": ["\udcff"], "number": 1 << 70})

        assert events(listener.take())[0][2] == {
            "error": "cannot open 'a\ufffd'",
            "\ufffd": ["\ufffd"],
            "number": str(1 << 70),
        }
