"""Whatever the etcd servers do to what they are asked, what was decided can be explained.

Three processes with a node each ask servers that refuse, hang, lose answers, and carry out late what they
seemed not to have heard; nodes crash and come back. The history is judged: it must be linearizable, with one
leader a term, and no key may have two owners. Time is the autojump clock's, so that leases run out.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import AsyncExitStack

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapek_runtime.testing import AutojumpClock
from tests.raft_client import Client, busy
from tests.raft_history import Recording
from tests.raft_rules import judge
from tests.unit.raft_etcd.group import Router, eventually, process
from tests.unit.raft_etcd.memory_etcd import MemoryEtcd, MemoryServer

NODES = ("a", "b", "c")
KEYS = ("drain a~b", "restart c")
NAMES = ("mode",)
CALLS = ("transact", "grant", "revoke", "keep_alive", "read")

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["lost", "late", "refused", "lost", "late", "hang", "break", "crash", "restart", "mend", "depose"]
        ),
        st.integers(0, len(NODES) - 1),
        st.sampled_from(CALLS),
        st.integers(1, 3),
        st.sampled_from([0.01, 0.05, 0.2, 0.6]),
    ),
    max_size=25,
)


async def tell(script: list[tuple[str, int, str, int, float]], seed: int) -> None:
    etcd = MemoryEtcd()
    servers = {node: MemoryServer(etcd, f"{node}:1", limit=0.2) for node in NODES}
    down: set[str] = set()
    leaders: set[tuple[int, str]] = set()
    async with AsyncExitStack() as stack:
        sessions = {
            node: await stack.enter_async_context(process(etcd, node, servers=[servers[node]]))
            for node in NODES
        }
        recording = Recording(Router(sessions))
        rng = random.Random(seed)
        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(
                    busy(
                        Client(recording, node, lambda node=node: node not in down),  # type: ignore[misc]
                        rng,
                        keys=KEYS,
                        names=NAMES,
                        pause=0.1,
                    )
                )
                for node in NODES
            ]
            for what, number, call, times, pause in script:
                node = NODES[number]
                server = servers[node]
                server.late = 5.0 * pause
                match what:
                    case "hang":
                        server.hangs = True
                    case "break":
                        server.break_watches()
                    case "crash" if node not in down:
                        down.add(node)
                        sessions[node].crashed(node)
                        recording.restarted(node)
                    case "restart" if node in down:
                        down.discard(node)
                        sessions[node].restarted(node)
                    case "mend":
                        for each in servers.values():
                            each.hangs = False
                    case "depose":
                        etcd.delete("/mapek/leader")
                    case _:
                        server.faults.setdefault(call, deque()).extend([what] * times)
                await asyncio.sleep(pause)
                leaders |= {
                    (sessions[each].engine.standing(each).term, each)
                    for each in NODES
                    if sessions[each].leader(each) == each
                }
            for server in servers.values():
                server.hangs = False
                server.faults.clear()
            for node in tuple(down):
                sessions[node].restarted(node)
            down.clear()
            await asyncio.sleep(1.0)
            for client in clients:
                client.cancel()
        await eventually(lambda: all(session.leader(node) for node, session in sessions.items()))
        for node in NODES:
            Client(recording, node).read(KEYS, NAMES)
        judge(recording.operations, restarts=recording.restarts, leaders=leaders)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(script=steps, seed=st.integers(0, 1 << 16))
async def test_what_was_decided_can_be_explained(
    script: list[tuple[str, int, str, int, float]], seed: int
) -> None:
    with AutojumpClock():
        await tell(script, seed)
