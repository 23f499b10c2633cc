"""The client of a SuperNode: any `Learner`, trained when Flower's message says so.

Flower starts a process for each message, so that a learner keeps what it adopts on disk, or nowhere.
"""

from __future__ import annotations

import asyncio
from typing import Any

from flwr.app import Context, Message  # type: ignore[import-not-found]
from flwr.clientapp import ClientApp  # type: ignore[import-not-found]

import mapek_runtime
from mapek_domains.fl import client as our_client
from mapek_domains.fl import spans
from mapek_domains.fl.aggregate import refusal

from .records import answer, declined, in_trace_of, weights_of
from .told import learner_of, settings_of

__all__ = ["adopt", "app", "train"]


def train(message: Message, context: Context) -> Message:
    """Train the model that came, on this node's own samples."""
    return Message(asyncio.run(_traced(_train, message.content, context)), reply_to=message)


def adopt(message: Message, context: Context) -> Message:
    """The model is the last one of the run: from now on it is this node's."""
    return Message(asyncio.run(_traced(_adopt, message.content, context)), reply_to=message)


app = ClientApp()
app.train()(train)
app.evaluate()(adopt)


async def _traced(work: Any, content: Any, context: Context) -> Any:
    # Flower has handlers for its signals.
    async with mapek_runtime.tracing(service_name="flower-client", handle_signals=False):
        with in_trace_of(content):
            return await asyncio.to_thread(work, content, context)


def _train(content: Any, context: Context) -> Any:
    name, number = str(context.node_config["name"]), int(content["round"]["number"])
    learner, epochs = learner_of(context.run_config), settings_of(context.run_config).epochs
    weights, like = weights_of(content["model"]), learner.initial()
    reason = refusal(weights, 1, like=like)
    if reason is None and not learner.local(name):
        reason = "no_samples"
    if reason is not None:
        return declined(name, reason)
    with spans.model_download(name, number):
        learner.adopt(name, weights, number - 1)
    # The same seed as over the mesh, so that the same learner makes the same model.
    seed = our_client._seed(name, number)
    with spans.local_training(name, number, epochs) as span:
        trained, samples, loss = learner.train(name, weights, epochs, seed)
        span.set_attributes({"samples": samples, "loss": loss})
    if refusal(trained, samples, like=like) is not None:
        return declined(name, "trained_badly")
    return answer(name, trained, samples, loss)


def _adopt(content: Any, context: Context) -> Any:
    name, number = str(context.node_config["name"]), int(content["round"]["number"])
    learner, weights = learner_of(context.run_config), weights_of(content["model"])
    reason = refusal(weights, 1, like=learner.initial())
    if reason is None:
        with spans.model_download(name, number):
            learner.adopt(name, weights, number)
    return declined(name, reason or "adopted")
