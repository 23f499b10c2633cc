"""Handwritten digits, split among clients that see different ones, and learned together.

The clients are nodes of the fl domain with its own coordinator, messages and spans; between them lies the
mesh's own message plane, and instead of its sockets a wire in memory that loses what it is told to lose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from opentelemetry import trace
from sklearn.datasets import load_digits

from mapek_domains.fl import model
from mapek_domains.fl.learner import Array, Learner, Weights
from mapek_domains.fl.plugin import learning
from mapek_domains.fl.session import FlSession
from mapek_domains.fl.settings import FlSettings
from mapek_domains.mesh.udp.messages import MessagePlane, Subscription
from mapek_domains.mesh.udp.wire import MAX_PAYLOAD, Data
from mapek_runtime.loop.domain import DomainContext

__all__ = [
    "DigitsLearner",
    "InProcess",
    "NoLoops",
    "Split",
    "federation",
    "learn_digits",
    "names",
    "split_digits",
]

Poison = Callable[[Weights, Weights], tuple[Weights, int]]
"""(the model that came, what honest training made of it) → what is sent, and how many samples it claims."""


def names(count: int) -> tuple[str, ...]:
    """What the clients are called."""
    return tuple(f"client-{number:02}" for number in range(count))


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of each client, and those that nobody trains on."""

    clients: Mapping[str, tuple[Array, Any]]
    held_out: tuple[Array, Any]


def split_digits(clients: Sequence[str], *, concentration: float = 0.3, seed: int = 0) -> Split:
    """scikit-learn's digits, a fifth held out, each class shared out by a Dirichlet distribution."""
    digits = load_digits()
    x, y = (digits.data / 16.0).astype(np.float32), digits.target
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held_out, rest = order[: len(x) // 5], order[len(x) // 5 :]
    while True:
        shares: list[list[Any]] = [[] for _ in clients]
        for label in range(10):
            mine = rest[y[rest] == label]
            cuts = np.cumsum(rng.dirichlet([concentration] * len(clients)))[:-1] * len(mine)
            for share, part in zip(shares, np.split(mine, cuts.astype(int)), strict=True):
                share.append(part)
        whole = [np.concatenate(share) for share in shares]
        # As is usual: a client without samples is none.
        if min(len(part) for part in whole) >= 10:
            parts = {name: (x[part], y[part]) for name, part in zip(clients, whole, strict=True)}
            return Split(parts, (x[held_out], y[held_out]))


class DigitsLearner:
    """Softmax regression or a perceptron over the digits of each client; some may be poisoned."""

    kind = "digits"

    def __init__(
        self,
        split: Split,
        *,
        hidden: int = 0,
        rate: float = 0.1,
        poisoned: Mapping[str, Poison] | None = None,
        flipped: Sequence[str] = (),
    ) -> None:
        self.split = split
        self._sizes = (64, hidden, 10) if hidden else (64, 10)
        self._rate = rate
        self._poisoned = poisoned or {}
        self._flipped = flipped
        self._round = 0
        self.newest = self.initial()
        """The model of the latest round."""

    def initial(self) -> Weights:
        """The same on every client."""
        return model.initial(self._sizes, seed=1)

    def local(self, node_id: str) -> int:
        """All digits of that client."""
        return len(self.split.clients[node_id][0])

    def train(self, node_id: str, weights: Weights, epochs: int, seed: int) -> tuple[Weights, int, float]:
        """Train as an honest client, or send what a poisoned one does."""
        x, y = self.split.clients[node_id]
        if node_id in self._flipped:
            y = 9 - y
        trained = model.train(weights, x, y, epochs=epochs, seed=seed, rate=self._rate, optimiser="sgd")
        if node_id in self._poisoned:
            return *self._poisoned[node_id](weights, trained.weights), trained.after
        return trained.weights, len(x), trained.after

    def adopt(self, node_id: str, weights: Weights, round: int) -> None:  # noqa: A002 - the protocol's word
        """Remember the newest of all."""
        if round > self._round:
            self._round, self.newest = round, weights

    def accuracy(self, weights: Weights) -> float:
        """The share of held-out digits that are recognised."""
        x, y = self.split.held_out
        return float((model.predict(weights, x).argmax(axis=1) == y).mean())


class InProcess:
    """A `Messenger` among nodes of this process, by the mesh's message plane over a wire in memory.

    `fate(source, destination)` gives the seconds after which each copy of a message arrives: none of them
    where it is lost. Nodes that are `away` hear nobody and are heard by nobody, not even by themselves;
    nodes of different `islands` do not reach one another. `carried` is called with what is sent.
    """

    most = MAX_PAYLOAD

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        fate: Callable[[str, str], Sequence[float]] = lambda _source, _destination: (0.0,),
        carried: Callable[[str, str, bytes], None] = lambda _source, _destination, _payload: None,
    ) -> None:
        self.away: set[str] = set()
        self.islands: Mapping[str, int] = {}
        self._fate = fate
        self._carried = carried
        self._planes = {name: self._plane(name) for name in nodes}

    def joined(self, source: str, destination: str) -> bool:
        """Whether messages of one can come to the other."""
        apart = self.islands.get(source, 0) != self.islands.get(destination, 0)
        return not apart and source not in self.away and destination not in self.away

    async def send(self, source: str, destination: str, topic: str, payload: bytes) -> None:
        """Send a message."""
        self._carried(source, destination, payload)
        if self.joined(source, destination):
            traced = trace.get_current_span().get_span_context().is_valid
            self._planes[source].send(destination, topic, payload, traced=traced)

    def reachable(self, node_id: str) -> Sequence[str]:
        """The others."""
        return [name for name in self._planes if name != node_id and self.joined(node_id, name)]

    @asynccontextmanager
    async def subscribe(self, node_id: str, topic: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """(source, payload) of each message, in the trace context of its sender."""
        subscription = Subscription()
        with self._planes[node_id].receiving(topic, subscription.put):
            try:
                yield subscription
            finally:
                subscription.close()

    def _plane(self, name: str) -> MessagePlane:
        def transmit(peer: str, frame: Data) -> None:
            loop = asyncio.get_running_loop()
            for delay in self._fate(name, peer) if peer in self._planes else ():
                loop.call_later(delay, self._planes[peer].arrived, frame)

        return MessagePlane(name, next_hop=lambda destination: destination, transmit=transmit)


class NoLoops:
    """A supervisor of nodes without loops."""

    async def crashed(self, node_id: str) -> None:
        """Nothing ends."""

    async def restarted(self, node_id: str) -> None:
        """Nothing starts."""


@asynccontextmanager
async def federation(
    learner: Learner,
    settings: FlSettings,
    messenger: Any,
    *,
    nodes: Sequence[str],
    emit: Callable[[str, Mapping[str, Any]], None] = lambda _name, _fields: None,
    offers: Sequence[object] = (),
    state: Path | None = None,
    seed: int = 1,
) -> AsyncIterator[FlSession]:
    """The fl domain, open for nodes of this process; it finds the messenger, and what else is offered."""

    def find(protocol: type[Any], /) -> Any:
        return next((each for each in (messenger, *offers) if isinstance(each, protocol)), None)

    context = DomainContext(
        nodes=tuple(nodes),
        supervisor=NoLoops(),
        rng=random.Random(seed),
        emit=emit,
        find=find,
        state=state,
    )
    async with learning(settings, context, learner) as session:
        yield session


async def learn_digits(
    learner: DigitsLearner, settings: FlSettings, *, rounds: int = 20, dropping: bool = True, seed: int = 0
) -> list[float]:
    """The accuracy on held-out digits after each round; `dropping`: in each another client is away."""
    clients = tuple(learner.split.clients)
    messenger, rng = InProcess(clients), random.Random(seed)
    accuracies: list[float] = []
    done = asyncio.Event()

    def drop() -> None:
        messenger.away = {rng.choice(clients)} if dropping else set()

    def emit(_name: str, _fields: Mapping[str, Any]) -> None:
        accuracies.append(learner.accuracy(learner.newest))
        drop()
        if len(accuracies) == rounds:
            done.set()

    drop()
    async with federation(learner, settings, messenger, nodes=clients, emit=emit):
        await done.wait()
    return accuracies[:rounds]
