"""Goals: what one loop wants of others, kept in the knowledge of the nodes, and how the fast loops follow.

Whoever shares knowledge between processes shares goals with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from opentelemetry import trace

from mapek_runtime.loop import Cycle, DomainContext, Goal, Goals, Insight, Knowledge
from mapek_runtime.loop.model import Value

__all__ = ["FollowsGoals", "GoalsInKnowledge", "Known"]

Known = dict[str, Knowledge]
"""The knowledge of each node of this process."""


class GoalsInKnowledge:
    """Implements `Goals` over the knowledge of the nodes of this process, where no domain does it."""

    def __init__(self, context: DomainContext, known: Known) -> None:
        self._context = context
        self._known = known
        self._set: dict[str, Goal] = {}
        """What was set here last, for nodes whose knowledge nobody shares."""

    def set_goal(self, node_id: str, name: str, value: Value) -> None:
        """Set a goal for all nodes, in the name of `node_id`; each here has a cycle, linked to this span."""
        span_context = trace.get_current_span().get_span_context()
        author = self._known.get(node_id) or Knowledge(node=node_id)
        before = _newest(
            self._set.get(name), *(knowledge.goals().get(name) for knowledge in self._known.values())
        )
        if before is not None:
            author.hear_goal(name, before)
        # From here it goes to the nodes of other processes, where somebody shares what a node knows.
        goal = author.set_goal(name, value, span_context=span_context if span_context.is_valid else None)
        self._set[name] = goal
        for knowledge in self._known.values():
            knowledge.hear_goal(name, goal)
        # In the same step: no cycle goes by the goal before the one that is linked to this span.
        for node in self._context.nodes:
            self._context.trigger(node, goal.reason)

    def goals(self, node_id: str) -> Mapping[str, Goal]:
        """The goals in force, as that node knows them, by name."""
        knowledge = self._known.get(node_id)
        there = {} if knowledge is None else knowledge.goals()
        newest = (_newest(there.get(name), self._set.get(name)) for name in {**self._set, **there})
        return {goal.name: goal for goal in newest if goal is not None}


@dataclass(slots=True)
class FollowsGoals:
    """A plugin of a fast loop: a goal that has changed starts a cycle, linked to the span that set it.

    The other plugins read the goal from the node's knowledge, which this one lends to `known`.
    """

    node_id: str
    context: DomainContext
    known: Known
    name: str = "hierarchy"
    _goals: Goals | None = field(default=None, init=False)
    _followed: dict[str, Goal] | None = field(default=None, init=False)

    async def learn(self, cycle: Cycle) -> Iterable[Insight]:
        """Be known, and follow what has changed."""
        if self.known.get(self.node_id) is not cycle.knowledge:
            cycle.knowledge.node = cycle.knowledge.node or self.node_id
            self.known[self.node_id] = cycle.knowledge
        # Looked for once: it costs more than all else here.
        self._goals = goals = self._goals or self.context.find(Goals)
        if goals is None:
            return ()
        now = goals.goals(self.node_id)
        if self._followed is None:
            # What was in force before this life of the node is no news.
            self._followed = dict(now)
            for goal in now.values():
                _hear(cycle.knowledge, goal)
            return ()
        for name, goal in now.items():
            if not goal.is_same_as(self._followed.get(name)):
                self._followed[name] = goal
                self._follow(cycle, goal)
        return ()

    def _follow(self, cycle: Cycle, goal: Goal) -> None:
        _hear(cycle.knowledge, goal)
        # Whoever set the goal or brought it may have asked for this cycle already.
        if goal.reason not in {trigger.reason for trigger in cycle.triggers}:
            self.context.follow(self.node_id, goal)


def _newest(*goals: Goal | None) -> Goal | None:
    found = [goal for goal in goals if goal is not None]
    return max(found, key=lambda goal: (goal.number, goal.author), default=None)


def _hear(knowledge: Knowledge, goal: Goal) -> None:
    """Put a goal where the plugins of the node read it, unless it is there already."""
    before = knowledge.goals().get(goal.name)
    if goal.is_same_as(before):
        return
    after = 0 if before is None else before.number
    knowledge.hear_goal(goal.name, replace(goal, number=max(goal.number, after + 1)))
