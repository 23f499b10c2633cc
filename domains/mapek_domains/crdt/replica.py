"""One node's share: its document, its Knowledge, and the file, between which it carries what is new.

What this node learns is gathered as it happens and committed once a cycle. What comes from others is merged
at once and taken into Knowledge. Everything is on the loop's thread; between two awaits nothing else runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opentelemetry.context.context import Context

from mapek_runtime.loop.knowledge import Change, Fact, Goal, Incident, Knowledge

from . import spans
from .document import Batch, Document, Limits
from .entries import Key, incident_id
from .keep import Keep
from .update import Refused
from .view import Value

__all__ = ["Relay", "Replica"]

logger = logging.getLogger(__name__)

KNOWLEDGE = "knowledge"
"""What the spans call the type of what is shared."""
_WAIT_FOR_OTHERS = 5.0
_BEFORE_ADOPTING = 60.0
_AT_ONCE = 8
_MANY = 25
_BETWEEN_EVENTS = 0.5


class Relay(Protocol):
    """Takes updates on to others; never waits."""

    def relay(self, update: bytes, via: object) -> int:
        """Hand an update that came by way of `via` to everybody else; returns to how many."""

    def cut(self) -> None:
        """The replica is gone: let go of whoever is connected to it."""


class Replica:
    """The share of one life of a node; `relays` hear of everything that is new here.

    `is_alone`: there is nobody whom it could hear from. `follow` is told of each goal of another node that
    is new here.
    """

    def __init__(
        self,
        node_id: str,
        *,
        limits: Limits,
        keep: Keep | None = None,
        is_alone: bool = False,
        emit: Callable[[str, Mapping[str, Any]], None] = lambda _name, _fields: None,
        follow: Callable[[Goal], None] = lambda _goal: None,
    ) -> None:
        self.node_id = node_id
        self.document = Document(node_id, limits=limits)
        self.relays: list[Relay] = []
        self.has_agreed = False
        """Whether this life was in the same state as another node at any time."""
        self.may_adopt: Callable[[], bool] = lambda: False
        """Whether every other node that can be reached has nothing that is not here."""
        self._keep = keep
        self._is_alone = is_alone
        self._emit = emit
        self._follow = follow
        self._clock = asyncio.get_running_loop().time
        self._born = self._clock()
        self._told_at = float("-inf")
        self._is_loaded = keep is None
        self._has_seeded = False
        self._warned_of_twins = False
        self._knowledge: Knowledge | None = None
        self._unlisten: Callable[[], None] = lambda: None
        self._closed: list[Incident] = []
        self._facts: dict[str, bool | int | float | str] = {}
        self._goals: dict[str, Goal] = {}

    async def load(self) -> None:
        """Begin with what an earlier life has left on disk."""
        if self._keep is None:
            return
        left, before = list(await self._keep.load()), -1
        # One that builds on another one which comes later finds it in the next turn.
        while left and len(left) != before:
            before = len(left)
            still = []
            for number, update in enumerate(left):
                if not self._remembers(update):
                    still.append(update)
                if not number % _AT_ONCE:
                    # The others in this process are not to wait for it.
                    await asyncio.sleep(0)
            left = still
        if left:
            logger.warning(
                "%d updates in %s cannot be taken; the other nodes have what they say",
                len(left),
                self._keep.path,
            )
        self._is_loaded = True

    def attach(self, knowledge: Knowledge) -> None:
        """Share that Knowledge; without effect when it is shared already."""
        if knowledge is self._knowledge:
            return
        self.detach()
        knowledge.node = self.node_id
        self._knowledge = knowledge
        self._has_seeded = False
        self._unlisten = knowledge.listen(self._heard)
        # What was in force before this Knowledge was shared is no news.
        self._absorb(self.document.view.values, is_news=False)

    def detach(self) -> None:
        """Let go of Knowledge, and forget what was not committed."""
        self._unlisten()
        self._unlisten = lambda: None
        self._knowledge = None
        self._closed.clear()
        self._facts.clear()
        self._goals.clear()

    def collect(self) -> bytes:
        """Commit what was learned since; returns the update for the others, empty where nothing was."""
        if not self._is_loaded:
            return b""
        earlier = self._seed()
        adopt = self._clock() - self._born >= _BEFORE_ADOPTING and self.may_adopt()
        if not (earlier or self._closed or self._facts or self._goals or self.document.is_restless or adopt):
            return b""
        batch = Batch(
            closed=tuple(self._closed), earlier=earlier, facts=dict(self._facts), goals=dict(self._goals)
        )
        self._closed.clear()
        self._facts.clear()
        self._goals.clear()
        update, changes = self.document.commit(batch, adopt=adopt)
        self._absorb(changes)
        if update and self._keep is not None:
            self._keep.add(update)
        if self.document.twins and not self._warned_of_twins:
            self._warned_of_twins = True
            logger.warning(
                "another process shares knowledge as %r; each node needs its own name", self.node_id
            )
        return update

    def take(self, update: bytes, via: object, *, parent: Context | None = None) -> int:
        """Merge what came by way of `via`, and pass it on; returns how many values it changed.

        The span is a child of the current one, or of `parent`. What is known already costs none. Raises
        `Refused` for what cannot be merged.
        """
        contents = self.document.examine(update)
        if not self.document.is_news(contents):
            return 0
        scope = spans.crdt_merge(KNOWLEDGE, self.node_id)
        with scope if parent is None else scope.under(parent) as span:
            changes = self.document.merge(contents)
            span.set(changes=len(changes))
        self._absorb(changes)
        if self._keep is not None:
            self._keep.add(contents.update)
        for relay in self.relays:
            relay.relay(update, via)
        return len(changes)

    def tell(self, source: str, changes: int, *, was_parted: bool) -> None:
        """Let the service know of a merge that is worth it: after a partition, or of much at once."""
        now = self._clock()
        if not changes or not (was_parted or changes >= _MANY) or now - self._told_at < _BETWEEN_EVENTS:
            return
        self._told_at = now
        self._emit("knowledge.merged", {"node": self.node_id, "from": source, "changes": changes})

    # Inside

    def _remembers(self, update: bytes) -> bool:
        try:
            contents = self.document.examine(update)
            if self.document.is_news(contents):
                self._absorb(self.document.merge(contents))
        except Refused:
            return False
        return True

    def _heard(self, change: Change) -> None:
        match change:
            case Incident():
                self._closed.append(change)
            case Fact():
                self._facts[change.key] = change.value
            case Goal():
                self._goals[change.name] = change

    def _seed(self) -> tuple[Incident, ...]:
        """What Knowledge has from before and nobody else does: once, when the others had their say."""
        if self._has_seeded or self._knowledge is None:
            return ()
        is_late = self._clock() - self._born >= _WAIT_FOR_OTHERS
        if not (self._is_alone or self.has_agreed or is_late):
            return ()
        self._has_seeded = True
        there = self.document.view.values
        for key, value in self._knowledge.facts().items():
            known = there.get(("facts", self.node_id, key))
            if type(known) is not type(value) or known != value:
                self._facts.setdefault(key, value)
        for name, goal in self._knowledge.goals().items():
            holds = self.document.view.goal(name)
            if goal.author in {"", self.node_id} and (holds is None or holds.number < goal.number):
                self._goals.setdefault(name, goal)
        mine = [each for each in self._knowledge.incidents() if each.node in {"", self.node_id}]
        room = max(0, self.document.limits.incidents - self.document.view.sizes["incidents"])
        new = [
            each
            for each in mine
            if each not in self._closed
            and ("incidents", self.node_id, incident_id(self.node_id, each)) not in there
        ]
        return tuple(new[-room:]) if room else ()

    def _absorb(self, changes: Mapping[Key, Value | None], *, is_news: bool = True) -> None:
        knowledge = self._knowledge
        if knowledge is None:
            return
        # In the order in which they happened: Knowledge puts each where it belongs, from the end.
        incidents = [value for value in changes.values() if isinstance(value, Incident)]
        for incident in sorted(incidents, key=lambda each: each.opened):
            knowledge.absorb(incident, incident.node)
        for (kind, node, key), value in changes.items():
            if isinstance(value, tuple):
                action, _, target = key.partition("|")
                knowledge.told(node, action, target, successes=value[0], failures=value[1])
            elif kind == "facts" and not isinstance(value, Goal | Incident):
                knowledge.hear_fact(key, value, node)
        for name in {key for kind, _, key in changes if kind == "goals"}:
            # One that is still to be committed is newer.
            if name not in self._goals:
                self._hear_goal(knowledge, name, is_news=is_news)

    def _hear_goal(self, knowledge: Knowledge, name: str, *, is_news: bool) -> None:
        before = knowledge.goals().get(name)
        knowledge.hear_goal(name, self.document.view.goal(name))
        goal = knowledge.goals().get(name)
        if is_news and goal is not None and goal.author != self.node_id and not goal.is_same_as(before):
            self._follow(goal)
