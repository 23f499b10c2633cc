"""A learner whose training can be computed by hand, and nodes that learn with it over a wire in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fl_federation import InProcess, federation
from mapek_domains.fl.learner import Weights
from mapek_domains.fl.session import FlSession
from mapek_domains.fl.settings import FlSettings
from mapek_domains.fl.wire import Message, decode

__all__ = ["NAMES", "WISHES", "Net", "Toy", "assert_nobody_went_back", "net", "until"]

NAMES = ("a", "b", "c")
WISHES = {"a": 1.0, "b": 2.0, "c": 6.0}


class Toy:
    """Each node wants all weights to be one number, and goes half the way to it."""

    kind = "toy"

    def __init__(self, wishes: Mapping[str, float], *, samples: int = 10) -> None:
        self.wishes = dict(wishes)
        self.samples = dict.fromkeys(wishes, samples)
        self.instead: dict[str, Callable[[Weights], tuple[Weights, int, float]]] = {}
        """What a node does instead of training."""
        self.adopted: list[tuple[str, int]] = []
        self.trained: list[tuple[str, float, int]] = []
        self.forgotten: list[str] = []

    def initial(self) -> Weights:
        return np.zeros((2, 3), np.float32), np.zeros(3, np.float32)

    def local(self, node_id: str) -> int:
        return self.samples[node_id]

    def train(self, node_id: str, weights: Weights, epochs: int, seed: int) -> tuple[Weights, int, float]:
        self.trained.append((node_id, float(weights[0][0, 0]), seed))
        if node_id in self.instead:
            return self.instead[node_id](weights)
        wish = self.wishes[node_id]
        new: Weights = tuple((array + np.float32(wish)) / np.float32(2) for array in weights)
        return new, self.samples[node_id], abs(wish - float(new[0][0, 0]))

    def adopt(self, node_id: str, weights: Weights, round: int) -> None:  # noqa: A002 - the protocol's word
        self.adopted.append((node_id, round))

    def forget(self, node_id: str) -> None:
        self.forgotten.append(node_id)


@dataclass
class Net:
    """Nodes that learn, the wire between them, and what went over it."""

    session: FlSession
    messenger: InProcess
    learner: Toy
    events: list[Mapping[str, Any]] = field(default_factory=list)
    carried: list[tuple[str, str, Message]] = field(default_factory=list)

    def sent(self, kind: type[Any]) -> list[tuple[str, str, Any]]:
        """The messages of one kind that were sent, with source and destination."""
        return [each for each in self.carried if isinstance(each[2], kind)]

    async def rounds(self, count: int) -> None:
        """Wait until so many rounds have made a model."""
        await until(lambda: len(self.events) >= count)

    def versions(self) -> dict[str, tuple[int, str]]:
        """Which model each node has."""
        return {
            name: (node.version.round, node.version.coordinator) for name, node in self.session.nodes.items()
        }

    def numbers(self) -> dict[str, float]:
        """What the weights of each node are."""
        return {name: float(node.weights[0][0, 0]) for name, node in self.session.nodes.items()}


@asynccontextmanager
async def net(
    learner: Toy,
    settings: FlSettings | None = None,
    *,
    nodes: Sequence[str] = NAMES,
    fate: Callable[[str, str], Sequence[float]] = lambda _source, _destination: (0.0,),
    offers: Sequence[object] = (),
    state: Path | None = None,
    most: int = InProcess.most,
) -> AsyncIterator[Net]:
    """Nodes that learn; use it on the autojump clock."""
    carried: list[tuple[str, str, Message]] = []
    events: list[Mapping[str, Any]] = []
    messenger = InProcess(
        nodes, fate=fate, carried=lambda a, b, payload: carried.append((a, b, decode(payload)))
    )
    messenger.most = most
    opened = federation(
        learner,
        settings or FlSettings(),
        messenger,
        nodes=nodes,
        emit=lambda name, fields: events.append({"name": name, **fields}),
        offers=offers,
        state=state,
    )
    async with opened as session:
        yield Net(session, messenger, learner, events, carried)


async def until(true: Callable[[], bool], *, limit: float = 600.0) -> None:
    """Wait until it is true; AssertionError after so many seconds of the loop's clock."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not true():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


def assert_nobody_went_back(learner: Toy) -> None:
    """Each node's models came in the order of their rounds."""
    for name in learner.wishes:
        rounds = [round_ for node, round_ in learner.adopted if node == name]
        assert rounds == sorted(rounds)
