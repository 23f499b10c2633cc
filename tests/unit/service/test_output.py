"""What stands on standard output, and that nobody waits for its reader."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

from rich.console import Console

from mapek_runtime.export import Statistics
from mapek_runtime.loop import FaultReport, LinkView, RuntimeStatistics
from mapek_runtime.service.live import Picture, draw
from mapek_runtime.service.output import JsonLines, PlainLines, describe_event
from mapek_runtime.service.summary import Summary

COUNTS = RuntimeStatistics(
    cycles=10, failed=1, cancelled=0, ticks_skipped=2, coalesced=0, actions=3, actions_failed=1, rejected=4
)
SUMMARY = Summary(
    seconds=1.0,
    nodes={"node-1": COUNTS},
    reports=(),
    spans=Statistics(1, 0, 1, {}, 0, 0, 0, 0, {}),
    loop_lag_ms={"median": 0.0, "p99": 0.0, "max": 0.0},
)


class StuckReader(io.StringIO):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return super().write(text)


class GoneReader(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


async def test_the_summary_is_the_last_of_the_json_lines() -> None:
    out = io.StringIO()
    lines = JsonLines(out, lambda: 2.5)

    lines.event("link.drained", {"target": "a~b"})
    await lines.finish(SUMMARY)

    first, last = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {"event": "link.drained", "at": 2.5, "target": "a~b"}
    assert last == SUMMARY.as_dict()


async def test_a_reader_that_is_stuck_does_not_hold_up_the_loop() -> None:
    out = StuckReader()
    lines = JsonLines(out, lambda: 0.0)
    writing = asyncio.create_task(lines.run())

    for number in range(100):
        lines.event("tick", {"number": number})
        await asyncio.sleep(0)
    assert out.getvalue() == ""
    out.go.set()
    writing.cancel()
    await asyncio.wait((writing,))
    await lines.finish(SUMMARY)

    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["number"] for event in events[:-1]] == list(range(100))
    assert events[-1]["event"] == "summary"


async def test_a_reader_that_is_gone_is_not_an_error() -> None:
    lines = PlainLines(GoneReader(), lambda: 0.0)

    lines.event("tick", {})
    await lines.finish(SUMMARY)


async def test_a_field_cannot_take_the_place_of_the_events_name() -> None:
    out = io.StringIO()
    lines = JsonLines(out, lambda: 1.0)

    lines.event("real", {"event": "false", "at": "never"})
    await lines.finish(SUMMARY)

    assert json.loads(out.getvalue().splitlines()[0]) == {"event": "real", "at": 1.0}


def test_an_event_in_words_leaves_out_what_is_empty() -> None:
    fields: dict[str, Any] = {
        "node": "a",
        "errors": [],
        "actions": ["drain x", "drain y"],
        "ms": 1.5,
        "n": None,
    }

    assert describe_event("cycle", fields).split() == [
        "cycle",
        "node=a",
        "actions=drain",
        "x,",
        "drain",
        "y",
        "ms=1.5",
    ]


def test_what_others_write_gives_no_orders_to_the_terminal() -> None:
    line = describe_event("halted", {"reason": "a\x1b[2J\nfake line\u202e\udcff"})

    assert line == "halted           reason=a [2J fake line"


def test_the_picture_shows_links_loops_routes_and_what_happened() -> None:
    console = Console(file=io.StringIO(), width=200, record=True)
    picture = Picture(
        elapsed=12.0,
        title="mapek: 2 nodes",
        links=(LinkView(a="node-1", b="node-2", state="drained", loss=0.6, rtt=0.001, fault="link.loss"),),
        nodes={"node-1": (True, COUNTS), "node-2": (False, COUNTS)},
        routes={("node-1", "node-2"): ("node-1", "node-3", "node-2"), ("node-2", "node-1"): ()},
        reports=(
            FaultReport(
                injected=2, healed=1, repair_seconds=(0.25,), wrong_actions=0, sent=100, delivered=99
            ),
        ),
        events=("    1.00  [bold]not markup",),
    )

    console.print(draw(picture))

    text = console.export_text()
    for words in (
        "mapek: 2 nodes", "20 cycles", "2 faults, 1 healed", "repaired in 250 ms", "99.00% of 100",
        "node-1 - node-2", "drained", "60%", "1.00 ms", "link.loss", "crashed", "via 3", "none",
        "[bold]not markup",
    ):  # fmt: skip
        assert words in text
