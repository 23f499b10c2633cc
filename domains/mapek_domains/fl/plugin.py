"""Federated learning as a domain: what the entry point `mapek.domains` finds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mapek_runtime.loop.domain import DomainContext

from .learner import Learner
from .session import FlSession
from .settings import FlSettings

__all__ = ["FlDomain", "domain", "learning"]


class FlDomain:
    """Nodes that learn together what is normal on their links, and keep their readings to themselves."""

    name = "fl"
    settings = FlSettings

    @asynccontextmanager
    async def open(self, settings: FlSettings, context: DomainContext) -> AsyncIterator[FlSession]:
        """Start the nodes' tasks; everything ends when the block is left."""
        # numpy, and what it computes, is not needed to read the settings.
        from .normality import LinkNormality

        learner = LinkNormality(settings, random.Random(context.rng.getrandbits(64)))
        async with learning(settings, context, learner) as session:
            yield session


@asynccontextmanager
async def learning(
    settings: FlSettings, context: DomainContext, learner: Learner
) -> AsyncIterator[FlSession]:
    """The same with another learner. Raises `ConfigError` where its model is larger than can be sent."""
    session = FlSession(context, settings, learner)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        session.start(group)
        try:
            yield session
        except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
            failure = error
        finally:
            session.stop()
    if failure is not None:
        raise failure


domain = FlDomain()
