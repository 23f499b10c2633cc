"""The client of a node: trains the model that a coordinator sends, on the node's own data.

Messages may come twice: a model that is being trained is not trained again, and one that was trained is
answered with the same upload. All spans are in the trace of the round, which comes with the message.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from typing import NamedTuple

from . import spans
from .aggregate import refusal
from .learner import Learner
from .post import Post
from .rounds import Site
from .settings import FlSettings
from .wire import Call, Declined, Download, Ready, Upload, WireError, arrays, encode

__all__ = ["Client"]

logger = logging.getLogger(__name__)

_Round = tuple[str, int]
"""A coordinator and its token."""


class _Answer(NamedTuple):
    """What was sent for a round, so that it can be sent again; `size` is that of the weights in it."""

    to: _Round
    payload: bytes
    size: int


class Client:
    """Answers the calls and downloads that come to a node, one training at a time.

    `turn` lets one node of the process train at a time: threads that compute share the interpreter with
    the event loop, and several would take more of it than one.
    """

    def __init__(
        self,
        site: Site,
        post: Post,
        learner: Learner,
        settings: FlSettings,
        *,
        turn: asyncio.Semaphore,
        counts: Counter[str],
    ) -> None:
        self.loss: float | None = None
        """The loss after the node's last training."""
        self._site = site
        self._post = post
        self._learner = learner
        self._settings = settings
        self._turn = turn
        self._counts = counts
        self._working: _Round | None = None
        self._answer: _Answer | None = None

    async def called(self, source: str, call: Call) -> None:
        """Say whether this node can take part."""
        samples = self._learner.local(self._site.node_id)
        await self._post.send(source, Ready(call.token, self._site.version, samples))

    async def work(self, source: str, download: Download) -> None:
        """Fetch the model, train it, and send what became of it, in the sender's trace context."""
        this = source, download.token
        if self._working is not None:
            # A thread cannot be stopped; the download comes again while there is time.
            self._counts["download.twice" if self._working == this else "download.busy"] += 1
            return
        self._working = this
        try:
            if self._answer is not None and self._answer.to == this:
                await self._upload(self._answer, again=True)
                return
            reason = await self._train(this, download)
            if reason is not None:
                self._counts[f"download.{reason}"] += 1
                await self._post.send(source, Declined(download.token, reason))
        except Exception:
            self._counts["download.failed"] += 1
            logger.exception("%s: a round of %r could not be worked on", self._site.node_id, source)
            await self._post.send(source, Declined(download.token, "failed"))
        finally:
            self._working = None

    async def _train(self, this: _Round, download: Download) -> str | None:
        """Train and upload; returns why nothing was sent, if so."""
        node_id = self._site.node_id
        try:
            weights = self._site.usable(download.base, download.kind, download.model)
        except WireError as error:
            return error.reason
        if not self._learner.local(node_id):
            return "no_samples"
        number = download.base.round + 1
        with spans.model_download(node_id, number):
            self._site.adopt(download.base, weights)
        epochs = self._settings.epochs
        async with self._turn:
            with spans.local_training(node_id, number, epochs) as span:
                trained, samples, loss = await asyncio.to_thread(
                    self._learner.train, node_id, weights, epochs, _seed(node_id, number)
                )
                span.set_attributes({"samples": int(samples), "loss": float(loss)})
        if refusal(trained, int(samples), like=self._site.weights) is not None:
            return "trained_badly"
        self.loss = float(loss)
        model = arrays(trained)
        upload = Upload(download.token, self._site.kind, int(samples), float(loss), model)
        self._answer = _Answer(this, encode(upload), len(model.data))
        await self._upload(self._answer)
        return None

    async def _upload(self, answer: _Answer, *, again: bool = False) -> None:
        with spans.model_upload(self._site.node_id, answer.size) as span:
            if again:
                span.set_attribute("again", True)
            await self._post.send(answer.to[0], answer.payload)


def _seed(node_id: str, number: int) -> int:
    """Another for each node and round, and the same when it is done again."""
    return zlib.crc32(f"{node_id} {number}".encode())
