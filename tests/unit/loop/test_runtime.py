"""`Runtime`: the loop of one node from entering its block to leaving it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome, Runtime
from mapek_runtime.testing import AutojumpClock, Recorder, tree

SIX = {"cycle", "monitor", "analyze", "plan", "execute", "knowledge"}


class Sensor:
    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls = 0

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        self.calls += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        return [Observation(name="x", value=1.0)]


class Fails:
    def __init__(self, times: int) -> None:
        self.left = times

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        if self.left:
            self.left -= 1
            raise LookupError("no sensor")
        return []


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


async def test_a_thousand_cycles_are_a_thousand_traces_each_linked_to_the_one_before(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    with recorder.provider.get_tracer("tests").start_as_current_span("request") as request:
        async with Runtime(Sensor(), interval=1.0) as runtime:
            await runtime.wait(cycles=1000)

    cycles = recorder.named("mape_k.cycle")
    traces: dict[int, set[str]] = {}
    for span in recorder.spans:
        traces.setdefault(trace_of(span), set()).add(span.name.removeprefix("mape_k."))
    assert traces.pop(request.get_span_context().trace_id) == {"request"}
    assert len(cycles) == len(traces) == 1000
    assert len(recorder.spans) == 1 + 1000 * len(SIX)
    assert all(names == SIX for names in traces.values())
    assert [link.context for link in cycles[0].links] == [request.get_span_context()]
    for before, after in pairwise(cycles):
        assert [link.context for link in after.links] == [before.get_span_context()]
    assert [(span.attributes or {})["cycle"] for span in cycles] == list(range(1, 1001))


async def test_cycles_are_not_children_of_the_span_that_was_open_at_the_start(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    tracer = recorder.provider.get_tracer("tests")
    with tracer.start_as_current_span("request"):
        async with Runtime(Sensor(), interval=1.0) as runtime:
            await runtime.wait(cycles=2)

    assert recorder.tree(links=True) == tree("""
        request
        mape_k.cycle @links=[request#1]
          mape_k.monitor
          mape_k.analyze
          mape_k.plan
          mape_k.execute
          mape_k.knowledge
        mape_k.cycle @links=[mape_k.cycle#2]
          mape_k.monitor
          mape_k.analyze
          mape_k.plan
          mape_k.execute
          mape_k.knowledge
    """)


async def test_a_plugin_sees_its_phase_as_the_current_span(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    class Looks:
        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            with trace.get_tracer("plugin").start_as_current_span("look"):
                return []

    async with Runtime(Looks()) as runtime:
        await runtime.wait()

    look, phase = recorder.one("look"), recorder.one("mape_k.monitor")
    assert look.parent == phase.get_span_context()


async def test_a_cycle_is_linked_to_the_span_that_triggered_it(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    async with Runtime(Sensor(), interval=60.0) as runtime:
        await runtime.wait()
        with recorder.provider.get_tracer("tests").start_as_current_span("alarm"):
            runtime.trigger("smoke")
        await runtime.wait()

    second = recorder.named("mape_k.cycle")[1]
    assert (second.attributes or {})["trigger"] == "smoke"
    assert recorder.one("alarm").get_span_context() in [link.context for link in second.links]
    assert autojump.elapsed < 60


async def test_every_reason_is_kept_when_triggers_coalesce(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    tracer = recorder.provider.get_tracer("tests")
    async with Runtime(Sensor(seconds=5), interval=60.0) as runtime:
        await asyncio.sleep(1)
        for reason in ("smoke", "heat", "smoke"):
            with tracer.start_as_current_span(f"alarm {reason}"):
                runtime.trigger(reason)
        cycle = await runtime.wait(cycles=2)

    span = recorder.named("mape_k.cycle")[1]
    assert [trigger.reason for trigger in cycle.triggers] == ["smoke", "heat"]
    assert (span.attributes or {})["triggers"] == ("smoke", "heat")
    assert (span.attributes or {})["trigger"] == "smoke"
    assert len(span.links) == 3
    assert runtime.statistics().coalesced == 2


async def test_after_a_failed_cycle_the_next_one_runs(recorder: Recorder, autojump: AutojumpClock) -> None:
    async with Runtime(Fails(times=2), interval=1.0) as runtime:
        cycle = await runtime.wait(cycles=3)

    assert cycle.success
    assert [(span.attributes or {})["success"] for span in recorder.named("mape_k.cycle")] == [
        False,
        False,
        True,
    ]
    assert runtime.statistics().failed == 2


async def test_after_a_cycle_that_hung_the_next_one_runs(autojump: AutojumpClock) -> None:
    class HangsOnce(Sensor):
        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            if cycle.number == 1:
                await asyncio.Event().wait()
            return await super().monitor(cycle)

    async with Runtime(HangsOnce(), interval=1.0, monitor_limit=2.5) as runtime:
        first = await runtime.wait()
        second = await runtime.wait()

    assert first.failed == ("monitor",)
    assert second.success
    assert second.started - first.started == 3


async def test_cancelled_cycles_show_so_and_the_next_one_runs(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    async with Runtime(Sensor(seconds=0.4), interval=1.0, overlap="cancel") as runtime:
        await asyncio.sleep(0.2)
        runtime.trigger("alarm")
        cycle = await runtime.wait(cycles=2)

    first, second = recorder.named("mape_k.cycle")
    assert (first.attributes or {})["asyncio.cancelled"] is True
    assert "asyncio.cancelled" not in (second.attributes or {})
    assert cycle.triggers[0].reason == "alarm"
    assert runtime.statistics().cancelled == 1


async def test_stop_finishes_the_running_cycle(recorder: Recorder, autojump: AutojumpClock) -> None:
    async with Runtime(Sensor(seconds=5), interval=60.0) as runtime:
        await asyncio.sleep(1)
        await runtime.stop()

    assert autojump.elapsed == 5
    assert (recorder.one("mape_k.cycle").attributes or {})["success"] is True
    assert recorder.open == ()


async def test_cancel_ends_the_running_cycle_at_once(recorder: Recorder, autojump: AutojumpClock) -> None:
    async with Runtime(Sensor(seconds=5), interval=60.0) as runtime:
        await asyncio.sleep(1)
        await runtime.cancel()

    assert autojump.elapsed == 1
    assert (recorder.one("mape_k.monitor").attributes or {})["asyncio.cancelled"] is True
    assert len(recorder.children(recorder.one("mape_k.cycle"))) == 5


async def test_a_block_left_by_an_error_cancels_the_loop_and_raises_it(autojump: AutojumpClock) -> None:
    async def block() -> None:
        async with Runtime(Sensor(seconds=5), interval=60.0):
            await asyncio.sleep(1)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await block()

    assert autojump.elapsed == 1


async def test_thousands_of_cycles_leave_nothing_in_memory(autojump: AutojumpClock) -> None:
    async def objects_after(runtime: Runtime, cycles: int) -> int:
        await runtime.wait(cycles=cycles)
        gc.collect()
        return len(gc.get_objects())

    async with Runtime(Sensor(), Fails(times=100_000), interval=1.0, overlap="queue") as runtime:
        before = await objects_after(runtime, 500)
        after = await objects_after(runtime, 2000)

    assert after - before < 200


@pytest.mark.parametrize("how", ["stop", "cancel", "error", "cancelled"])
async def test_no_task_is_left_behind(how: str, autojump: AutojumpClock) -> None:
    before = asyncio.all_tasks()

    async def block() -> None:
        async with Runtime(Sensor(seconds=5), Fails(times=99), interval=1.0, overlap="queue") as runtime:
            await asyncio.sleep(7.5)
            if how == "cancel":
                await runtime.cancel()
            if how == "error":
                raise LookupError("mine")
            if how == "cancelled":
                await asyncio.sleep(3600)

    task = asyncio.create_task(block())
    await asyncio.sleep(8)
    task.cancel()
    await asyncio.wait((task,))

    assert asyncio.all_tasks() == before


async def test_leaving_the_block_when_the_caller_is_cancelled_ends_the_cycle(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    async def block() -> None:
        async with Runtime(Sensor(seconds=5), interval=60.0):
            await asyncio.sleep(1)

    task = asyncio.create_task(block())
    await asyncio.sleep(2)
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert autojump.elapsed == 2
    assert (recorder.one("mape_k.cycle").attributes or {})["asyncio.cancelled"] is True


async def test_wait_gives_the_last_of_the_cycles_waited_for(autojump: AutojumpClock) -> None:
    async with Runtime(Sensor(), interval=1.0) as runtime:
        first = await runtime.wait()
        fourth = await runtime.wait(cycles=3)

    assert (first.number, fourth.number) == (1, 4)


async def test_several_may_wait_at_once(autojump: AutojumpClock) -> None:
    async with Runtime(Sensor(), interval=1.0) as runtime, asyncio.TaskGroup() as group:
        waiting = [group.create_task(runtime.wait(cycles=number)) for number in (1, 2, 3)]

    assert [task.result().number for task in waiting] == [1, 2, 3]


async def test_waiting_for_a_loop_that_ends_is_an_error_and_no_hang(autojump: AutojumpClock) -> None:
    async with Runtime(Sensor(), interval=1.0) as runtime:
        waiting = asyncio.create_task(runtime.wait(cycles=100))
        await asyncio.sleep(2.5)
        await runtime.stop()
        await asyncio.wait((waiting,))
        with pytest.raises(RuntimeError, match="ended before 1 cycles"):
            await runtime.wait()

    assert isinstance(waiting.exception(), RuntimeError)


async def test_pause_and_resume(autojump: AutojumpClock) -> None:
    sensor = Sensor()
    async with Runtime(sensor, interval=1.0) as runtime:
        await asyncio.sleep(1.5)
        runtime.pause()
        await asyncio.sleep(10)
        paused = sensor.calls
        runtime.resume()
        await asyncio.sleep(2)

    assert paused == 2
    assert sensor.calls == 4


async def test_what_on_cycle_raises_is_logged_and_the_loop_goes_on(
    autojump: AutojumpClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def on_cycle(cycle: Cycle) -> None:
        seen.append(cycle.number)
        raise LookupError("nobody listens")

    with caplog.at_level(logging.ERROR):
        async with Runtime(Sensor(), interval=1.0, on_cycle=on_cycle) as runtime:
            await runtime.wait(cycles=2)

    assert seen == [1, 2]
    assert caplog.text.count("nobody listens") >= 2


async def test_a_runtime_is_entered_once_at_a_time_and_may_be_entered_again(autojump: AutojumpClock) -> None:
    runtime = Runtime(Sensor(), interval=1.0)
    async with runtime:
        await runtime.wait()
        with pytest.raises(RuntimeError, match="runs already"):
            await runtime.__aenter__()
    async with runtime:
        cycle = await runtime.wait()

    assert cycle.number == 2


async def test_steering_a_runtime_that_does_not_run_is_an_error_and_a_trigger_is_ignored() -> None:
    runtime = Runtime(Sensor())

    runtime.trigger("nobody home")

    with pytest.raises(RuntimeError, match="not running"):
        runtime.pause()
    assert runtime.statistics().cycles == 0


async def test_a_halted_loop_watches_and_does_not_act(
    tmp_path: Path, recorder: Recorder, autojump: AutojumpClock
) -> None:
    class Acts(Sensor):
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return [Finding(target="x", problem="bad")]

        async def plan(self, cycle: Cycle) -> Sequence[Action]:
            return [Action(name="fix", target="x")]

        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            return Outcome(action=action, success=True)

    halt = tmp_path / "halt"
    await asyncio.to_thread(halt.write_text, "maintenance", "utf-8")
    async with Runtime(Acts(), interval=1.0, halt_file=halt) as runtime:
        halted = await runtime.wait()
        await asyncio.to_thread(halt.unlink)
        acting = await runtime.wait()

    assert [(r.rule, r.reason) for r in halted.rejections] == [
        ("halted", "an operator halted the loop: maintenance")
    ]
    assert halted.outcomes == ()
    assert len(acting.outcomes) == 1


async def test_it_says_for_how_long_no_cycle_has_ended(autojump: AutojumpClock) -> None:
    runtime = Runtime(Sensor(seconds=5), interval=8)
    before = runtime.silence()
    async with runtime:
        await asyncio.sleep(4)
        in_the_first = runtime.silence()
        await runtime.wait()
        after_it = runtime.silence()
        runtime.pause()
        await asyncio.sleep(100)
        paused = runtime.silence()
        runtime.resume()
        resumed = runtime.silence()

    assert (before, paused, resumed, runtime.silence()) == (0.0, 0.0, 0.0, None)
    assert in_the_first == pytest.approx(4)
    assert after_it == pytest.approx(0)
