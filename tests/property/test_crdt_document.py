"""The laws of the document: whatever comes in whatever order and however often, the state is the same.

Histories are made by several lives that hear of one another or not. The witnesses are the engine's own state
vectors, its content as it gives it out, and a model of sets and sums.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.crdt import authoring, clearing, shelves
from mapek_domains.crdt import document as document_module
from mapek_domains.crdt.document import Batch, Document, Limits
from mapek_domains.crdt.update import Refused, read_state
from mapek_runtime.loop.knowledge import Goal
from tests.unit.crdt.net import incident, leaves

NODES = ("node-1", "node-2", "node-3")
FACTS = ("a", "b")
ROOMY = Limits(incidents=10_000)

values = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0]), st.sampled_from(["x", "y"])
)


@dataclass(frozen=True)
class Learn:
    node: int
    incidents: int
    success: bool
    facts: dict[str, Any]
    goal: Any


@dataclass(frozen=True)
class Hear:
    node: int
    update: int


@dataclass(frozen=True)
class Crash:
    node: int
    remembers: bool


learning = st.builds(
    Learn,
    node=st.integers(0, 2),
    incidents=st.integers(0, 2),
    success=st.booleans(),
    facts=st.dictionaries(st.sampled_from(FACTS), values, max_size=2),
    goal=st.none() | values,
)
hearing = st.builds(Hear, node=st.integers(0, 2), update=st.integers(0, 40))
crashing = st.builds(Crash, node=st.integers(0, 2), remembers=st.booleans())
histories = st.lists(st.one_of(learning, hearing, hearing, crashing), max_size=30)


def take(document: Document, update: bytes) -> bool:
    """Merge it; False where it came too early. Checks `changes` and the state against the engine."""
    before, state = model(document), read_state(document.state())
    try:
        contents = document.examine(update)
    except Refused as refused:
        if refused.reason != "early":
            raise
        assert read_state(document.state()) == state
        return False
    is_news = document.is_news(contents)
    changes = document.merge(contents)
    after = model(document)
    assert set(changes) == {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert is_news or not changes
    now = read_state(document.state())
    for client, (_, end) in contents.added.items():
        assert now[client] == max(end, state.get(client, 0))
    assert document._clocks == now
    return True


def model(document: Document) -> dict[tuple[str, str, str], str]:
    """What the shelves mean, from the engine's content alone; as text, because True is not 1."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    latest: dict[tuple[str, str, str], tuple[int, str, Any]] = {}
    meant: dict[tuple[str, str, str], str] = {}
    for (kind, name, key), text in leaves(document).items():
        at = kind, name.split("/", 3)[3], key
        entry = json.loads(str(text))
        match kind:
            case "incidents":
                meant[at] = repr(entry)
            case "outcomes":
                before = sums.get(at, [0, 0])
                sums[at] = [before[0] + entry[0], before[1] + entry[1]]
                meant[at] = repr(sums[at])
            case _:
                held = latest.get(at)
                latest[at] = (
                    (entry[0], name, entry[1])
                    if held is None
                    else max(held, (entry[0], name, entry[1]), key=lambda each: each[:2])
                )
                number, _, value = latest[at]
                meant[at] = repr((number if kind == "goals" else 0, value))
    return meant


@dataclass
class World:
    lives: list[Document]
    updates: list[bytes] = field(default_factory=list)
    closed: Counter[tuple[str, bool]] = field(default_factory=Counter)
    number: int = 0

    def learn(self, step: Learn) -> None:
        document = self.lives[step.node]
        batch = []
        for _ in range(step.incidents):
            self.number += 1
            batch.append(incident(self.number, success=step.success))
            self.closed[document.node, step.success] += 1
        goals = {} if step.goal is None else {"goal": Goal(name="goal", value=step.goal)}
        update, _ = document.commit(Batch(closed=batch, facts=step.facts, goals=goals))
        if update:
            self.updates.append(update)


def played(history: list[Any]) -> World:
    world = World([Document(node, limits=ROOMY) for node in NODES])
    for step in history:
        match step:
            case Learn():
                world.learn(step)
            case Hear() if world.updates:
                take(world.lives[step.node], world.updates[step.update % len(world.updates)])
            case Crash():
                before = world.lives[step.node]
                world.lives[step.node] = Document(before.node, limits=ROOMY)
                # What nobody else has and the disk has lost is lost; here somebody has it.
                if step.remembers:
                    take(world.lives[step.node], before.whole())
    return world


def everything(updates: list[bytes]) -> Document:
    """All updates, each as soon as what it builds on is there."""
    document = Document("reader", limits=ROOMY)
    left = list(updates)
    while left:
        still = [update for update in left if not take(document, update)]
        assert len(still) < len(left)
        left = still
    return document


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_order_and_repetition_do_not_matter(history: list[Any], random: Any) -> None:
    world = played(history)
    one = everything(world.updates)
    shuffled = [*world.updates, *world.updates[: len(world.updates) // 2]]
    random.shuffle(shuffled)

    other = everything(shuffled)

    assert one.digest() == other.digest()
    assert one.whole() == other.whole()
    assert leaves(one) == leaves(other)
    assert one.view.values == other.view.values
    assert read_state(one.state()) == read_state(other.state())


@given(histories)
@settings(max_examples=40)
def test_merging_is_commutative_associative_and_idempotent(history: list[Any]) -> None:
    a, b, c = played(history).lives

    def join(*documents: Document) -> Document:
        joined = Document("joined", limits=ROOMY)
        for document in documents:
            assert take(joined, document.whole())
        return joined

    states = [
        join(a, b, c),
        join(c, b, a),
        join(join(a, b), c),
        join(a, join(b, c)),
        join(a, a, b, b, c, c, a),
    ]
    assert len({each.digest() for each in states}) == 1
    assert len({repr(sorted(leaves(each).items())) for each in states}) == 1
    assert all(each.view.values == states[0].view.values for each in states)


@given(histories)
@settings(max_examples=60)
def test_replicas_that_complete_each_other_by_their_states_are_the_same_and_have_lost_nothing(
    history: list[Any],
) -> None:
    world = played(history)
    assert len({document.client for document in world.lives}) == 3
    archive = everything(world.updates)
    replicas = [*world.lives, archive]
    # What a node writes because of what it heard is heard in turn; then nobody has anything to say.
    for _ in range(6):
        for document in replicas:
            document.commit(Batch())
        for one in replicas:
            for other in replicas:
                if one is not other:
                    take(one, other.missing(one.state()))

    assert len({document.digest() for document in replicas}) == 1
    assert all(leaves(document) == leaves(archive) for document in replicas)
    assert all(document.view.values == archive.view.values for document in replicas)
    for node in NODES:
        successes, failures = archive.outcomes().get((node, "drain", "node-1~node-2"), (0, 0))
        assert (successes, failures) == (world.closed[node, True], world.closed[node, False])
    assert len(archive.incidents()) == sum(world.closed.values())


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_a_fact_of_the_present_life_holds_over_those_of_the_past(steps: list[Any], random: Any) -> None:
    """Restarted from nothing, a node remembers anew, and hears only later of what it said before."""
    latest = Document("node-1")
    said: Any = None
    archive = Document("archive")
    for number, (_, restarts) in enumerate(steps):
        if restarts:
            latest = Document("node-1")
            said = None
        else:
            latest.commit(Batch(facts={"a": number}))
            said = number
        take(archive, latest.whole())
        if random.random() < 0.5:
            take(latest, archive.missing(latest.state()))
    for _ in range(3):
        take(latest, archive.missing(latest.state()))
        latest.commit(Batch())
        take(archive, latest.missing(archive.state()))

    assert archive.digest() == latest.digest()
    if said is not None:
        assert archive.facts()["node-1", "a"] == said


@given(histories, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_replicas_are_the_same_when_shelves_are_swept_trimmed_and_adopted(
    history: list[Any], random: Any
) -> None:
    """Everything that clears away, made to happen all the time."""
    with ExitStack() as stack:
        for module, name, value in (
            (shelves, "_WORTH_SWEEPING", 2),
            (authoring, "SEGMENT", 2),
            (clearing, "SEGMENT", 2),
            (clearing, "_SLACK", 0),
            (authoring, "_MOST_LIVES", 1),
            (document_module, "_WORTH_JOINING", 0),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        tight = Limits(incidents=6, facts=3)
        lives = [Document(node, limits=tight) for node in NODES]
        number = 0
        for step in history:
            match step:
                case Learn():
                    batch = [incident(number + each) for each in range(step.incidents)]
                    number += step.incidents
                    lives[step.node].commit(
                        Batch(closed=batch, facts=step.facts), adopt=random.random() < 0.3
                    )
                case Hear():
                    other = lives[step.update % 3]
                    take(lives[step.node], other.missing(lives[step.node].state()))
                case Crash():
                    lives[step.node] = Document(NODES[step.node], limits=tight)
        for _ in range(12):
            said = [document.commit(Batch())[0] for document in lives]
            for one in lives:
                for other in lives:
                    if one is not other:
                        take(one, other.missing(one.state()))
        assert not any(said)

        assert len({document.digest() for document in lives}) == 1
        assert len({repr(sorted(leaves(document).items())) for document in lives}) == 1
        assert len(lives[0].incidents()) <= 6 + 2 + 6
        assert len(lives[0].facts()) <= 3 + len(lives)
