"""Rounds of federated learning, as the node that coordinates them sees them.

A round begins with a call that costs no span: who has samples, and who has a newer model than the
coordinator? Then `fl.aggregation` opens, the model goes out to those who take part, what they make of it
comes back, and the model that all of them make together goes to everyone. What is lost on the way is sent
again a few times; who has not answered by the deadline is left out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import StatusCode

from . import spans
from .aggregate import Aggregate, Update, aggregate, combine
from .learner import Weights
from .post import Post
from .settings import FlSettings
from .tally import Tally
from .wire import Arrays, Call, Declined, Download, Fetch, Model, Ready, Upload, Version, arrays, encode

__all__ = ["Coordinator", "Site"]

logger = logging.getLogger(__name__)

_CALL_SHARE = 0.2
"""Of the deadline: how long the answers to a call are waited for, and a newer model."""
_TRIES = 4
_MOST_ASKED = 16


class Site(Protocol):
    """What a coordinator knows of the node it is part of."""

    node_id: str
    kind: str
    version: Version
    weights: Weights

    def coordinator(self) -> str:
        """Who coordinates, as far as this node knows."""

    def known(self) -> int:
        """How many nodes there are, whether they can be reached or not."""

    def usable(self, version: Version, kind: str, model: Arrays) -> Weights:
        """The weights of a model that came; raises `WireError` where it is not for this node."""

    def adopt(self, version: Version, weights: Weights) -> bool:
        """Take a model for the node's own; False where it is not newer."""

    async def until(self, version: Version, limit: float) -> None:
        """Wait until the node has that model or a newer one, for `limit` seconds at most."""


class Coordinator:
    """Begins a round when it is time, or when one was asked for, while its node is the one to do so."""

    def __init__(
        self,
        site: Site,
        post: Post,
        settings: FlSettings,
        *,
        rng: random.Random,
        counts: Counter[str],
        emit: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._site = site
        self._post = post
        self._settings = settings
        self._rng = rng
        self._counts = counts
        self._emit = emit
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._asked: list[Context] = []
        self._news = asyncio.Event()
        self._tally: Tally | None = None
        self._answered = asyncio.Event()

    # What comes in

    def asked(self) -> None:
        """A node has something to learn from: a round is due, under the span that is current now."""
        if self._site.coordinator() != self._site.node_id:
            self._counts["ask.elsewhere"] += 1
        elif len(self._asked) < _MOST_ASKED:
            self._asked.append(otel_context.get_current())
            self._news.set()

    def others_began(self) -> None:
        """Another node began a round: ours is not due before its time, should we come to coordinate."""
        if self._site.coordinator() != self._site.node_id:
            self._began = self._clock()

    def answered(self, source: str, answer: Ready | Upload | Declined) -> None:
        """A client answered."""
        reason = "late" if self._tally is None else self._tally.hear(source, answer)
        if reason is not None:
            self._counts[f"{type(answer).__name__.lower()}.{reason}"] += 1
        if self._tally is not None and not self._tally.missing:
            self._answered.set()

    # Rounds

    async def run(self) -> None:
        """Coordinate until cancelled. Run it in an empty context."""
        while True:
            await self._due()
            asked, self._asked = self._asked, []
            self._began = self._clock()
            if self._site.coordinator() == self._site.node_id:
                try:
                    await self.round(asked)
                except Exception:
                    # The next one may do better.
                    self._counts["round.failed"] += 1
                    logger.exception("%s: a round failed", self._site.node_id)

    async def round(self, asked: list[Context]) -> bool:
        """One round, in the trace of the first that asked, linked to the others; whether it made a model."""
        me = self._site.node_id
        tally = Tally(self._rng.getrandbits(63), sorted({me, *self._post.reachable()}), kind=self._site.kind)
        self._tally = tally
        try:
            enough = len(tally.called) >= self._needed(tally)
            chosen = await self._call(tally) if enough else []
            if not enough or len(chosen) < self._needed(tally):
                self._counts["round.too_few_clients"] += 1
                return False
            others = [trace.get_current_span(context).get_span_context() for context in asked[1:]]
            scope = spans.model_aggregation(self._site.version.round + 1, 0)
            scope.under(asked[0] if asked else Context()).linked(*(c for c in others if c.is_valid))
            with scope as span:
                return await self._train(tally, chosen, span)
        finally:
            self._tally = None

    async def _due(self) -> None:
        while True:
            wait = self._settings.gap if self._asked else self._settings.interval
            at = self._began + wait
            if self._clock() >= at:
                return
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._news.wait()

    def _count(self, what: str, number: int) -> None:
        if number:
            self._counts[what] += number

    def _needed(self, tally: Tally) -> int:
        # Not of those that can be reached: what one node makes alone, cut off, is not learned together.
        return min(self._settings.least, max(self._site.known(), len(tally.called)))

    async def _call(self, tally: Tally) -> list[str]:
        """Ask who takes part, and catch up with who knows more; returns who is to train."""
        limit = self._settings.deadline * _CALL_SHARE
        call = encode(Call(tally.token, self._site.version))
        await self._until_answered(tally, call, limit)
        self._count("round.absent", len(tally.missing))
        newest = tally.newest
        if newest is not None and newest[0] > self._site.version:
            await self._post.send(newest[1], Fetch(self._site.version))
            await self._site.until(newest[0], limit)
        able = list(tally.able)
        wanted = max(self._needed(tally), math.ceil(self._settings.share * len(able)))
        return able if wanted >= len(able) else sorted(self._rng.sample(able, wanted))

    async def _train(self, tally: Tally, chosen: list[str], span: Any) -> bool:
        base, weights = self._site.version, self._site.weights
        tally.begin(chosen)
        download = encode(Download(tally.token, base, self._site.kind, arrays(weights)))
        await self._until_answered(tally, download, self._settings.deadline)
        self._count("round.stragglers", len(tally.missing))
        names = sorted(tally.received)
        updates = [Update(tally.received[name].weights, tally.received[name].samples) for name in names]
        made = await asyncio.to_thread(self._aggregate, updates, weights)
        for index, reason in made.refused.items():
            self._counts[f"upload.{reason}"] += 1
            tally.refused[names[index]] = reason
        span.set_attribute("refused", len(tally.refused))
        if len(made.used) < self._needed(tally):
            reason = f"{len(made.used)} models can be used, of {self._needed(tally)} that are needed"
            span.set_attribute("reason", reason)
            span.set_status(StatusCode.ERROR, reason)
            self._counts["round.too_few_models"] += 1
            return False
        loss = self._loss([tally.received[names[index]].loss for index in made.used], made)
        span.set(client_count=len(made.used))
        span.set_attribute("loss", loss)
        version = Version(base.round + 1, self._site.node_id)
        if not self._site.adopt(version, made.weights):
            # Another coordinator was quicker, and its model is the newer one.
            span.set_attribute("overtaken", True)
            self._counts["round.overtaken"] += 1
            return False
        model = encode(Model(version, self._site.kind, arrays(made.weights)))
        for name in self._post.reachable():
            await self._post.send(name, model)
        self._counts["round.finished"] += 1
        self._emit(
            "round.finished",
            {"round": version.round, "clients": len(made.used), "loss": loss, "refused": len(tally.refused)},
        )
        return True

    def _aggregate(self, updates: list[Update], base: Weights) -> Aggregate:
        s = self._settings
        return aggregate(updates, base, method=s.method, trim=s.trim, clip=s.clip, most_weight=s.most_weight)

    def _loss(self, losses: list[float], made: Aggregate) -> float:
        """Of the round: the losses of its clients, made into one as their models were."""
        numbers = [np.asarray(loss) for loss in losses]
        return float(combine(numbers, made.shares, method=self._settings.method, trim=self._settings.trim))

    async def _until_answered(self, tally: Tally, message: bytes, limit: float) -> None:
        """Send to those who have not answered, a few times, each wait twice the one before it."""
        self._answered.clear()
        began, step = self._clock(), limit / (2**_TRIES - 1)
        for attempt in range(_TRIES):
            for name in tally.missing:
                await self._post.send(name, message)
            if not tally.missing:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(began + step * (2 ** (attempt + 1) - 1)):
                    await self._answered.wait()
                    return
