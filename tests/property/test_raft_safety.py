"""Whatever happens to the nodes and between them, what they decided can be explained.

Five nodes of the embedded engine over a messenger that loses, doubles, delays and reorders; they are cut
into parts, frozen, crashed and restarted from their journals, all at once too, while all of them claim,
release and configure. Then everything is mended, and the history is judged: it must be linearizable, with
one leader a term, and nothing that was answered may be lost. All the while it is looked at what no node can
see: whether what one holds to be final is final for all, and what followers hold is what their leader
believes.

Most stories are told in virtual time, so that many fit into seconds and one that fails can be told again;
some in real time, with threads that write the journals.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mapek_domains.raft.embedded import replica, snapshots, wire
from mapek_domains.raft.settings import RaftSettings
from tests.raft_client import Client
from tests.raft_group import FAST, NODES, Group, group, until
from tests.raft_rules import judge
from tests.virtual_time import in_virtual_time

KEYS = ("drain node-1~node-2", "restart node-3", "goal")
NAMES = ("weights", "threshold")


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, with numbers that say to whom and what, and how long to wait after it."""

    what: str
    node: int
    choice: int
    pause: float


STEADY = RaftSettings(heartbeat=0.02, election_least=0.12, election_most=0.24, patience=0.5)
"""For real time, in which a machine that is busy with something else is late."""
WEIGHTS = {
    "claim": 12,
    "all claim": 4,
    "all configure": 3,
    "release": 8,
    "configure": 8,
    "crash the leader": 2,
    "crash": 1,
    "restart": 5,
    "restart all": 1,
    "lose the disk": 2,
    "part": 1,
    "part the leader": 3,
    "deafen": 1,
    "freeze": 1,
    "noise": 4,
    "mend": 4,
    "wait": 6,
}
steps = st.lists(
    st.builds(
        Step,
        what=st.sampled_from([what for what, weight in WEIGHTS.items() for _ in range(weight)]),
        node=st.integers(0, len(NODES) - 1),
        choice=st.integers(0, 31),
        pause=st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.05]),
    ),
    min_size=50,
    max_size=100,
)


class Story:
    """Does the steps, each question in a task of its own."""

    def __init__(self, under_test: Group, tasks: asyncio.TaskGroup) -> None:
        self.group = under_test
        self._tasks = tasks
        self._clients = {
            node: Client(under_test.recording, node, partial(under_test.runs, node)) for node in NODES
        }

    async def run(self, script: list[Step]) -> None:
        """All of it; what is asked may be answered later."""
        for number, step in enumerate(script):
            node = NODES[step.node]
            asked = self.group.running() if step.what.startswith("all ") else [node]
            for each in asked:
                if each not in self.group.down:
                    self.ask(number, self._clients[each], step)
            self.harm(node, step)
            for each in self.group.running():
                self._clients[each].read(KEYS, NAMES)
            # An election takes a while, and only where there is a leader anything is decided.
            await asyncio.sleep(step.pause + (0.2 if step.what == "wait" else 0.0))

    def ask(self, number: int, client: Client, step: Step) -> None:
        """One question, where the step is one."""
        choice = step.choice
        match step.what:
            case "claim" | "all claim":
                hold = (0.05, 0.3, 3.0)[choice // 3 % 3]
                self._spawn(
                    client.claim(KEYS[choice % 3], hold=hold, leader_only=choice % 4 == 3, back=choice > 15)
                )
            case "release":
                self._spawn(client.release(choice))
            case "configure" | "all configure":
                value = f"{client.node_id} {number % 4}"
                self._spawn(client.configure(NAMES[choice % 2], value, choice=choice // 2))
            case _:
                pass

    def harm(self, node: str, step: Step) -> None:
        """One fault, or its end, where the step is one."""
        choice, messenger = step.choice, self.group.messenger
        match step.what:
            case "crash the leader":
                self.group.crash(*filter(None, [self.group.leader()]))
            case "crash":
                self.group.crash(node)
            case "restart":
                self.group.restart(*NODES)
            case "restart all":
                self.group.crash(*NODES)
                self.group.restart(*NODES)
            case "lose the disk":
                self.group.lose(node)
            case "part":
                messenger.part([other for n, other in enumerate(NODES) if choice & (1 << n)])
            case "part the leader":
                messenger.part({self.group.leader() or node, NODES[choice % len(NODES)]})
            case "deafen":
                messenger.deafen(node, NODES[choice % len(NODES)])
            case "freeze":
                messenger.freeze(node)
                asyncio.get_running_loop().call_later(choice * 0.01, messenger.thaw, node)
            case "noise":
                messenger.loss, messenger.doubled, messenger.delay = choice % 4 * 0.1, 0.3, choice * 0.001
            case "mend":
                messenger.heal()
            case _:
                pass

    def _spawn(self, question: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(question, context=contextvars.Context())


async def tell(script: list[Step], seed: int, timing: RaftSettings) -> None:
    """The story from an empty disk to its judgement."""
    try:
        async with group(seed=seed, settings=timing) as under_test:
            await under_test.settle()
            async with asyncio.TaskGroup() as tasks:
                await Story(under_test, tasks).run(script)
            await under_test.settle()
            await end(under_test)
    except BaseExceptionGroup as errors:
        errors.add_note(f"the story: {script!r}, {seed}")
        raise


async def end(under_test: Group) -> None:
    """All claim once more, and then what was decided is looked at."""
    clients = [Client(under_test.recording, node) for node in NODES]
    for client in clients:
        await client.claim("the end", hold=3.0)
    await until(under_test.agreed, "all nodes have heard the end")
    under_test.same_everywhere()
    for client in clients:
        client.read(KEYS, NAMES)
    recording = under_test.recording
    judge(recording.operations, restarts=recording.restarts, leaders=under_test.leaders)


def in_virtual_parts(script: list[Step], seed: int) -> None:
    """The story in virtual time, where all that is sent in parts comes in many, and any may be lost.

    Entries are sent two at a time, a snapshot takes the place of sixteen, and disks are slow in some stories.
    """
    with (
        mock.patch.object(wire, "_MOST_ENTRIES", 2),
        mock.patch.object(replica, "_KEEP_ENTRIES", 16),
        mock.patch.object(snapshots, "MOST_CHUNK", 300),
    ):
        in_virtual_time(lambda: tell(script, seed, FAST), seed, slowest=(0.002, 0.008, 0.03)[seed % 3])


def stories(examples: int, *phases: Phase) -> settings:
    return settings(
        max_examples=examples,
        database=None,
        phases=[Phase.explicit, Phase.generate, *phases],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.blocking
@stories(5)
@given(steps, st.integers(0, 1 << 16))
def test_what_was_decided_can_be_explained(script: list[Step], seed: int) -> None:
    in_virtual_parts(script, seed)


@pytest.mark.slow
@pytest.mark.blocking
@stories(120, Phase.shrink)
@given(steps, st.integers(0, 1 << 16))
def test_what_was_decided_can_be_explained_over_many_stories(script: list[Step], seed: int) -> None:
    in_virtual_parts(script, seed)


# What happens in real time takes another course each time: what fails is shown as it was, not made smaller.
@stories(2)
@given(steps, st.integers(0, 1 << 16))
def test_what_was_decided_in_real_time_can_be_explained(script: list[Step], seed: int) -> None:
    asyncio.run(tell(script, seed, STEADY))


@pytest.mark.slow
@stories(20)
@given(steps, st.integers(0, 1 << 16))
def test_what_was_decided_in_real_time_can_be_explained_over_many_stories(
    script: list[Step], seed: int
) -> None:
    asyncio.run(tell(script, seed, STEADY))


@pytest.mark.blocking
def test_a_deposed_leader_gives_up_what_only_it_has_and_catches_up() -> None:
    async def story() -> None:
        async with group() as under_test:
            await under_test.settle()
            deposed, recording = under_test.leader(), under_test.recording
            assert deposed is not None
            under_test.messenger.part([deposed])
            async with asyncio.TaskGroup() as tasks:
                for number in range(3):
                    tasks.create_task(recording.configure(deposed, f"lost {number}", "x" * 600))
                await until(lambda: under_test.leader() not in {None, deposed}, "another one leads")
                leader = under_test.leader()
                assert leader is not None
                # More than one message holds.
                for number in range(60):
                    await recording.configure(leader, "kept", f"{number} ".ljust(600, "."))
            under_test.messenger.heal()
            await until(under_test.agreed, "the deposed leader has what was decided without it")
            under_test.same_everywhere()
            judge(recording.operations, leaders=under_test.leaders)

    in_virtual_time(story, 1)


@pytest.mark.blocking
def test_nodes_that_crash_again_while_they_come_back_come_back_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        async with group() as under_test:
            await under_test.settle()
            for number in range(24):
                # Meanwhile the life before still writes, or the next one opens its journal.
                for _ in range(2):
                    under_test.crash(*NODES[:2])
                    under_test.restart(*NODES[:2])
                    await asyncio.sleep(0)
                await asyncio.sleep(number % 8 * 0.008)
            await under_test.settle()
            judge(under_test.recording.operations, leaders=under_test.leaders)

    in_virtual_time(story, 1, slowest=0.03)

    assert "takes no part" not in caplog.text
