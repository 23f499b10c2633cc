"""Yjs' WebSocket protocol: an ordinary client, nodes among themselves, hostile and slow ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pycrdt import Doc, Map, YMessageType, create_sync_message, create_update_message, handle_sync_message

from mapek_domains.crdt import connection
from mapek_domains.crdt.websocket import with_room
from mapek_runtime.errors import ConfigError
from mapek_runtime.testing import Recorder
from tests.integration.sharing_node import node
from tests.unit.crdt.net import incident, leaves, until

TOKEN = "a-token-of-some-length"


class Client:
    """An ordinary Yjs client: pycrdt's own messages, and nothing of ours."""

    def __init__(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        self.stream = stream
        self.doc: Doc[Map[Any]] = Doc()
        self.roots = {kind: self.doc.get(kind, type=Map) for kind in ("incidents", "facts", "goals", "mine")}
        self.said: list[bytes] = []
        self.heard = 0
        self.others: list[bytes] = []
        self._applying = False
        self.doc.observe(lambda event: None if self._applying else self.said.append(event.update))

    async def run(self) -> None:
        await self.stream.send_bytes(create_sync_message(self.doc))
        async for message in self.stream:
            if message.type is not aiohttp.WSMsgType.BINARY or message.data[0] != YMessageType.SYNC:
                self.others.append(message.data)
                continue
            self.heard += 1
            self._applying = True
            reply = handle_sync_message(message.data[1:], self.doc)
            self._applying = False
            if reply is not None:
                await self.stream.send_bytes(reply)

    async def write(self, change: Callable[[dict[str, Map[Any]]], None]) -> None:
        change(self.roots)
        for update in self.said:
            await self.stream.send_bytes(create_update_message(update))
        self.said.clear()


@asynccontextmanager
async def client(address: str, room: str = "knowledge", **options: Any) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{address}/{room}", **options) as stream,
        asyncio.TaskGroup() as group,
    ):
        found = Client(stream)
        task = group.create_task(found.run())
        try:
            yield found
        finally:
            task.cancel()


async def test_an_ordinary_yjs_client_joins_and_converges() -> None:
    with Recorder() as recorder:
        async with node(listen="127.0.0.1:0") as here:
            await here.learn(1)
            async with client(here.session.address) as yjs, client(here.session.address, "node-1") as other:
                await until(lambda: len(yjs.roots["incidents"]) == len(other.roots["incidents"]) == 1)
                (shelf,) = yjs.roots["incidents"].values()
                (text,) = shelf.values()
                assert json.loads(text)[:2] == ["node-1~node-2", "link.dead"]

                await yjs.write(lambda roots: roots["goals"].update({"1/op/0/ada": Map({"loss": "[1,0.5]"})}))
                await until(lambda: here.knowledge.goal("loss") == 0.5)
                await here.learn(2)

                await until(lambda: len(next(iter(yjs.roots["incidents"].values()))) == 2)
                await until(lambda: "1/op/0/ada" in other.roots["goals"])
                await until(lambda: yjs.doc.get_update() == other.doc.get_update() == here.document.whole())
    broadcast, *_ = recorder.named("crdt.broadcast")
    assert (broadcast.attributes or {})["peers"] == 2
    assert all(merge.parent is None for merge in recorder.named("crdt.merge"))
    # Nothing but ours: a connection that lasts for days is no span.
    assert {span.name for span in recorder.spans} == {"crdt.broadcast", "crdt.merge"}


async def test_nodes_connect_to_one_another_and_come_back_after_the_end(tmp_path: Path) -> None:
    async with node("node-2", peers=[], listen="127.0.0.1:0") as two:
        port = two.session.address.rpartition(":")[2]
        async with node("node-1", peers=[two.session.address]) as one:
            await one.learn(1)
            await two.learn(2)
            await until(lambda: len(one.document.incidents()) == len(two.document.incidents()) == 2)
            assert one.document.digest() == two.document.digest()
            assert {each.node for each in one.knowledge.incidents()} == {"", "node-2"}

            two.session.crashed("node-2")
            await one.learn(3)
            two.session.restarted("node-2")
            again = two.session.replica("node-2")
            assert again is not None
            await until(lambda: len(again.document.incidents()) == 3)
            assert leaves(again.document) == leaves(one.document)
    assert port


async def test_news_travel_along_a_chain_of_sockets() -> None:
    async with (
        node("node-1", listen="127.0.0.1:0") as one,
        node("node-2", listen="127.0.0.1:0", peers=[one.session.address]) as two,
        node("node-3", peers=[f"{two.session.address}/node-2"]) as three,
    ):
        await until(lambda: len(one.replica.relays) == 1 and len(two.replica.relays) == 2)
        await three.learn(1)
        await until(lambda: len(one.document.incidents()) == 1)
        await one.learn(2)
        await until(lambda: len(three.document.incidents()) == 2)

        assert one.document.digest() == two.document.digest() == three.document.digest()


async def test_an_update_does_not_go_back_where_it_came_from() -> None:
    async with node(listen="127.0.0.1:0") as here, client(here.session.address) as yjs:
        await until(lambda: yjs.heard >= 2)
        await yjs.write(lambda roots: roots["facts"].update({"1/op/0/ada": Map({"a": "[1,1]"})}))
        await until(lambda: here.knowledge.facts_elsewhere("a") == {"ada": 1})
        heard = yjs.heard
        await asyncio.sleep(0.3)

        assert yjs.heard == heard


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x02",
        b"\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x02\x05hello",
        b"\x00\x00\x03\xff\xff\xff",
        b"\x00\x07\x00",
        b"\x09abc",
        b"\x80\x04\x95pickle",
        b"\x00\x02" + b"\xa0\x9c\x01" + b"u\x01" * 10_000,
    ],
    ids=lambda data: repr(data[:12]),
)
async def test_hostile_frames_change_nothing_and_end_the_connection_in_the_end(data: bytes) -> None:
    async with node(listen="127.0.0.1:0") as here:
        await here.learn(1)
        before = here.document.whole()
        async with client(here.session.address) as yjs:
            for _ in range(40):
                if not yjs.stream.closed:
                    await yjs.stream.send_bytes(data)
            await until(lambda: yjs.stream.closed)
            assert yjs.stream.close_code == 1008
        assert here.document.whole() == before
        async with client(here.session.address) as yjs:
            await until(lambda: len(yjs.roots["incidents"]) == 1)


async def test_awareness_is_answered_with_nobody_and_such_an_answer_is_not() -> None:
    nobody = b"\x01\x01\x00"
    async with node(listen="127.0.0.1:0") as here, client(here.session.address) as yjs:
        for said in (b"\x01\x05hello", b"\x03", nobody, b"\x01", b"\x01\xff\xff"):
            await yjs.stream.send_bytes(said)
        await here.learn(1)
        # Sent after whatever was answered.
        await until(lambda: len(yjs.roots["incidents"]) == 1)

        assert yjs.others == [nobody] * 4


async def test_awareness_is_no_fault_and_text_is_not_spoken() -> None:
    async with node(listen="127.0.0.1:0") as here, client(here.session.address) as yjs:
        for _ in range(50):
            await yjs.stream.send_bytes(b"\x01\x05hello")
            await yjs.stream.send_bytes(b"\x03")
        await yjs.write(lambda roots: roots["facts"].update({"1/op/0/ada": Map({"a": "[1,1]"})}))
        await until(lambda: here.knowledge.facts_elsewhere("a") == {"ada": 1})
        await yjs.stream.send_str("hello")

        await until(lambda: yjs.stream.closed)

        assert yjs.stream.close_code == 1003


async def test_a_frame_that_is_too_large_ends_the_connection() -> None:
    async with (
        node(listen="127.0.0.1:0", update_bytes=65_536) as here,
        client(here.session.address) as yjs,
    ):
        await yjs.stream.send_bytes(b"\x00\x02" + bytes(100_000))
        await until(lambda: yjs.stream.closed)

        assert yjs.stream.close_code == 1009
        assert here.document.size < 100


async def test_a_reader_that_is_too_slow_gets_what_it_lacks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MOST_WAITING", 20_000)
    async with (
        node(listen="127.0.0.1:0") as here,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{here.session.address}/knowledge") as stream,
    ):
        await until(lambda: len(here.replica.relays) == 1)
        await asyncio.sleep(0.1)
        (socket,) = here.replica.relays
        assert isinstance(socket, connection.Socket)
        # It reads nothing while this happens: nothing here waits.
        for number in range(900):
            here.knowledge.close(incident(number))
            update = here.replica.collect()
            socket.relay(update, here)
        assert socket.is_lagging
        slow: Doc[Map[Any]] = Doc()
        root = slow.get("incidents", type=Map)

        async def read() -> None:
            async for message in stream:
                handle_sync_message(message.data[1:], slow)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(read())
            await until(lambda: sum(len(shelf) for shelf in root.values()) == 900)
            task.cancel()
        assert slow.get_update() == here.document.whole()
        assert socket.counts["overflows"] == 1
        assert socket.counts["sent"] < 300


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Host": "localhost:1"}, 101),
        ({"Host": "[::1]"}, 101),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 101),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
    ],
)
async def test_a_page_of_a_stranger_is_not_answered(headers: dict[str, str], status: int) -> None:
    async with node(listen="127.0.0.1:0") as here:
        assert await answer(here.session.address, headers) == status


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"Authorization": "Bearer wrong-token-of-some-length"}, "", 401),
        ({"Authorization": f"Basic {TOKEN}"}, "", 401),
        ({"Authorization": f"Bearer {TOKEN}"}, "", 101),
        ({"Authorization": f"bearer {TOKEN}", "Host": "proxy.example"}, "", 101),
        ({"Origin": "http://app.example"}, f"?token={TOKEN}", 101),
        ({}, "?token=x", 401),
    ],
)
async def test_with_a_token_it_is_the_token_that_counts(
    headers: dict[str, str], query: str, status: int
) -> None:
    async with node(listen="127.0.0.1:0", token=TOKEN) as here:
        assert await answer(here.session.address, headers, f"/knowledge{query}") == status


async def test_rooms_and_connections_are_as_many_as_there_are() -> None:
    async with node(listen="127.0.0.1:0", connections=1) as here:
        address = here.session.address
        assert await answer(address, {}, "/nobody") == 404
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{address.replace('ws', 'http', 1)}/knowledge") as response,
        ):
            assert response.status == 426
        async with client(address):
            await until(lambda: len(here.replica.relays) == 1)
            assert await answer(address, {}) == 503
        here.session.crashed("node-1")
        assert await answer(address, {}) == 404


async def test_nodes_with_a_token_share_and_one_with_another_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with node("node-1", listen="127.0.0.1:0", token=TOKEN) as one:
        address = f"{one.session.address}/knowledge?x=secret"
        async with node("node-2", peers=[address], token=TOKEN) as two:
            await two.learn(1)
            await until(lambda: len(one.document.incidents()) == 1)
        async with node("node-3", peers=[address], token="another-token-of-length") as three:
            await three.learn(2)
            await until(lambda: "cannot be reached" in caplog.text)
        assert len(one.document.incidents()) == 1
    assert caplog.text.count("cannot be reached") == 1
    assert "secret" not in caplog.text
    assert TOKEN not in caplog.text


async def test_a_port_that_is_taken_stops_the_start() -> None:
    async with node("node-1", listen="127.0.0.1:0") as one:
        taken = one.session.address.removeprefix("ws://")
        with pytest.raises(ConfigError, match=r"\[crdt\] listen is .* cannot be listened on"):
            async with node("node-2", listen=taken):
                pass


def test_a_server_without_a_path_has_the_shared_room() -> None:
    assert with_room("ws://a:1") == "ws://a:1/knowledge"
    assert with_room("wss://a:1/?token=x") == "wss://a:1/knowledge?token=x"
    assert with_room("ws://a:1/node-2") == "ws://a:1/node-2"


async def answer(address: str, headers: dict[str, str], path: str = "/knowledge") -> int:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(f"{address}{path}", headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status
