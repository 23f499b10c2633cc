"""After a fork the child holds no connection of its parent, and the parent does not notice."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

import pytest

from tests.integration.certificates import authority
from tests.integration.collector import collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

PROGRAM = """
import asyncio, gc, os, sys
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter

def descriptors():
    return {number: os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{number}")}

kind, url = sys.argv[1], sys.argv[2]
exporter = OTLPSpanExporter(url, certificate_file=sys.argv[3] if len(sys.argv) > 3 else None)
if kind == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
before = set(descriptors().values())
async def two_at_once():
    await asyncio.gather(exporter.send(b"parent 1", 1), exporter.send(b"parent 2", 1))
loop.run_until_complete(two_at_once())
mine = {link for link in descriptors().values() if link not in before and link.startswith("socket:")}
assert len(mine) == 2, mine

child = os.fork()
if child == 0:
    exporter.after_fork()
    left = mine & set(descriptors().values())
    assert not left, left
    # Whatever closes a descriptor by its old number from now on hits one of these.
    files = [open(sys.executable, "rb") for _ in range(4)]
    asyncio.run(exporter.send(b"child", 1))
    exporter.after_fork()
    exporter = None
    gc.collect()
    for file in files:
        assert len(file.read(4)) == 4
        file.close()
    loop = None
    gc.collect()
    if kind == "uvloop":
        # At the end of the interpreter, uvloop crashes on any open loop of a parent.
        os._exit(0)
    sys.exit(0)

_, status = os.waitpid(child, 0)
assert status == 0, status
loop.run_until_complete(two_at_once())
loop.run_until_complete(exporter.aclose())
loop.close()
"""


@pytest.mark.parametrize(
    ("loop", "way"),
    [("asyncio", "tcp"), ("asyncio", "tls"), ("asyncio", "unix"), ("uvloop", "tcp"), ("uvloop", "tls")],
)
async def test_a_child_lets_go_and_the_parent_keeps_its_connections(
    loop: str, way: str, tmp_path: Path
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    tls, files = None, []
    if way == "tls":
        ours = authority(tmp_path)
        issued = ours.issue("server")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(issued.certificate, issued.key)
        files = [ours.certificate]
    async with collector(tls=tls, path=str(tmp_path / "c.sock") if way == "unix" else None) as there:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", PROGRAM, loop, there.url, *files),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), 60)

        assert errors.decode() == ""
        assert process.returncode == 0
        assert sorted(there.bodies) == [b"child", *[b"parent 1"] * 2, *[b"parent 2"] * 2]
        # Two of the parent, which it used again, and one of the child.
        assert there.connections == 3


CONNECTING = """
import asyncio, os, socket, sys
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter

def sockets():
    found = set()
    for number in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{number}"):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {link for link in found if link.startswith("socket:")}

# A queue of connections that is full: the next one is not answered at all.
server = socket.create_server(("127.0.0.1", 0), backlog=0)
waiting = [socket.create_connection(server.getsockname()) for _ in range(1)]
loop = asyncio.new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
before = sockets()
exporter = OTLPSpanExporter(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces")
sending = loop.create_task(exporter.send(b"body", 1))
loop.run_until_complete(asyncio.sleep(0.1))
assert len(sockets() - before) == 1 and not sending.done()

child = os.fork()
if child == 0:
    exporter.after_fork()
    os._exit(len(sockets() - before))
_, status = os.waitpid(child, 0)
assert status == 0, status
sending.cancel()
loop.run_until_complete(asyncio.wait({sending}))
loop.run_until_complete(exporter.aclose())
loop.close()
server.close()
waiting[0].close()
"""


async def test_a_child_lets_go_of_a_connection_that_its_parent_is_opening() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", CONNECTING, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)

    assert errors.decode() == ""
    assert process.returncode == 0
