"""One cycle: a trace of six spans that tells what really happened, whatever a plugin does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from mapek_runtime import Action, Cycle, Evidence, Finding, Insight, Observation, Outcome, Rejection
from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import PhaseFailed, PhaseTimeout, PluginContractError
from mapek_runtime.testing import AutojumpClock, Recorder, run_cycle, tree

PHASES = ["mape_k.monitor", "mape_k.analyze", "mape_k.plan", "mape_k.execute", "mape_k.knowledge"]
HOT = Finding(
    target="room",
    problem="hot",
    confidence=0.8,
    evidence=(Evidence(metric="temperature", value=31.0, threshold=25.0, unit="Cel", rule="above"),),
    message="31 degrees",
)
COOL = Action(name="cool", target="room", reason="it is hot", finding=HOT, parameters={"power": 2})
OPEN = Action(name="open window", target="room", finding=HOT)


class Room:
    """A monitor, analyzer, planner, executor and learner that has always something to do."""

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="temperature", value=31.0, target="room")]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [HOT]

    async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
        return [COOL, Rejection(action=OPEN, rule="rain", reason="it rains")]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True, changed="the cooler runs")

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        return [Insight(name="noted", target="room", value=31.0, message="it was hot")]


class Sensor:
    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="pressure", value=1.0, target="pipe")]


class Broken:
    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        raise LookupError("no sensor")


class Hanging:
    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        await asyncio.sleep(3600)
        return []


class Swallowing:
    """A plugin that does what no plugin may: it holds its cancellation back."""

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return []


def phases(recorder: Recorder) -> list[str]:
    return [span.name for span in recorder.children(recorder.one("mape_k.cycle"))]


def events(recorder: Recorder, span: str, name: str) -> list[dict[str, Any]]:
    return [dict(event.attributes or {}) for event in recorder.one(span).events if event.name == name]


async def test_a_cycle_is_one_trace_of_six_spans_with_what_happened(recorder: Recorder) -> None:
    cycle = await run_cycle(Room(), node="node-1", trigger="test")

    assert cycle.success
    assert recorder.tree() == tree("""
        mape_k.cycle node_id=node-1 cycle=1 trigger=test anomalies_detected=1 actions_planned=1 actions_executed=1 success=true
          mape_k.monitor node_id=node-1 phase=monitor metrics_count=1
          mape_k.analyze node_id=node-1 phase=analyze anomalies_detected=1 confidence=0.8 @events=[finding]
          mape_k.plan node_id=node-1 phase=plan actions_planned=1 @events=[option.chosen,option.rejected]
          mape_k.execute node_id=node-1 phase=execute actions_executed=1 success=true @events=[action]
          mape_k.knowledge node_id=node-1 phase=knowledge insights_stored=1 @events=[insight]
    """)  # noqa: E501 - a line a span
    assert len({span.context.trace_id for span in recorder.spans if span.context}) == 1


async def test_the_duration_of_the_cycle_stands_on_its_span(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    class Slow:
        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            await asyncio.sleep(2)
            return []

    cycle = await run_cycle(Slow())

    assert cycle.duration == 2
    assert cycle.phase_seconds["monitor"] == 2
    assert (recorder.one("mape_k.cycle").attributes or {})["duration_ms"] == 2000.0


async def test_a_decision_explains_itself(recorder: Recorder) -> None:
    await run_cycle(Room())

    assert events(recorder, "mape_k.analyze", "finding") == [
        {
            "target": "room",
            "problem": "hot",
            "confidence": 0.8,
            "severity": 1.0,
            "anomaly": True,
            "message": "31 degrees",
            "evidence.metric": ("temperature",),
            "evidence.value": (31.0,),
            "evidence.threshold": (25.0,),
            "evidence.unit": ("Cel",),
            "evidence.rule": ("above",),
        }
    ]
    chosen = events(recorder, "mape_k.plan", "option.chosen")
    assert chosen[0]["reason"] == "it is hot"
    assert chosen[0]["parameter.power"] == 2
    assert events(recorder, "mape_k.plan", "option.rejected") == [
        {"action": "open window", "target": "room", "rule": "rain", "reason": "it rains"}
    ]
    assert events(recorder, "mape_k.execute", "action")[0]["changed"] == "the cooler runs"
    assert events(recorder, "mape_k.knowledge", "insight")[0]["message"] == "it was hot"


@pytest.mark.parametrize(
    ("plugins", "reasons"),
    [
        pytest.param(
            [Sensor()],
            ["no plugin has the method 'analyze'", "no findings", "no actions"],
            id="nobody analyzes",
        ),
        pytest.param([Broken()], ["monitor failed"] * 3, id="monitor failed"),
    ],
)
async def test_a_phase_that_does_not_run_still_has_its_span_and_the_reason(
    plugins: list[object], reasons: list[str], recorder: Recorder
) -> None:
    await run_cycle(*plugins)

    skipped = [recorder.one(name).attributes or {} for name in PHASES[1:4]]
    assert phases(recorder) == PHASES
    assert [attributes["reason"] for attributes in skipped] == reasons
    assert all(attributes["skipped"] is True for attributes in skipped)


async def test_a_dry_run_plans_and_shows_and_executes_nothing(recorder: Recorder) -> None:
    cycle = await run_cycle(Room(), settings=LoopSettings(dry_run=True))

    assert cycle.actions == [COOL]
    assert cycle.outcomes == ()
    assert recorder.tree() == tree("""
        mape_k.cycle actions_planned=1 actions_executed=0 success=true
          mape_k.monitor
          mape_k.analyze
          mape_k.plan actions_planned=1 @events=[option.chosen,option.rejected]
          mape_k.execute skipped=true reason="dry run" actions_executed=0
          mape_k.knowledge
    """)


async def test_a_failing_plugin_does_not_take_the_others_with_it(recorder: Recorder) -> None:
    cycle = await run_cycle(Broken(), Sensor())

    assert cycle.readings("pressure") == {"pipe": 1.0}
    assert [(phase, plugin) for phase, plugin, _ in cycle.failures] == [("monitor", "Broken")]
    assert not cycle.failed
    assert recorder.tree() == tree("""
        mape_k.cycle success=false @status=error
          mape_k.monitor metrics_count=1 plugins_failed=1 @status=error @events=[exception]
          mape_k.analyze
          mape_k.plan
          mape_k.execute
          mape_k.knowledge @status=unset
    """)
    assert "LookupError: no sensor" in str(recorder.one("mape_k.monitor").status.description)


async def test_a_phase_fails_when_all_its_plugins_do(recorder: Recorder) -> None:
    cycle = await run_cycle(Broken())

    assert cycle.failed == ("monitor",)
    assert not cycle.success
    attributes = recorder.one("mape_k.monitor").attributes or {}
    assert attributes["error.type"] == PhaseFailed.__name__
    assert recorder.one("mape_k.cycle").status.status_code is StatusCode.ERROR


async def test_a_phase_that_runs_past_its_limit_is_ended(recorder: Recorder, autojump: AutojumpClock) -> None:
    cycle = await run_cycle(Hanging(), settings=LoopSettings(monitor_limit=5))

    assert autojump.elapsed == 5
    assert [type(error) for _, _, error in cycle.failures] == [PhaseTimeout]
    assert (recorder.one("mape_k.monitor").attributes or {})["error.type"] == "PhaseTimeout"
    assert phases(recorder) == PHASES


async def test_a_plugin_that_swallows_the_end_of_its_limit_is_found_out(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    cycle = await run_cycle(Swallowing(), settings=LoopSettings(monitor_limit=5))

    assert cycle.failed == ("monitor",)
    assert "swallowed the cancellation" in str(recorder.one("mape_k.monitor").status.description)


async def test_a_failed_phase_is_tried_again_after_a_growing_delay(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    calls: list[float] = []

    class Recovers:
        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            calls.append(autojump.elapsed)
            if len(calls) < 3:
                raise LookupError("not yet")
            return [Observation(name="x", value=1.0)]

    cycle = await run_cycle(Recovers(), settings=LoopSettings(monitor_retries=3, retry_delay=1))

    assert calls == [0, 1, 3]
    assert cycle.success
    assert recorder.tree() == tree("""
        mape_k.cycle success=true
          mape_k.monitor metrics_count=1 @status=unset @events=[retry,retry]
          mape_k.analyze
          mape_k.plan
          mape_k.execute
          mape_k.knowledge
    """)


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
async def test_a_cancelled_cycle_still_has_its_five_children(turns: int, recorder: Recorder) -> None:
    task = asyncio.create_task(run_cycle(Hanging()))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel("enough")
    await asyncio.wait((task,))

    assert task.cancelled()
    assert phases(recorder) == PHASES
    cycle = recorder.one("mape_k.cycle").attributes or {}
    assert cycle["asyncio.cancelled"] is True
    assert cycle["success"] is False
    assert recorder.open == ()


async def test_the_phase_that_was_cancelled_says_so(recorder: Recorder) -> None:
    task = asyncio.create_task(run_cycle(Hanging()))
    for _ in range(4):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))

    assert recorder.tree() == tree("""
        mape_k.cycle asyncio.cancelled=true
          mape_k.monitor asyncio.cancelled=true @status=unset
          mape_k.analyze skipped=true reason="the cycle was cancelled"
          mape_k.plan skipped=true
          mape_k.execute skipped=true
          mape_k.knowledge skipped=true
    """)


async def test_a_plugin_that_swallows_cancellation_does_not_carry_the_cycle_on(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    executed: list[Action] = []

    class Acts:
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return [HOT]

        async def plan(self, cycle: Cycle) -> Sequence[Action]:
            return [COOL]

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            executed.append(action)
            return Outcome(action=action, success=True)

    task = asyncio.create_task(run_cycle(Swallowing(), Acts()))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert executed == []
    assert phases(recorder) == PHASES


@pytest.mark.parametrize(
    ("phase", "value"),
    [("monitor", [1.0]), ("analyze", ["hot"]), ("plan", [HOT]), ("learn", [None]), ("monitor", 7)],
    ids=["a number", "a text", "a finding as a plan", "None", "not iterable"],
)
async def test_a_plugin_that_returns_the_wrong_thing_is_a_failing_plugin(phase: str, value: object) -> None:
    class Wrong:
        name = "wrong"

    async def method(cycle: Cycle) -> object:
        return value

    wrong = Wrong()
    setattr(wrong, phase, method)

    cycle = await run_cycle(Room(), wrong)

    assert [plugin for _, plugin, _ in cycle.failures] == ["wrong"]
    assert isinstance(cycle.failures[0][2], PluginContractError | TypeError)
    assert len(cycle.outcomes) == 1


async def test_nothing_returned_is_nothing_found() -> None:
    class Silent:
        async def monitor(self, cycle: Cycle) -> None:
            return None

    cycle = await run_cycle(Silent())

    assert cycle.observations == []
    assert cycle.success


async def test_monitors_run_at_the_same_time(autojump: AutojumpClock) -> None:
    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            await asyncio.sleep(3)
            return [Observation(name=self.name, value=1.0)]

    cycle = await run_cycle(Slow("a"), Slow("b"))

    assert autojump.elapsed == 3
    assert [observation.name for observation in cycle.observations] == ["a", "b"]
