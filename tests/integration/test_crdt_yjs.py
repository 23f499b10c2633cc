"""Programs that know of nothing but Yjs: yjs and y-websocket from npm, in Node.js, join and converge."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mapek_domains.crdt.document import Document
from mapek_domains.crdt.entries import KINDS
from mapek_domains.crdt.update import read_state
from tests.integration.sharing_node import node
from tests.unit.crdt.net import leaves, until

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parent / "yjs"
LIMIT = 60.0
_UNREACHABLE = ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with the packages it is made of."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)} here (Debian: nodejs, npm)")
    folder = tmp_path_factory.mktemp("yjs")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(SOURCES / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and any(word in done.stderr for word in _UNREACHABLE):
        pytest.skip("npm reaches no registry from which it could fetch yjs, y-websocket and ws")
    assert not done.returncode, done.stderr
    return folder / "client.mjs"


class Client:
    """A running client, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.told.append(json.loads(line))

    async def do(self, name: str, **more: object) -> None:
        """Let it carry out a command."""
        count = self.count(name)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": name, **more}).encode() + b"\n")
        await until(lambda: self.count(name) > count, limit=LIMIT)

    def count(self, event: str) -> int:
        return sum(each["event"] == event for each in self.told)

    @property
    def id(self) -> int:
        """Its client id, which all it writes carries."""
        return int(self.told[0]["client"])

    @property
    def document(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        return dict(self.told[-1]["document"]) if self.told else {}

    def is_as(self, document: Document) -> bool:
        """Whether the two have the same state vector and the same content."""
        if not self.told:
            return False
        there = {
            (kind, shelf, key): value
            for kind in KINDS
            for shelf, entries in self.document[kind].items()
            for key, value in entries.items()
        }
        state = read_state(bytes.fromhex(self.told[-1]["state"]))
        return state == read_state(document.state()) and there == leaves(document)


@asynccontextmanager
async def client(program: Path, address: str, room: str = "knowledge") -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        "node", str(program), address, room,
        cwd=program.parent, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.TaskGroup() as group:
            found = Client(process)
            following = group.create_task(found.follow())
            await until(lambda: found.count("synced") == 1, limit=LIMIT)
            yield found
            assert process.stdin is not None
            process.stdin.write(b'{"do": "end"}\n')
            async with asyncio.timeout(LIMIT):
                await following
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stderr is not None
        errors = (await process.stderr.read()).decode()
        await process.wait()
    assert (process.returncode, errors) == (0, "")


def shelf(yjs: Client, author: str) -> str:
    """The shelf that a client writes to in that name."""
    return f"1/{yjs.id:x}/0/{author}"


async def test_y_websocket_joins_unchanged_and_both_write(program: Path) -> None:
    async with node(listen="127.0.0.1:0") as here:
        await here.learn(1)
        here.knowledge.remember("mesh.normal", 0.25)
        await here.learn(2)
        async with client(program, here.session.address) as yjs:
            assert yjs.is_as(here.document)
            assert sum(map(len, yjs.document["incidents"].values())) == 2

            await yjs.do("put", kind="goals", shelf=shelf(yjs, "ada"), key="loss", value="[1,0.5]")
            await yjs.do("put", kind="facts", shelf=shelf(yjs, "ada"), key="load", value="[1,7]")
            await yjs.do("put", kind="facts", shelf=shelf(yjs, "ada"), key="load", value="[2,8]")
            await until(lambda: here.knowledge.facts_elsewhere("load") == {"ada": 8})
            await here.learn(3)

            await until(lambda: yjs.is_as(here.document))
            assert here.knowledge.goal("loss") == 0.5
            assert here.knowledge.goals()["loss"].author == "ada"
            assert sum(map(len, yjs.document["incidents"].values())) == 3
        assert not here.document.refused
        assert not here.document.view.ignored


async def test_what_both_wrote_while_they_were_apart_is_in_both_afterwards(program: Path) -> None:
    async with node(listen="127.0.0.1:0") as here, client(program, here.session.address, "node-1") as yjs:
        await yjs.do("away")
        await until(lambda: not here.replica.relays)
        await yjs.do("put", kind="goals", shelf=shelf(yjs, "ada"), key="loss", value="[1,0.5]")
        await here.learn(1)
        assert not yjs.is_as(here.document)

        await yjs.do("back")

        await until(lambda: yjs.count("synced") == 2 and yjs.is_as(here.document))
        assert here.knowledge.goal("loss") == 0.5


async def test_junk_of_a_client_is_counted_and_does_no_harm(program: Path) -> None:
    async with (
        node(listen="127.0.0.1:0") as here,
        client(program, here.session.address) as hostile,
        client(program, here.session.address) as yjs,
    ):
        await here.learn(1)
        at = shelf(hostile, "eve")
        # Well-formed for Yjs, and in its place, but not what stands there: it is passed over.
        await hostile.do("put", kind="goals", shelf=at, key="loss", value="nonsense")
        await hostile.do("put", kind="goals", shelf="no shelf", key="loss", value="[1,1]")
        await hostile.do("put", kind="incidents", shelf=at, key="0" * 16, value='["a","b",1,"c",2,1,true,""]')
        await until(lambda: sum(here.document.view.ignored.values()) == 3)
        await until(lambda: yjs.is_as(here.document) and hostile.is_as(here.document))
        before = here.document.whole()
        # No type of this document: nothing of it is taken.
        await hostile.do("text", words="hello")
        await until(lambda: here.document.refused["unsupported"] > 0)

        assert here.document.whole() == before
        assert here.knowledge.goals() == {}
        assert len(here.knowledge.incidents()) == 1
        await yjs.do("put", kind="goals", shelf=shelf(yjs, "ada"), key="loss", value="[1,0.5]")
        await until(lambda: here.knowledge.goal("loss") == 0.5)
        # And whoever wrote it still hears of everything.
        await until(lambda: shelf(yjs, "ada") in hostile.document["goals"])


async def test_a_client_that_hears_of_no_change_stays_connected(program: Path) -> None:
    async with node(listen="127.0.0.1:0") as here, client(program, here.session.address) as yjs:
        # y-websocket gives up whoever says nothing for 30 s, and looks every 3 s.
        await asyncio.sleep(36.0)

        assert yjs.count("disconnected") == 0
        await here.learn(1)
        await until(lambda: yjs.is_as(here.document))
        assert yjs.count("connected") == 1
