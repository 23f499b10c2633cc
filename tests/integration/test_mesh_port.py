"""The socket of a node: what it receives belongs to no trace that was open when it was bound."""

from __future__ import annotations

import asyncio

from opentelemetry import trace

from mapek_domains.mesh.udp.port import UdpPort
from mapek_runtime.testing import Recorder


async def test_what_arrives_is_not_part_of_the_cycle_that_opened_the_port(recorder: Recorder) -> None:
    received: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    port = UdpPort()

    def receive(_data: bytes, _sender: tuple[str, int]) -> None:
        received.set_result(trace.get_current_span().get_span_context().is_valid)

    with recorder.provider.get_tracer("tests").start_as_current_span("a cycle restarts a node"):
        await port.open(("127.0.0.1", 0), receive, name="node-1")
    try:
        port.send(b"hello", port.address)
        async with asyncio.timeout(10):
            assert await received is False
    finally:
        port.close()
