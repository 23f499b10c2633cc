"""Repairs, for every course of events: each one that begins ends exactly once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_runtime import Action, Cycle, Finding, Knowledge
from mapek_runtime.loop.repair import Repair, Repairs

WITHIN = 5.0
TARGETS = ["a", "b", "c"]


@dataclass(frozen=True)
class Turn:
    """One cycle: which targets look broken, which are acted upon, what verify says, what failed."""

    seconds: float
    broken: frozenset[str]
    acted: frozenset[str]
    verdict: bool | None
    verify_raises: bool
    own_verify: bool
    analyzer_failed: bool
    phase_failed: str


@dataclass
class Course:
    """What became of the repairs."""

    begun: list[str] = field(default_factory=list)
    ended: list[tuple[Repair, bool, float]] = field(default_factory=list)
    left: set[str] = field(default_factory=set)


turns = st.lists(
    st.builds(
        Turn,
        seconds=st.floats(0.1, 4.0, allow_nan=False),
        broken=st.frozensets(st.sampled_from(TARGETS)),
        acted=st.frozensets(st.sampled_from(TARGETS)),
        verdict=st.sampled_from([True, False, None]),
        verify_raises=st.booleans(),
        own_verify=st.booleans(),
        analyzer_failed=st.booleans(),
        phase_failed=st.sampled_from(["", "", "", "monitor", "analyze"]),
    ),
    max_size=30,
)


async def live(course: list[Turn]) -> Course:
    repairs = Repairs()
    result = Course()
    now = 0.0
    quiet = Turn(WITHIN + 1, frozenset(), frozenset(), None, False, False, False, "")
    for turn in [*course, quiet, quiet]:
        now += turn.seconds
        findings = [Finding(target=target, problem="dead") for target in sorted(turn.broken)]
        cycle = Cycle(
            node_id="node-1", number=1, triggers=(), started=now, knowledge=Knowledge(), findings=findings
        )
        if turn.phase_failed:
            cycle.failed = (turn.phase_failed,)
            cycle.findings = ()
        else:
            repairs.observe(findings, now)
        if turn.analyzer_failed:
            cycle.failures = (("analyze", "other", LookupError()),)

        async def verify(cycle: Cycle, action: Action, turn: Turn = turn) -> bool | None:
            if turn.verify_raises:
                raise LookupError("no probe")
            return turn.verdict

        # As the guard rails have it: a target is not acted upon while its repair is open.
        for target in sorted(turn.acted - repairs.targets):
            finding = Finding(target=target, problem="dead")
            action = Action(name="fix", target=target, finding=finding, verify_within=WITHIN)
            repairs.began(action, now, verify if turn.own_verify else None, None)
            result.begun.append(target)
        worked, failed = await repairs.settle(cycle, now, limit=1.0, failures=[])
        result.ended += [(repair, True, now) for repair in worked]
        result.ended += [(repair, False, now) for repair in failed]
    result.left = repairs.targets
    return result


@settings(deadline=None)
@given(course=turns)
def test_every_repair_that_begins_ends_exactly_once(course: list[Turn]) -> None:
    result = asyncio.run(live(course))

    assert result.left == set()
    assert sorted(repair.target for repair, _, _ in result.ended) == sorted(result.begun)
    assert len({id(repair) for repair, _, _ in result.ended}) == len(result.begun)


@settings(deadline=None)
@given(course=turns)
def test_a_repair_is_given_up_only_when_its_time_is_over_or_its_plugin_says_so(course: list[Turn]) -> None:
    result = asyncio.run(live(course))

    for repair, success, ended in result.ended:
        if not success and repair.verify is None:
            assert ended - repair.executed >= WITHIN


@settings(deadline=None)
@given(course=turns)
def test_an_incident_takes_from_the_finding_to_the_recovery(course: list[Turn]) -> None:
    result = asyncio.run(live(course))

    for repair, success, ended in result.ended:
        incident = repair.incident(ended, success=success)
        assert repair.found <= repair.executed <= ended
        assert incident.repair_seconds == (ended - repair.found if success else None)
        assert incident.closed is not None
        assert abs((incident.closed - incident.opened) - (ended - repair.found)) < 1e-3
