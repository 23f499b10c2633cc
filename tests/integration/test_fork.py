"""Programs that fork: each span arrives once, whoever made it, and nobody hangs."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.collector import collector

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")]

PROGRAM = Path(__file__).with_name("forking_program.py")
HOWS = ("outside", "inside", "multiprocessing by fork", "workers", "untouched")
ANEW = ("multiprocessing by spawn", "multiprocessing by forkserver")
# The children of these inherit no provider: whose it is makes no difference to how they end.
CASES = [*itertools.product(HOWS, ("ours", "the SDK's")), *((how, "ours") for how in ANEW)]


@pytest.mark.parametrize(("how", "provider"), CASES, ids=[f"{how}, {whose}" for how, whose in CASES])
async def test_parent_and_children_send_their_own_spans_once(how: str, provider: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}
    async with collector() as there:
        start = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM), how, provider, there.url,
            env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                output, log = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        lasted = time.monotonic() - start
        received = Counter(there.names)

    assert (process.returncode, output.decode(), log.decode()) == (0, "done\n", "")
    # The collector is healthy: whoever waits for the limit of a shutdown hangs.
    assert lasted < 5
    by_process = Counter(name.split()[0] for name in received)
    assert set(received.values()) == {1}
    assert by_process[str(process.pid)] == 10
    assert sorted(by_process.values()) == [10] * (1 if how == "untouched" else 5)
