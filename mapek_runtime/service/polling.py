"""The poller: asks a Jaeger server which strategy to sample by, from a task of its own.

The task is started on the running loop at the first root decision there, or by `start`, and is born
in an empty context with instrumentation suppressed, so that it belongs to no span and makes none. It
ends with its loop, by `stop`, or when nobody holds the sampler any more; a root decision on another
loop later starts another. Without a running loop nobody polls, and the strategy stays what it is:
one line says so.

A decision never waits for an answer. While the server is away, or answers what is no strategy, the
last good one stays in force.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import weakref
from asyncio import _get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.sdk.trace.sampling import Sampler

from mapek_runtime.trace.sampling import JaegerRemoteSampler
from mapek_runtime.trace.sampling.remote import find_remote
from mapek_runtime.trace.sampling.strategy import Strategy, describe_strategy
from mapek_runtime.trace.sampling.strategy_json import parse_strategy

if TYPE_CHECKING:
    import httpx

__all__ = ["Poller", "pause", "polling"]

logger = logging.getLogger(__name__)

ANSWER_LIMIT = 5.0
"""Seconds that one question may take."""
MOST_BYTES = 1 << 20
"""An answer that is longer is none."""
FIRST_RETRY = 1.0
STOP_LIMIT = 1.0


@asynccontextmanager
async def polling(sampler: Sampler) -> AsyncIterator[None]:
    """Poll inside the block, from its beginning on, if it is a sampler that is told by a server."""
    remote = find_remote(sampler)
    if remote is None or not isinstance(remote.source, Poller):
        yield
        return
    remote.source.start(remote)
    try:
        yield
    finally:
        await remote.source.stop()


def pause(interval: float, failures: int, chance: float) -> float:
    """Seconds until the next question, after so many failures in a row.

    A tenth more or less than the interval, so that a fleet does not ask in step. After a failure
    sooner, from a second on and doubling, but never more often than was asked for.
    """
    if failures:
        return min(interval, FIRST_RETRY * 2.0 ** min(failures - 1, 32)) * (0.5 + 0.5 * chance)
    return interval * (0.9 + 0.2 * chance)


class Poller:
    """Keeps the strategy of one sampler current: a `StrategySource`."""

    def __init__(self, url: str, interval: float) -> None:
        self.url = url
        self.interval = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._state = ""
        self._stopped = False
        self._told_loopless = False

    def attend(self, sampler: JaegerRemoteSampler) -> None:
        """Poll for `sampler` on the running loop, unless that is under way."""
        # Not `get_running_loop`: this is asked at every root, and an exception costs more than a span.
        loop = _get_running_loop()
        if loop is self._loop and loop is not None:
            return
        if loop is None:
            self._tell_loopless()
        elif not self._stopped and (self._loop is None or not self._loop.is_running()):
            self._begin(sampler, loop)

    def start(self, sampler: JaegerRemoteSampler) -> None:
        """Poll on the running loop from now on; raises RuntimeError where none runs."""
        asyncio.get_running_loop()
        self._stopped = False
        self.attend(sampler)

    async def stop(self) -> None:
        """End polling for good, or until the next `start`."""
        self._stopped = True
        task = self._task
        if task is not None and self._loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_LIMIT)

    def _begin(self, sampler: JaegerRemoteSampler, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        task = self._task = loop.create_task(
            self._run(weakref.ref(sampler)), name="mapek-sampling", context=contextvars.Context()
        )
        # A callback holds on to a context as well.
        task.add_done_callback(self._ended, context=contextvars.Context())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is self._task:
            self._loop = self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("polling for sampling strategies failed; the next root starts it", exc_info=error)

    async def _run(self, sampler: weakref.ref[JaegerRemoteSampler]) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        failures = 0
        # In a thread: importing it and reading certificates takes tens of milliseconds.
        client = await asyncio.to_thread(_open_client)
        async with client:
            while (target := sampler()) is not None:
                failures = 0 if await self._poll(client, target) else failures + 1
                del target
                await asyncio.sleep(pause(self.interval, failures, random.random()))

    async def _poll(self, client: httpx.AsyncClient, sampler: JaegerRemoteSampler) -> bool:
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                answer = await _ask(client, self.url, sampler.service_name)
        except Exception as error:  # noqa: BLE001 - whatever the network does, polling goes on
            what = str(error) or type(error).__name__
            self._enter("away", "is away: %s", what, sampler)
            return False
        try:
            strategy = parse_strategy(answer)
        except ValueError as error:
            self._enter("nonsense", "answers %s", str(error), sampler)
            return False
        self._follow(strategy, sampler)
        return True

    def _follow(self, strategy: Strategy, sampler: JaegerRemoteSampler) -> None:
        sampler.strategy = strategy
        if self._state != "followed":
            self._state = "followed"
            logger.info("sampling by the strategy of %s: %s", self.url, describe_strategy(strategy))

    def _enter(self, state: str, message: str, what: str, sampler: JaegerRemoteSampler) -> None:
        if self._state == state:
            return
        self._state = state
        logger.warning(
            f"the sampling server at %s {message}; sampling stays at %s",  # noqa: G004 - two fixed messages
            self.url,
            what,
            describe_strategy(sampler.strategy),
        )

    def _tell_loopless(self) -> None:
        if not self._told_loopless and self._loop is None:
            self._told_loopless = True
            logger.info("no event loop runs here: %s is asked for strategies once one does", self.url)


def _open_client() -> httpx.AsyncClient:
    import httpx

    # Without the environment's proxies and netrc, which would be read from disk on the loop.
    return httpx.AsyncClient(timeout=ANSWER_LIMIT, trust_env=False, headers={"Accept-Encoding": "identity"})


async def _ask(client: httpx.AsyncClient, url: str, service: str) -> bytes:
    """The body of the answer; raises ConnectionError for what is none, and what httpx raises."""
    async with client.stream("GET", url, params={"service": service}) as response:
        if response.status_code != 200:
            raise ConnectionError(f"it answered {response.status_code}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ConnectionError("it compressed its answer, which it was asked not to")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ConnectionError(f"its answer is longer than {MOST_BYTES} bytes")
        return bytes(body)
