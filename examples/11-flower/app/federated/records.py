"""What travels in Flower's messages: the model, the round, and the trace context of the round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from flwr.app import (  # type: ignore[import-not-found]
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    RecordDict,
)
from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mapek_domains.fl.aggregate import Update
from mapek_domains.fl.learner import Weights

__all__ = ["Answer", "answer", "declined", "in_trace_of", "order", "read_answer", "record_of", "weights_of"]

_TRACE = TraceContextTextMapPropagator()


class Answer(NamedTuple):
    """What a client says of its training; `reason` is why there is no update, if so."""

    client: str
    update: Update | None
    loss: float
    reason: str = ""


def record_of(weights: Weights) -> Any:
    """A model as Flower carries it."""
    return ArrayRecord(list(weights))


def weights_of(record: Any) -> Weights:
    """The model in a record; its arrays cannot be written to."""
    arrays = tuple(record.to_numpy_ndarrays(keep_input=True))
    for array in arrays:
        array.flags.writeable = False
    return arrays


def order(model: Any, number: int) -> Any:
    """What a client is sent, with the trace context of the round that is open here."""
    carrier: dict[str, str] = {}
    _TRACE.inject(carrier)
    return RecordDict({"model": model, "round": ConfigRecord({"number": number, **carrier})})


@contextmanager
def in_trace_of(content: Any) -> Iterator[None]:
    """Spans in this block are in the trace of the round that `content` belongs to."""
    carrier = {key: value for key, value in content["round"].items() if isinstance(value, str)}
    token = otel_context.attach(_TRACE.extract(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


def answer(client: str, weights: Weights, samples: int, loss: float) -> Any:
    """What a client sends back."""
    return RecordDict(
        {
            "model": record_of(weights),
            "metrics": MetricRecord({"num-examples": samples, "loss": loss}),
            "client": ConfigRecord({"name": client}),
        }
    )


def declined(client: str, reason: str) -> Any:
    """What a client sends back that did not train."""
    return RecordDict({"client": ConfigRecord({"name": client, "declined": reason})})


def read_answer(content: Mapping[str, Any], otherwise: str) -> Answer:
    """What came from a client, which may be anything; `otherwise` is its name where it gives none."""
    name = otherwise
    try:
        name = str(content["client"]["name"])
        if "declined" in content["client"]:
            return Answer(name, None, 0.0, str(content["client"]["declined"]))
        metrics, model = content["metrics"], weights_of(content["model"])
        update = Update([np.asarray(array) for array in model], metrics["num-examples"])
        return Answer(name, update, float(metrics["loss"]))
    except Exception:  # noqa: BLE001 - bytes of a client, read by Flower and numpy
        return Answer(name, None, 0.0, "invalid")
