"""A process with one node whose knowledge is shared, for tests of who can join it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from mapek_domains.crdt.plugin import domain
from mapek_domains.crdt.session import CrdtSession
from mapek_domains.crdt.settings import CrdtSettings
from mapek_runtime import Knowledge
from mapek_runtime.loop.domain import DomainContext
from tests.unit.crdt.net import Nobody, incident

__all__ = ["Node", "node"]


class Node:
    """A process with one node."""

    def __init__(self, session: CrdtSession, name: str) -> None:
        self.session = session
        self.name = name
        replica = session.replica(name)
        assert replica is not None
        self.replica = replica
        self.document = replica.document
        self.knowledge = Knowledge()
        replica.attach(self.knowledge)

    async def learn(self, number: int) -> None:
        self.knowledge.close(incident(number))
        await self.session.publish(self.name)


@asynccontextmanager
async def node(name: str = "node-1", *, state: Path | None = None, **settings: Any) -> AsyncIterator[Node]:
    context = DomainContext(nodes=(name,), supervisor=Nobody(), rng=random.Random(name), state=state)
    async with domain.open(msgspec.convert(settings, CrdtSettings), context) as session:
        yield Node(session, name)
