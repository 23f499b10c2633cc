"""Verification: a repair is done when the metric has recovered, not when the action returned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mapek_runtime import Action, Cycle, Finding, Insight, Knowledge, Observation, Outcome, Runtime
from mapek_runtime.config import GuardSettings, LoopSettings
from mapek_runtime.testing import AutojumpClock, Recorder

GUARD = GuardSettings(cooldown=1.0, max_failures=3, escalation=600.0)
SETTINGS = LoopSettings(interval=1.0, guard=GUARD)


class Link:
    """A link that is lossy from `broken` on; draining it helps `delay` seconds later, or never."""

    def __init__(self, clock: AutojumpClock, *, delay: float | None, broken: float = 0.0) -> None:
        self.clock = clock
        self.delay = delay
        self.broken = broken
        self.drained: float | None = None
        self.done: list[tuple[float, str]] = []

    @property
    def lossy(self) -> bool:
        now = self.clock.elapsed
        helped = self.drained is not None and self.delay is not None and now >= self.drained + self.delay
        return now >= self.broken and not helped

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="loss", value=float(self.lossy), target="a~b")]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        if cycle.readings("loss").get("a~b"):
            return [Finding(target="a~b", problem="lossy")]
        return []

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        if self.drained is not None:
            return []
        return [
            Action(name="drain", target="a~b", finding=f, inverse="undrain", verify_within=5.0)
            for f in cycle.findings
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        self.done.append((self.clock.elapsed, action.name))
        self.drained = self.clock.elapsed if action.name == "drain" else None
        return Outcome(action=action, success=True)


async def watch(*plugins: object, seconds: float, **options: Any) -> list[tuple[int, Insight]]:
    """The insights of a loop, with the number of the cycle that had them."""
    learned: list[tuple[int, Insight]] = []

    def on_cycle(cycle: Cycle) -> None:
        learned.extend((cycle.number, insight) for insight in cycle.insights)

    async with Runtime(*plugins, **{"settings": SETTINGS, "on_cycle": on_cycle, **options}):
        await asyncio.sleep(seconds)
    return learned


async def test_a_repair_is_verified_when_the_metric_recovers(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    knowledge = Knowledge()
    link = Link(autojump, delay=2.5, broken=2.0)

    learned = await watch(link, seconds=10.5, knowledge=knowledge)

    assert link.done == [(2.0, "drain")]
    # Found and drained in the third cycle (2 s); the metric recovers at 4.5 s and is seen at 5 s.
    assert [(number, insight.name) for number, insight in learned] == [(6, "repair.verified")]
    assert learned[0][1].value == 3.0
    assert knowledge.success_rate("drain") == 1.0
    assert knowledge.repair_seconds("drain") == 3.0
    (incident,) = knowledge.incidents("a~b")
    assert (incident.problem, incident.action, incident.success) == ("lossy", "drain", True)
    assert incident.closed is not None
    assert incident.closed - incident.opened == 3.0
    execute = recorder.named("mape_k.execute")[2].get_span_context()
    assert [link.context for link in recorder.named("mape_k.knowledge")[5].links] == [execute]


async def test_an_action_that_does_not_help_in_time_is_undone_by_its_inverse(
    autojump: AutojumpClock,
) -> None:
    knowledge = Knowledge()
    link = Link(autojump, delay=None)

    learned = await watch(link, seconds=6.5, knowledge=knowledge)

    assert link.done == [(0, "drain"), (6, "undrain")]
    assert [(number, insight.name) for number, insight in learned] == [(6, "repair.failed")]
    assert "undone" in learned[0][1].message
    assert knowledge.success_rate("drain") == 0.0


async def test_what_never_helps_is_escalated_and_left_alone(autojump: AutojumpClock) -> None:
    link = Link(autojump, delay=None)

    learned = await watch(link, seconds=300)

    assert [name for _, name in link.done].count("drain") == 3
    assert [insight.name for _, insight in learned] == ["repair.failed", "repair.failed", "repair.escalated"]


async def test_an_undo_that_fails_is_asked_for_again(autojump: AutojumpClock) -> None:
    class Sticky(Link):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            if action.name == "undrain" and len(self.done) < 2:
                self.done.append((self.clock.elapsed, "undrain failed"))
                return Outcome(action=action, success=False, error="busy")
            return await super().execute(cycle, action)

    link = Sticky(autojump, delay=None)

    await watch(link, seconds=7.5)

    assert [name for _, name in link.done] == ["drain", "undrain failed", "undrain"]


async def test_a_plugin_may_undo_in_its_own_way(autojump: AutojumpClock) -> None:
    class Undoes(Link):
        async def undo(self, cycle: Cycle, action: Action) -> Outcome:
            self.done.append((self.clock.elapsed, f"undo by {action.name}"))
            return Outcome(action=action, success=True)

    link = Undoes(autojump, delay=None)

    await watch(link, seconds=6.5)

    assert link.done == [(0, "drain"), (6, "undo by undrain")]


async def test_an_undo_that_a_rail_refuses_is_asked_for_again(autojump: AutojumpClock) -> None:
    link = Link(autojump, delay=None)
    guard = GuardSettings(cooldown=1.0, actions_per_minute=1)

    await watch(link, seconds=61.5, settings=LoopSettings(interval=1.0, guard=guard))

    assert link.done == [(0, "drain"), (60, "undrain")]


async def test_a_verify_of_its_own_decides(autojump: AutojumpClock) -> None:
    class Verifies(Link):
        async def verify(self, cycle: Cycle, action: Action) -> bool | None:
            return True if self.clock.elapsed >= 3 else None

    learned = await watch(Verifies(autojump, delay=None), seconds=3.5)

    assert [(number, insight.name) for number, insight in learned] == [(4, "repair.verified")]


async def test_a_verify_that_says_worse_undoes_at_once(autojump: AutojumpClock) -> None:
    class Worse(Link):
        async def verify(self, cycle: Cycle, action: Action) -> bool | None:
            return False if self.clock.elapsed >= 2 else None

    link = Worse(autojump, delay=None)
    learned = await watch(link, seconds=3.5)

    assert [insight.name for _, insight in learned] == ["repair.failed"]
    assert link.done[:2] == [(0, "drain"), (3, "undrain")]


async def test_a_verify_that_fails_is_isolated_and_the_time_still_runs_out(
    recorder: Recorder, autojump: AutojumpClock
) -> None:
    class Careless(Link):
        async def verify(self, cycle: Cycle, action: Action) -> bool | None:
            raise LookupError("no probe")

    link = Careless(autojump, delay=None)
    learned = await watch(link, seconds=6.5)

    assert [(number, insight.name) for number, insight in learned] == [(6, "repair.failed")]
    assert "LookupError: no probe" in str(recorder.named("mape_k.knowledge")[1].status.description)
    assert (recorder.named("mape_k.knowledge")[1].attributes or {})["plugins_failed"] == 1


async def test_a_verify_that_hangs_is_not_asked_for_ever(autojump: AutojumpClock) -> None:
    class Hangs(Link):
        async def verify(self, cycle: Cycle, action: Action) -> bool | None:
            await asyncio.sleep(3600)
            return True

    learned = await watch(
        Hangs(autojump, delay=None),
        seconds=8.5,
        settings=LoopSettings(interval=1.0, knowledge_limit=1.0, guard=GUARD),
    )

    assert [insight.name for _, insight in learned] == ["repair.failed"]


async def test_a_finding_that_is_gone_because_its_analyzer_failed_verifies_nothing(
    autojump: AutojumpClock,
) -> None:
    class Flaky(Link):
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            if 1 <= self.clock.elapsed < 3:
                raise LookupError("no model")
            return await super().analyze(cycle)

    class Other:
        async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
            return []

    learned = await watch(Flaky(autojump, delay=None), Other(), seconds=4.5)

    assert learned == []


async def test_nothing_is_decided_while_nobody_can_see(autojump: AutojumpClock) -> None:
    class Blind(Link):
        async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
            if 1 <= self.clock.elapsed < 20:
                raise LookupError("no sensor")
            return await super().monitor(cycle)

    learned = await watch(Blind(autojump, delay=3.0), seconds=21.5)

    assert [(number, insight.name) for number, insight in learned] == [(21, "repair.verified")]


async def test_an_action_that_failed_is_no_repair(autojump: AutojumpClock) -> None:
    class Refuses(Link):
        async def execute(self, cycle: Cycle, action: Action) -> Outcome:
            self.done.append((self.clock.elapsed, action.name))
            return Outcome(action=action, success=False, error="no rights")

    knowledge = Knowledge()
    link = Refuses(autojump, delay=None)
    learned = await watch(link, seconds=100, knowledge=knowledge)

    assert learned == []
    assert knowledge.incidents() == ()
    assert len(link.done) == 3
