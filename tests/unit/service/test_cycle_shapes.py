"""A cycle and an event as the page shows them: whole, short, and in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from opentelemetry import trace

from mapek_runtime import Action, Cycle, Finding, Rejection
from mapek_runtime.config import LoopSettings
from mapek_runtime.export.encode import encode_spans
from mapek_runtime.service.cycle_shapes import show_cycle
from mapek_runtime.service.elsewhere import read_cycle
from mapek_runtime.service.sentences import describe_evidence, event_line
from mapek_runtime.testing import Recorder, run_cycle
from mapek_runtime.web.state import CycleShown
from tests.unit.service.links import RESTART, Blind, Calm, Link


async def shown(*plugins: object, **more: Any) -> CycleShown:
    return show_cycle(await run_cycle(*plugins, **more), asyncio.get_running_loop().time())


async def test_a_cycle_in_which_nothing_is_found_says_so() -> None:
    cycle = await shown(Calm())

    assert cycle.line == "nothing found"
    assert [(phase.phase, phase.state, phase.reason) for phase in cycle.phases] == [
        ("monitor", "ok", ""),
        ("analyze", "ok", ""),
        ("plan", "skipped", "no findings"),
        ("execute", "skipped", "no actions"),
        ("knowledge", "ok", ""),
    ]


async def test_a_cycle_that_acts_says_what_it_found_and_did_and_did_not() -> None:
    cycle = await shown(Link())

    assert cycle.line == (
        "link a~b lossy: 42% of the probes are lost (in), link.loss_in 0.42 > 0.05 → drain a~b: done"
    )
    assert [(action.action, action.success) for action in cycle.actions] == [("drain", True)]
    assert [(each.action, each.rule) for each in cycle.rejected] == [("restart", "too much")]


async def test_a_cycle_that_only_refuses_says_why() -> None:
    class Careful(Link):
        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            return [Rejection(action=RESTART, rule="too much", reason="a restart hurts every link of b")]

    cycle = await shown(Careful())

    assert cycle.line.endswith(" → no restart of b: a restart hurts every link of b")


def test_of_the_evidence_that_is_told_which_is_beyond_its_threshold() -> None:
    evidence = [("score", 9.0, 5.0), ("loss", 0.5, 0.9)]

    assert describe_evidence("half is lost", evidence) == "half is lost, score 9 > 5"
    assert describe_evidence("", evidence[1:]) == "loss 0.5 < 0.9"
    assert describe_evidence("half is lost", []) == "half is lost"


async def test_an_action_that_fails_says_how_and_its_phase_has_failed() -> None:
    cycle = await shown(Link(error="the link is welded shut"))

    assert "drain a~b: the link is welded shut" in cycle.line
    assert cycle.phases[3].state == "failed"
    assert cycle.phases[3].reason == "drain a~b: the link is welded shut"
    assert (cycle.success, cycle.actions[0].success) == (False, False)


async def test_a_dry_run_says_that_nothing_was_carried_out() -> None:
    cycle = await shown(Link(), settings=LoopSettings(dry_run=True))

    assert "drain a~b: not carried out (dry run)" in cycle.line
    assert (cycle.dry_run, cycle.actions[0].success) == (True, None)


async def test_a_phase_that_failed_names_the_plugin_and_what_it_raised() -> None:
    cycle = await shown(Blind())

    assert cycle.phases[0].state == "failed"
    assert cycle.phases[0].reason == "blind: LookupError: no sensor"
    assert cycle.line == "monitor failed: blind: LookupError: no sensor"


async def test_a_cycle_that_found_very_much_stays_small_and_says_how_much_there_is() -> None:
    class Everything(Calm):
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return [Finding(target=f"t{n}", problem="hot", message="x" * 100) for n in range(10_000)]

    cycle = await shown(Everything())

    assert len(cycle.line) <= 480
    assert cycle.line.endswith("; and 9997 more")
    assert (len(cycle.findings), cycle.more) == (10, 9990)
    assert len(msgspec.json.encode(cycle)) < 4096


async def test_no_text_of_a_cycle_is_long() -> None:
    long = "x" * 100_000

    class Wordy(Calm):
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return [Finding(target=long, problem=long, message=long)]

        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            action = Action(name=long, target=long)
            return [action, Rejection(action=Action(name=long, target=long), rule=long, reason=long)]

    cycle = await shown(Wordy())

    assert (len(cycle.findings), len(cycle.rejected)) == (1, 1)
    assert len(cycle.line) <= 480
    assert len(msgspec.json.encode(cycle)) < 8192


async def test_a_cycle_of_another_node_looks_as_it_does_where_it_ran(recorder: Recorder) -> None:
    class Refused(Link):
        async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
            return [*await super().plan(cycle), Action(name="reroute", target="c")]

    for plugins, settings in (
        ((Calm(),), None),
        ((Link(),), None),
        ((Refused(error="no"),), None),
        ((Link(),), LoopSettings(dry_run=True)),
    ):
        recorder.clear()
        cycle = await shown(*plugins, settings=settings, node="far-1", trigger="alarm")

        read = read_cycle(encode_spans(recorder.spans))

        assert read is not None
        assert abs(int(read.start) - int(cycle.start)) < 10**9
        plain = [
            msgspec.structs.replace(
                each,
                start="",
                duration_ms=0.0,
                phases=tuple(msgspec.structs.replace(phase, ms=0.0) for phase in each.phases),
            )
            for each in (read, cycle)
        ]
        # A status of a span has other words for the same failure.
        assert [phase.state for phase in read.phases] == [phase.state for phase in cycle.phases]
        assert msgspec.structs.replace(plain[0], phases=()) == msgspec.structs.replace(plain[1], phases=())


async def test_a_trace_without_a_cycle_is_none_of_the_strip(recorder: Recorder) -> None:
    with trace.get_tracer("x").start_as_current_span("GET /"):
        pass

    assert read_cycle(encode_spans(recorder.spans)) is None


# Events


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        (
            "fault.injected",
            {"number": 3, "kind": "link.loss", "target": "a~b", "seconds": 9.5},
            "fault: link.loss on a~b for 9.5 s",
        ),
        (
            "fault.injected",
            {"number": 3, "kind": "link.loss", "target": "a~b", "seconds": None, "by": "page"},
            "fault: link.loss on a~b, by hand",
        ),
        (
            "fault.healed",
            {"number": 3, "kind": "link.loss", "target": "a~b", "repair_ms": 312.4},
            "healed after 312 ms: link.loss on a~b",
        ),
        ("link.drained", {"node": "a", "target": "a~b"}, "a drained a~b"),
        ("link.drained", {"other": 1}, "link.drained other=1"),
        (
            "fault.healed",
            {"repair_ms": "soon", "kind": 1, "target": 2},
            "fault.healed repair_ms=soon kind=1 target=2",
        ),
        ("tea.ready", {"cups": 2, "for": ["a", "b"]}, "tea.ready cups=2 for=a, b"),
    ],
    ids=["chaos", "page", "healed", "drained", "another's name", "another's type", "unknown"],
)
def test_an_event_is_a_sentence(name: str, fields: dict[str, Any], line: str) -> None:
    assert event_line(name, fields) == line
