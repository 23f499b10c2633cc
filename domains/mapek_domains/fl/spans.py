"""Spans of federated learning."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["fl", "local_training", "model_aggregation", "model_download", "model_upload"]

ClientId = Annotated[str, Key("client_id")]
Round = Annotated[int, Key("round")]
Clients = Annotated[int, Key("clients")]

fl = SpanGroup("fl")


@fl.span("local_training")
def local_training(client_id: ClientId, round_num: Round, epochs: int = 1) -> None:
    """A client trained the model on its own data."""


@fl.span("aggregation")
def model_aggregation(round_num: Round, client_count: Clients) -> None:
    """The models of a round were made into one."""


@fl.span("model_upload")
def model_upload(client_id: ClientId, model_size_bytes: int = 0) -> None:
    """A client sent its model in."""


@fl.span("model_download")
def model_download(client_id: ClientId, round_num: Round) -> None:
    """A client fetched the model of a round."""
