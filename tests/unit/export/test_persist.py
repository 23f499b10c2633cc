"""The loop of attempts: how often, until when, and which error is told."""

from __future__ import annotations

import asyncio

import pytest

from mapek_runtime.errors import TransportError, TransportRejected
from mapek_runtime.export.retry import Backoff, persist

AT_ONCE = Backoff(initial=0)


class Collector:
    """Raises what its script says, then takes what it is given."""

    def __init__(self, *script: Exception) -> None:
        self._script = list(script)
        self.attempts = 0

    async def attempt(self) -> None:
        self.attempts += 1
        if self._script:
            raise self._script.pop(0)


async def run(collector: Collector, *, seconds: float = 100, backoff: Backoff = AT_ONCE) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    await persist(collector.attempt, deadline=deadline, backoff=backoff, chance=lambda: 0.5)


def unavailable(retry_after: float | None = None) -> TransportError:
    return TransportError("503", retryable=True, retry_after=retry_after, status_code=503)


async def test_what_may_be_tried_again_is_tried_until_it_succeeds() -> None:
    collector = Collector(unavailable(), unavailable())

    await run(collector)

    assert collector.attempts == 3


async def test_what_failed_for_good_is_not_tried_again() -> None:
    collector = Collector(unavailable(), TransportError("404"))

    with pytest.raises(TransportError, match="404, after 2 attempts"):
        await run(collector)
    assert collector.attempts == 2


async def test_the_first_failure_does_not_speak_of_attempts() -> None:
    with pytest.raises(TransportError, match=r"^404$"):
        await run(Collector(TransportError("404")))


async def test_a_delay_beyond_the_deadline_is_not_waited_for() -> None:
    collector = Collector(unavailable(retry_after=3600))

    with pytest.raises(TransportError, match=r"^503$") as caught:
        await run(collector)
    assert collector.attempts == 1
    assert caught.value.status_code == 503


async def test_an_attempt_that_was_cut_short_tells_what_failed_before() -> None:
    collector = Collector(unavailable(), TransportError("no answer", error_type="timeout"))

    with pytest.raises(TransportError, match="503, after 2 attempts"):
        await run(collector)


@pytest.mark.parametrize("error", [TransportRejected("two", rejected_spans=2), ValueError("other")])
async def test_every_other_error_passes_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await run(Collector(error))

    assert caught.value is error
