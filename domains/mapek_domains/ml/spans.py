"""Spans of machine learning."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["ml", "model_inference", "model_training"]

Model = Annotated[str, Key("model")]

ml = SpanGroup("ml")


@ml.span("inference", elapsed="latency_ms")
def model_inference(model_name: Model, input_size: int = 0, latency_ms: float = 0) -> None:
    """A model was asked."""


@ml.span("training")
def model_training(model_name: Model, epoch: int = 0, loss: float = 0) -> None:
    """A model was trained for one epoch."""
