"""A trace of a million spans: every entrance answers a part of it, says so, and takes little memory.

    pytest -m slow tests/integration/test_hostile_trace.py -s

prints what each answer took: its size, its time, how late the loop was, and the memory after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mapek_runtime.store import TraceStore

from .hostile_edge import Victim, victim
from .huge_trace import TRACE, huge_trace, span_id_of
from .stored_traces import Answer

pytestmark = pytest.mark.slow

SPANS = 1_000_000
PAGE = 10_000
MOST_MEMORY = 400
"""Mebibytes that the process may grow by: the trace itself has 150 in the file, and as JSON 320."""
TEN_YEARS = 3650 * 86_400.0
"""The spans are of a fixed time, and are not to be let go for their age."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store is written once."""
    path = tmp_path_factory.mktemp("huge")

    async def write() -> None:
        async with TraceStore(path / "traces.sqlite", max_age=TEN_YEARS) as store:
            await huge_trace(store, SPANS)

    asyncio.run(write())
    return path


@pytest.fixture
async def attacked(folder: Path) -> AsyncIterator[Victim]:
    async with victim(folder, filled=False, max_age=TEN_YEARS) as ready:
        yield ready


async def ask(attacked: Victim, path: str, accept: str = "") -> Answer:
    """Ask, and print what it took."""
    attacked.latest, before = 0.0, _memory()
    began = time.perf_counter()
    answer = await attacked.get(path, headers={"Accept": accept} if accept else None)
    took = time.perf_counter() - began
    print(  # noqa: T201 - the figures are what -s shows
        f"\n{path[:64]:<64} {answer.status} {len(answer.body) / 1e6:7.2f} MB {took:6.2f} s, "
        f"loop {1e3 * attacked.latest:4.0f} ms late, memory {before} -> {_memory()} MiB",
        end="",
    )
    assert _memory() - before < MOST_MEMORY
    return answer


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


@pytest.mark.parametrize("offset", [0, 500_000, SPANS - PAGE])
async def test_it_is_given_in_pages(attacked: Victim, offset: int) -> None:
    answer = (await ask(attacked, f"/page/trace/{TRACE}?offset={offset}")).json

    assert (answer["total"], answer["offset"]) == (SPANS, offset)
    assert [span["span_id"] for span in answer["spans"]] == [
        span_id_of(number) for number in range(offset, offset + PAGE)
    ]


async def test_behind_its_end_there_are_no_spans(attacked: Victim) -> None:
    answer = await ask(attacked, f"/page/trace/{TRACE}?offset={SPANS}")

    assert (answer.status, answer.json["spans"]) == (200, [])


async def test_it_is_downloaded_whole_while_it_is_read(attacked: Victim) -> None:
    before = _memory()
    most, spans, last = before, 0, b""
    attacked.latest = 0.0
    url = f"{attacked.server.address}/page/trace/{TRACE}/otlp"
    async with attacked.client.get(url, timeout=None) as reply:
        async for chunk in reply.content.iter_chunked(1 << 20):
            # A key may lie across two chunks.
            spans += (last + chunk).count(b'"spanId"') - last.count(b'"spanId"')
            last = chunk[-16:]
            most = max(most, _memory())

    assert reply.status == 200
    assert last.endswith(b"]}]}]}")
    assert spans == SPANS
    assert most - before < MOST_MEMORY


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (f"/api/v2/traces/{TRACE}", "application/protobuf"),
        (f"/api/v2/traces/{TRACE}", ""),
        (f"/api/traces/{TRACE}", "application/protobuf"),
        (f"/api/traces/{TRACE}", ""),
        (f"/api/v3/traces/{TRACE}", ""),
        ("/api/traces?service=huge&limit=1500", ""),
        ("/api/v3/traces?query.serviceName=huge", ""),
    ],
)
async def test_other_programs_are_given_a_part_and_told_so(attacked: Victim, path: str, accept: str) -> None:
    answer = await ask(attacked, path, accept)

    assert answer.status == 200
    assert len(answer.body) < 30_000_000
    told = answer.headers.get("Warning", "").encode() + answer.body
    assert b"has 1000000 spans; only 50000 of them" in told


@pytest.mark.parametrize(
    "query",
    [
        "{ }",
        "{ span.number = 999999 }",
        '{ name = "step 1" }',
        "{ } >> { }",
        "{ } << { }",
        "{ } ~ { }",
        '{ name = "step 1" } >> { span.number > 999990 }',
        "{ } | by(span.number)",
        "{ } | by(span.node_id) | count() > 2",
        "{ span:childCount = 10 }",
        "{ trace:duration > 1ms }",
        '{ span.node_id =~ "(a|node)-(1|2|3)*" }',
    ],
)
async def test_questions_about_it_are_answered_within_their_time(attacked: Victim, query: str) -> None:
    path = "/page/search?q=" + quote(query)

    async with asyncio.timeout(30):
        search = await ask(attacked, path)
        durations = await ask(attacked, f"/page/durations?limit=20000&q={quote(query)}")
        tempo = await ask(attacked, f"/api/search?limit=1500&spss=100&q={quote(query)}")

    assert [each.status for each in (search, durations, tempo)] == [200] * 3
    assert max(len(each.body) for each in (search, durations, tempo)) < 10_000_000
    # What needed more than its newest spans may not be there, and then that is said.
    assert search.json["traces"] or not search.json["complete"]


async def test_the_terminal_shows_a_part_of_it(folder: Path) -> None:
    command = (sys.executable, "-m", "mapek_runtime.service.cli", "traces", "show", TRACE,
               "--store", str(folder / "traces.sqlite"), "--json")  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, err = await process.communicate()

    assert process.returncode == 0, err
    assert len(out) < 30_000_000
    assert json.loads(out)
