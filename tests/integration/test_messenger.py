"""The UDP mesh as a `Messenger`: what other domains send and hear over it, real sockets, real time."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from opentelemetry import trace

from mapek_domains.mesh.plugin import domain
from mapek_domains.mesh.settings import MeshSettings
from mapek_domains.mesh.udp.demo import DemoSession
from mapek_domains.mesh.udp.messenger import MessengerSession
from mapek_domains.mesh.udp.session import RealSession
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, FollowsNodes, Messenger
from mapek_runtime.testing import Recorder
from tests.integration.relays import relays

CHAIN = (("node-1", "node-2"), ("node-2", "node-3"), ("node-3", "node-4"))
INVALID = trace.INVALID_SPAN_CONTEXT.trace_id


class Service:
    """What the service does with the mesh when a node crashes."""

    session: DemoSession | None = None

    async def crashed(self, node_id: str) -> None:
        if self.session is not None:
            self.session.crashed(node_id)

    async def restarted(self, node_id: str) -> None:
        if self.session is not None:
            self.session.restarted(node_id)


async def until(true: Callable[[], bool], what: str, *, limit: float = 20.0) -> None:
    try:
        async with asyncio.timeout(limit):
            while not true():  # noqa: ASYNC110 - what is waited for happens in other places
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {limit:g} s: {what}") from None


def context_of(*nodes: str, service: Service | None = None) -> DomainContext:
    return DomainContext(nodes=nodes, supervisor=service or Service(), rng=random.Random(1))


@asynccontextmanager
async def chain() -> AsyncIterator[DemoSession]:
    """Four nodes in a row in one process; no loop heals anything."""
    service = Service()
    context = context_of("node-1", "node-2", "node-3", "node-4", service=service)
    async with domain.open(MeshSettings(links=CHAIN, traffic=0.0), context) as session:
        assert isinstance(session, DemoSession)
        service.session = session
        await until(lambda: all(len(session.reachable(node)) == 3 for node in session.nodes), "convergence")
        yield session


async def heard(messages: AsyncIterator[tuple[str, bytes]]) -> tuple[str, bytes]:
    async with asyncio.timeout(20.0):
        return await anext(messages)


def counts(session: DemoSession, node: str) -> dict[str, int]:
    return dict(session.nodes[node].messages.counts)


async def test_the_session_offers_what_domains_ask_for() -> None:
    async with chain() as session:
        assert isinstance(session, Messenger)
        assert isinstance(session, MessengerSession)
        assert isinstance(session, FollowsNodes)
        assert session.most == 15_000


async def test_sessions_of_one_node_each_reach_one_another_over_several_hops() -> None:
    async with AsyncExitStack() as stack:
        links = await stack.enter_async_context(relays(CHAIN))
        sessions: dict[str, RealSession] = {}
        for node in ("node-1", "node-2", "node-3", "node-4"):
            settings = MeshSettings(listen="127.0.0.1:0", peers=links.peers(node))
            session = await stack.enter_async_context(domain.open(settings, context_of(node)))
            assert isinstance(session, RealSession)
            sessions[node] = session
        await until(lambda: all(len(each.reachable(name)) == 3 for name, each in sessions.items()), "a mesh")
        near, far = sessions["node-1"], sessions["node-4"]
        body = random.Random(7).randbytes(near.most)

        async with far.subscribe("node-4", "news") as news, near.subscribe("node-1", "news") as answers:
            await near.send("node-1", "node-4", "news", body)
            assert await heard(news) == ("node-1", body)
            await far.send("node-4", "node-1", "news", b"thanks")
            assert await heard(answers) == ("node-4", b"thanks")

        # One that lives in another process sends nothing here, and is not listened to here.
        with pytest.raises(EngineUnavailable, match="'node-4' does not run here; here run node-1"):
            await near.send("node-4", "node-1", "news", b"")
        with pytest.raises(EngineUnavailable, match="does not run here"):
            async with near.subscribe("node-4", "news"):
                pass


async def test_a_subscription_hears_again_after_a_crash_of_its_node() -> None:
    async with chain() as session, session.subscribe("node-4", "news") as news:
        await session.send("node-1", "node-4", "news", b"before")
        first = await heard(news)

        await session.crash("node-4")
        gone = session.reachable("node-4")
        await session.send("node-1", "node-4", "news", b"while it is down")
        # What is on its way now finds the socket closed.
        await asyncio.sleep(0.2)
        await session.restart("node-4")
        await until(lambda: len(session.reachable("node-4")) == 3, "the way back to all others")
        await until(lambda: "node-4" in session.reachable("node-1"), "the way to it")
        await session.send("node-1", "node-4", "news", b"after")
        second = await heard(news)

    assert first == ("node-1", b"before")
    assert gone == ()
    assert second == ("node-1", b"after")


async def test_what_had_come_for_a_node_is_gone_when_it_crashes() -> None:
    async with chain() as session, session.subscribe("node-2", "news") as news:
        for number in range(3):
            await session.send("node-1", "node-2", "news", b"%d" % number)
        await until(lambda: counts(session, "node-2").get("delivered") == 3, "three messages")

        await session.crash("node-2")
        await session.restart("node-2")
        await session.send("node-2", "node-2", "news", b"a new life")

        assert await heard(news) == ("node-2", b"a new life")
        assert counts(session, "node-2")["dropped.crashed"] == 3


async def test_a_node_that_is_down_sends_nothing() -> None:
    with Recorder() as recorder:
        async with chain() as session, session.subscribe("node-1", "news"):
            await session.crash("node-1")
            with recorder.provider.get_tracer("test").start_as_current_span("work"):
                await session.send("node-1", "node-2", "news", b"")
                await session.send("node-1", "node-1", "news", b"")
            found = counts(session, "node-1")

    assert found["dropped.not_running"] == 2
    assert "sent" not in found
    assert recorder.named("mesh.message_forward") == ()


async def test_of_what_a_slow_subscriber_leaves_waiting_the_oldest_goes() -> None:
    async with chain() as session, session.subscribe("node-1", "news") as slow:
        for number in range(1030):
            await session.send("node-1", "node-1", "news", b"%d" % number)
        left = [int((await heard(slow))[1]) for _ in range(1024)]

        assert left == list(range(6, 1030))
        assert counts(session, "node-1")["dropped.slow_receiver"] == 6


async def test_a_slow_subscriber_holds_up_nobody() -> None:
    async with (
        chain() as session,
        session.subscribe("node-4", "slow"),
        session.subscribe("node-4", "news") as news,
    ):
        for number in range(50):
            await session.send("node-1", "node-4", "slow", bytes(100))
            await session.send("node-1", "node-4", "news", b"%d" % number)
            assert await heard(news) == ("node-1", b"%d" % number)


async def test_each_subscriber_of_a_topic_hears_all_of_it_and_nobody_hears_another() -> None:
    async with chain() as session:
        async with (
            session.subscribe("node-4", "news") as one,
            session.subscribe("node-4", "news") as other,
            session.subscribe("node-3", "news") as elsewhere,
        ):
            await session.send("node-1", "node-4", "news", b"1")
            assert [await heard(each) for each in (one, other)] == [("node-1", b"1")] * 2
            await session.send("node-1", "node-4", "weather", b"2")
            await until(lambda: counts(session, "node-4").get("dropped.no_receiver") == 1, "a drop")
            await session.send("node-1", "node-3", "news", b"3")
            assert await heard(elsewhere) == ("node-1", b"3")
            unheard = asyncio.create_task(heard(one))
            await asyncio.sleep(0.05)
            assert not unheard.done()
            unheard.cancel()
        await session.send("node-1", "node-4", "news", b"4")

        # Nobody listens any more.
        await until(lambda: counts(session, "node-4")["dropped.no_receiver"] == 2, "another drop")


@pytest.mark.parametrize(
    ("topic", "size", "said"),
    [("news", 15_001, "at most 15000"), ("", 1, "1 to 64 characters"), ("t" * 65, 1, "1 to 64 characters")],
    ids=["too long", "no topic", "a long topic"],
)
async def test_what_cannot_be_sent_is_refused_where_it_is_sent(topic: str, size: int, said: str) -> None:
    async with chain() as session:
        with pytest.raises(ValueError, match=said):
            await session.send("node-1", "node-4", topic, bytes(size))

        assert "sent" not in counts(session, "node-1")


async def test_the_longest_message_of_the_longest_names_arrives() -> None:
    topic = "\N{GRINNING FACE}" * 64
    async with chain() as session, session.subscribe("node-4", topic) as news:
        await session.send("node-1", "node-4", topic, bytes(session.most))

        assert await heard(news) == ("node-1", bytes(15_000))


async def test_a_message_to_nobody_is_dropped_and_counted() -> None:
    async with chain() as session:
        await session.send("node-1", "node-9", "news", b"")

        assert counts(session, "node-1")["dropped.no_route"] == 1


@pytest.mark.slow
async def test_who_is_cut_off_is_not_reachable_and_is_again_when_it_is_not() -> None:
    async with chain() as session:
        session.emulator.set_down("node-2", "node-3", True)
        await until(lambda: session.reachable("node-1") == ["node-2"], "two halves")
        await until(lambda: session.reachable("node-4") == ["node-3"], "two halves")
        await session.send("node-1", "node-4", "news", b"")
        lost = counts(session, "node-1")["dropped.no_route"]
        session.emulator.set_down("node-2", "node-3", False)

        await until(lambda: len(session.reachable("node-1")) == 3, "one mesh")
        assert lost == 1


async def test_a_message_sent_inside_a_span_is_one_trace_to_where_it_is_worked_on() -> None:
    with Recorder() as recorder:
        tracer = recorder.provider.get_tracer("test")
        async with chain() as session, session.subscribe("node-4", "news") as news:
            with tracer.start_as_current_span("sender"):
                await session.send("node-1", "node-4", "news", b"")

            async def work() -> None:
                await heard(news)
                with tracer.start_as_current_span("receiver"):
                    pass

            await asyncio.create_task(work(), context=contextvars.Context())
    sender, receiver = recorder.one("sender"), recorder.one("receiver")
    hops = recorder.named("mesh.message_forward")
    by_id = {span.context.span_id: span for span in recorder.spans if span.context}

    # From the receiver back to the sender, hop by hop.
    way, span = [], receiver
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        way.append(span.name if span is sender else str((span.attributes or {})["source_node"]))
    assert way == ["node-3", "node-2", "node-1", "sender"]
    assert len(hops) == 3
    assert len({span.context.trace_id for span in (sender, receiver, *hops) if span.context}) == 1


async def test_a_message_sent_outside_any_span_costs_none() -> None:
    with Recorder() as recorder:
        async with chain() as session, session.subscribe("node-4", "news") as news:
            recorder.clear()
            await session.send("node-1", "node-4", "news", b"")
            await heard(news)
            current = trace.get_current_span().get_span_context().trace_id

    assert recorder.named("mesh.message_forward") == ()
    assert current == INVALID


async def test_the_context_of_a_message_ends_with_the_next_one_and_with_the_subscription() -> None:
    seen: list[int] = []

    def look() -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    with Recorder() as recorder:
        async with chain() as session:
            async with session.subscribe("node-4", "news") as news:
                for traced in (True, False, True):
                    if traced:
                        with recorder.provider.get_tracer("test").start_as_current_span("sender"):
                            await session.send("node-1", "node-4", "news", b"")
                    else:
                        await session.send("node-1", "node-4", "news", b"")
                for _ in range(3):
                    await heard(news)
                    look()
            look()

    senders = [span.context.trace_id for span in recorder.named("sender") if span.context]
    assert seen == [senders[0], INVALID, senders[1], INVALID]
