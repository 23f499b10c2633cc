"""What a replica tells its node: goals of others, at once, with the span in which they were set."""

from __future__ import annotations

import random

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags

from mapek_domains.crdt.document import Limits
from mapek_domains.crdt.replica import Replica
from mapek_runtime import Knowledge
from mapek_runtime.loop.domain import DomainContext
from mapek_runtime.loop.knowledge import Goal
from tests.unit.crdt.net import Nobody

SETTER = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))


class Sharer:
    """A node with its Knowledge and its replica; `followed` are the goals that it was to follow."""

    def __init__(self, name: str) -> None:
        self.followed: list[Goal] = []
        self.knowledge = Knowledge(node=name)
        self.replica = Replica(name, limits=Limits(), is_alone=True, follow=self.followed.append)
        self.replica.attach(self.knowledge)

    def gives(self, other: Sharer) -> None:
        """Commit, and let the other take all of it."""
        self.replica.collect()
        other.replica.take(self.replica.document.whole(), self)


async def test_a_goal_of_another_node_is_followed_once_however_often_it_comes() -> None:
    one, two = Sharer("node-1"), Sharer("node-2")
    one.knowledge.set_goal("loss", 0.5, span_context=SETTER)

    for _ in range(3):
        one.gives(two)
        two.gives(one)

    (goal,) = two.followed
    assert (goal.name, goal.value, goal.author, goal.number) == ("loss", 0.5, "node-1", 1)
    assert goal.span_context is not None
    assert (goal.span_context.trace_id, goal.span_context.span_id) == (1, 2)
    assert one.followed == []


async def test_each_decision_is_followed_and_what_does_not_hold_is_not() -> None:
    one, two, three = Sharer("node-1"), Sharer("node-2"), Sharer("node-3")
    one.knowledge.set_goal("loss", 0.25)
    for value in (0.5, 0.5, 1, 1.0):
        two.knowledge.set_goal("loss", value)
    two.gives(three)
    one.gives(three)

    assert [goal.value for goal in three.followed] == [1.0]
    two.gives(one)
    assert [goal.value for goal in one.followed] == [1.0]
    assert one.knowledge.goal("loss") == 1.0


async def test_what_a_node_was_told_of_in_its_process_is_no_news_when_it_comes_from_the_others() -> None:
    one, two = Sharer("node-1"), Sharer("node-2")
    goal = one.knowledge.set_goal("loss", 0.5, span_context=SETTER)
    two.knowledge.hear_goal("loss", goal)

    one.gives(two)

    assert two.followed == []


async def test_goals_from_before_a_life_of_the_node_are_known_and_no_news() -> None:
    one, two = Sharer("node-1"), Sharer("node-2")
    one.knowledge.set_goal("loss", 0.5)
    two.replica.detach()
    one.gives(two)
    knowledge = Knowledge(node="node-2")

    two.replica.attach(knowledge)

    assert knowledge.goal("loss") == 0.5
    assert two.followed == []


async def test_a_cycle_that_follows_a_goal_is_asked_for_in_the_span_that_set_it() -> None:
    asked: list[tuple[str, str, SpanContext]] = []

    def trigger(node: str, reason: str) -> None:
        asked.append((node, reason, trace.get_current_span().get_span_context()))

    context = DomainContext(nodes=("node-1",), supervisor=Nobody(), rng=random.Random(0), trigger=trigger)
    open_here = trace.NonRecordingSpan(SpanContext(7, 8, is_remote=False))
    with trace.use_span(open_here):
        context.follow("node-1", Goal(name="loss", value=1, span_context=SETTER))
        context.follow("node-1", Goal(name="rate", value=1))
        after = trace.get_current_span()

    assert asked == [
        ("node-1", "goal loss", SETTER),
        ("node-1", "goal rate", trace.INVALID_SPAN_CONTEXT),
    ]
    assert after is open_here
