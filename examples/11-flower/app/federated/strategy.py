"""The fl domain's way of making models one, as a Strategy of Flower.

Who takes part, what an update must be, and how updates are combined is decided by the domain's settings and
its own pure core; Flower carries the messages.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, MetricRecord  # type: ignore[import-not-found]
from flwr.serverapp.strategy import Strategy  # type: ignore[import-not-found]
from opentelemetry.trace import StatusCode

from mapek_domains.fl import spans
from mapek_domains.fl.aggregate import aggregate, combine
from mapek_domains.fl.learner import Weights
from mapek_domains.fl.settings import FlSettings

from .records import Answer, order, read_answer, record_of, weights_of

__all__ = ["Ours"]

logger = logging.getLogger(__name__)


class Ours(Strategy):  # type: ignore[misc] # Flower is not where this is checked
    """`aggregate` with the settings of the fl domain. A round is a trace: `fl.aggregation` and below it
    what the clients do."""

    def __init__(self, settings: FlSettings, *, rounds: int) -> None:
        self.of_round: Mapping[str, Any] = {}
        """What became of the latest round."""
        self._settings = settings
        self._rounds = rounds
        self._base: Weights = ()
        self._round = ExitStack()
        self._span: Any = None

    def summary(self) -> None:
        """Say how models become one."""
        logger.info("aggregation of the fl domain: %s", self._settings)

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        """Choose who trains, and send them the model."""
        nodes, least = sorted(grid.get_node_ids()), self._settings.least
        self._base = weights_of(arrays)
        self.of_round = {"clients": [], "refused": {}}
        if len(nodes) < least:
            logger.warning("round %d: %d nodes are there, %d are needed", server_round, len(nodes), least)
            return []
        chosen = random.sample(nodes, max(least, math.ceil(self._settings.share * len(nodes))))
        self._span = self._round.enter_context(spans.model_aggregation(server_round, len(chosen)))
        content = order(arrays, server_round)
        return [Message(content, message_type=MessageType.TRAIN, dst_node_id=node) for node in chosen]

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """Make one model of what came; none where too few updates count."""
        span, self._span = self._span, None
        if span is None:
            return None, None
        with self._round:
            return self._aggregated(server_round, replies, span)

    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        """After the last round the model goes to everyone; each message costs a node a process."""
        if server_round < self._rounds:
            return []
        content = order(arrays, server_round)
        return [
            Message(content, message_type=MessageType.EVALUATE, dst_node_id=node)
            for node in grid.get_node_ids()
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Any]) -> Any:
        """How many have adopted the model."""
        reasons = [_answer(reply).reason for reply in replies]
        return MetricRecord({"adopted": reasons.count("adopted")}) if reasons else None

    def _aggregated(self, number: int, replies: Iterable[Any], span: Any) -> tuple[Any, Any]:
        settings = self._settings
        # By name, or the order in which they came would change the last bits of the model.
        answers = sorted(map(_answer, replies), key=lambda each: each.client)
        given = [each for each in answers if each.update is not None]
        refused = {each.client: each.reason for each in answers if each.update is None}
        made = aggregate(
            [each.update for each in given if each.update is not None],
            self._base,
            method=settings.method,
            trim=settings.trim,
            clip=settings.clip,
            most_weight=settings.most_weight,
        )
        refused |= {given[index].client: reason for index, reason in made.refused.items()}
        used = [given[index] for index in made.used]
        self.of_round = {"clients": [each.client for each in used], "refused": refused}
        span.set_attribute("refused", len(refused))
        if refused:
            logger.warning("round %d: refused %s", number, refused)
        if len(used) < settings.least:
            reason = f"{len(used)} models can be used, of {settings.least} that are needed"
            span.set_attribute("reason", reason)
            span.set_status(StatusCode.ERROR, reason)
            logger.warning("round %d: %s", number, reason)
            return None, None
        losses = [np.asarray(each.loss) for each in used]
        loss = float(combine(losses, made.shares, method=settings.method, trim=settings.trim))
        self.of_round = {**self.of_round, "loss": loss}
        span.set_attribute("loss", loss)
        return record_of(made.weights), MetricRecord({"loss": loss, "clients": len(used)})


def _answer(reply: Any) -> Answer:
    name = str(reply.metadata.src_node_id)
    if reply.has_error():
        logger.warning("node %s: %s", name, reply.error.reason)
        return Answer(name, None, 0.0, "failed")
    return read_answer(reply.content, name)
