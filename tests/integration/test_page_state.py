"""What the page makes of what it is told: its pure functions, run in the browser they are written for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import mapek_runtime.web

from .browsing import browser, needs_browser

STATIC = Path(mapek_runtime.web.__file__).parent / "static"

STATE = """
async ({ state, batches, ask }) => {
  const live = await import("/static/live.js");
  let now = live.begin(JSON.parse(state));
  const first = now;
  const frozen = JSON.stringify(now);
  for (const batch of batches) now = live.apply(now, batch);
  const shown = live.explained(now.happened);
  return {
    untouched: JSON.stringify(first) === frozen,
    count: live.cyclesOf(now),
    kept: (now.cycles["node-1"] ?? []).map((one) => one.cycle),
    shown: shown.map((item) => [item.name, live.whereOf(item), item.line]),
    own: Object.entries(now.cycles).map(([node, list]) => [node, ...list.map((one) => one.cycle)]),
    latest: Object.entries(now.latest).map(([node, one]) => [node, one.cycle]),
    missed: now.missed,
    halted: now.halted,
  };
}
"""

EVENTS = """
async ({ text, size }) => {
  const { parseEvents } = await import("/static/api.js");
  const given = [];
  let rest = "";
  for (let at = 0; at < text.length; at += size) {
    rest = parseEvents(rest + text.slice(at, at + size), (...event) => given.push(event));
  }
  return [given, rest];
}
"""


@asynccontextmanager
async def module() -> AsyncIterator[Any]:
    """A page that may import what the real one imports, and nothing else."""

    async def nothing(_request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", nothing)
    app.router.add_static("/static", STATIC)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with browser() as chromium:
            page = await chromium.new_page()
            await page.goto("http://127.0.0.1:{1}/".format(*runner.addresses[0]))
            yield page
    finally:
        await runner.cleanup()


def at(seconds: float) -> str:
    return str(1_700_000_000_000_000_000 + round(seconds * 1e9))


def cycle(number: int, *targets: str, node: str = "node-1", success: bool = True) -> dict[str, Any]:
    phases = ("monitor", "analyze", "plan", "execute", "knowledge")
    return {
        "node": node,
        "cycle": number,
        "trace_id": f"{number:032x}",
        "start": at(number / 10),
        "duration_ms": 1.0,
        "success": success,
        "phases": [{"phase": phase, "ms": 0.1, "state": "ok", "reason": ""} for phase in phases],
        "findings": [],
        "actions": [
            {"action": "drain", "target": target, "success": True, "error": ""} for target in targets
        ],
        "rejected": [],
        "line": f"cycle {number}",
    }


def event(event_id: int, seconds: float, name: str, target: str, **fields: Any) -> dict[str, Any]:
    fields["target"] = target
    return {"id": event_id, "time": at(seconds), "name": name, "fields": fields, "line": f"{name} {target}"}


def state(**more: Any) -> dict[str, Any]:
    nodes = [{"id": "node-1", "alive": True, "cycles": 0, "failed": 0, "actions": 0, "refused": 0}]
    return {
        "started": at(0),
        "now": at(9),
        "nodes": nodes,
        "cycles": {},
        "recent": [],
        "halted": None,
        **more,
    }


@needs_browser
async def test_a_cycle_that_is_told_twice_is_there_once_and_a_state_that_was_shown_never_changes() -> None:
    begun = state(cycles={"node-1": [cycle(1), cycle(2)]})
    batch = [["cycle", cycle(n)] for n in (2, 3, 4)]

    async with module() as page:
        told = await page.evaluate(
            STATE,
            {
                "state": json.dumps(begun),
                "batches": [batch, batch, [["lost", {"count": 3}], ["mesh", {"halted": "x"}]]],
            },
        )

    assert told["kept"] == [1, 2, 3, 4]
    assert told["count"] == 4
    assert told["untouched"] is True
    assert told["missed"] == 3
    assert told["halted"] == "x"


@needs_browser
@pytest.mark.parametrize(
    "name",
    [
        "__proto__",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("constructor", "toString", "hasOwnProperty")
        ),
    ],
)
async def test_a_node_may_be_called_as_it_likes(name: str) -> None:
    begun = state(cycles={name: [cycle(1, "a", node=name)]})
    begun["nodes"].append({**begun["nodes"][0], "id": name})
    batches = [[["cycle", cycle(n, "a", node=name)]] for n in (2, 3)]

    async with module() as page:
        told = await page.evaluate(STATE, {"state": json.dumps(begun), "batches": batches})

    assert told["count"] == 3
    assert told["own"] == [[name, 1, 2, 3]]
    assert told["latest"] == [[name, 3]]


@needs_browser
@pytest.mark.slow
async def test_a_fault_is_linked_to_the_first_cycle_that_dealt_with_its_target() -> None:
    other, target = "node-1~node-2", "node-1~node-3"
    batch = [
        ["cycle", cycle(10, target)],
        ["event", event(1, 2.0, "fault.injected", target, number=1)],
        ["cycle", cycle(21, other)],
        ["event", event(2, 2.2, "link.drained", target)],
        ["cycle", cycle(22, target)],
        ["cycle", cycle(23)],
        ["cycle", cycle(24, target)],
        ["event", event(3, 2.5, "fault.healed", target, number=1)],
        ["event", event(4, 9.0, "fault.injected", "node-4", number=2)],
        ["event", event(5, 9.1, "fault.injected", "node-6", number=3)],
        ["cycle", cycle(92, "node-5~node-6")],
    ]

    async with module() as page:
        told = await page.evaluate(STATE, {"state": json.dumps(state()), "batches": [batch]})

    repaired = f"#/trace/{22:032x}"
    drain_of_crashed = ("cycle", f"#/trace/{92:032x}")
    first, second, third, *shown = told["shown"]
    assert tuple(first[:2]) == drain_of_crashed
    assert second[1] == drain_of_crashed[1]
    assert third[1].startswith("#/search?q=")
    assert [tuple(each[:2]) for each in shown] == [
        ("fault.healed", repaired),
        ("cycle", f"#/trace/{24:032x}"),
        # That the link was drained is told by cycle 22 itself.
        ("cycle", repaired),
        ("cycle", f"#/trace/{21:032x}"),
        ("fault.injected", repaired),
        ("cycle", f"#/trace/{10:032x}"),
    ]


@needs_browser
async def test_the_stream_is_understood_however_it_is_cut_into_pieces() -> None:
    text = (
        "retry: 2000\n\n: still here\n\n"
        'event: cycle\nid: a-1\ndata: {"n":1}\n\n'
        'event: mesh\r\ndata: {"line":\r\ndata: "two: lines"}\r\n\r\n'
        "data: unfinished"
    )

    async with module() as page:
        told = [await page.evaluate(EVENTS, {"text": text, "size": size}) for size in (1, 2, 7, 1000)]

    events = [["cycle", '{"n":1}', "a-1"], ["mesh", '{"line":\n"two: lines"}', ""]]
    assert told == [[events, "data: unfinished"]] * 4
