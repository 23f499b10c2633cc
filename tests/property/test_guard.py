"""The guard rails, for every series of plans: no budget is ever exceeded, and nothing gets lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime import Action, Cycle, Knowledge, Observation
from mapek_runtime.config import GuardSettings
from mapek_runtime.loop.guard import GuardRails

TARGETS = [f"link-{number}" for number in range(8)]

actions = st.builds(
    Action,
    name=st.sampled_from(["drain", "restart", "undrain"]),
    target=st.sampled_from(TARGETS),
    inverse=st.sampled_from(["", "undrain"]),
    restorative=st.booleans(),
)
# A plan: seconds since the one before, the actions wanted, how long each takes, which of them fail.
plans = st.lists(
    st.tuples(
        st.floats(0, 40, allow_nan=False),
        st.lists(actions, max_size=6),
        st.floats(0, 10, allow_nan=False),
        st.sets(st.integers(0, 5)),
    ),
    max_size=40,
)
rails = st.builds(
    GuardSettings,
    cooldown=st.floats(0, 30, allow_nan=False),
    actions_per_minute=st.integers(1, 6),
    fleet_share=st.floats(0, 1, allow_nan=False),
    max_failures=st.integers(1, 3),
    escalation=st.floats(0, 100, allow_nan=False),
)


def cycle() -> Cycle:
    return Cycle(
        node_id="node-1",
        number=1,
        triggers=(),
        started=0.0,
        knowledge=Knowledge(),
        observations=[Observation(name="loss", value=0.0, target=target) for target in TARGETS],
    )


def carry_out(
    settings: GuardSettings, series: list[tuple[float, list[Action], float, set[int]]]
) -> list[tuple[float, float, Action, bool]]:
    """(planned at, done at, action, success) of everything that the rails let through."""
    guard = GuardRails(settings)
    seen = cycle()
    now = 1000.0
    done: list[tuple[float, float, Action, bool]] = []
    for gap, wanted, takes, failing in series:
        now += gap
        planned = now
        admitted, refused = guard.admit(wanted, cycle=seen, now=planned, pending=())
        judged = [*admitted, *(rejection.action for rejection in refused)]
        assert sorted(map(id, judged)) == sorted(map(id, wanted))
        assert all(rejection.rule and rejection.reason for rejection in refused)
        for number, action in enumerate(admitted):
            now += takes / max(1, len(admitted))
            success = number not in failing
            guard.acted(action, now, success=success)
            if not success:
                guard.failed(action.target, now)
            done.append((planned, now, action, success))
    return done


@given(settings=rails, series=plans)
def test_no_sliding_minute_holds_more_actions_than_the_budget(
    settings: GuardSettings, series: list[tuple[float, list[Action], float, set[int]]]
) -> None:
    times = [when for _, when, _, _ in carry_out(settings, series)]

    for begin in times:
        assert sum(begin <= when < begin + 60.0 for when in times) <= settings.actions_per_minute


@given(settings=rails, series=plans)
def test_a_target_is_never_acted_upon_within_its_cooldown(
    settings: GuardSettings, series: list[tuple[float, list[Action], float, set[int]]]
) -> None:
    last: dict[str, float] = {}
    for planned, when, action, _ in carry_out(settings, series):
        if not action.restorative:
            assert planned - last.get(action.target, float("-inf")) >= settings.cooldown
        last[action.target] = when


@given(settings=rails, series=plans)
def test_no_more_than_the_share_of_the_fleet_is_taken_at_once(
    settings: GuardSettings, series: list[tuple[float, list[Action], float, set[int]]]
) -> None:
    limit = max(1, int(settings.fleet_share * len(TARGETS)))
    taken: set[str] = set()

    for _, _, action, success in carry_out(settings, series):
        if success and action.restorative:
            taken.discard(action.target)
        elif success and action.inverse:
            taken.add(action.target)
        assert len(taken) <= limit


@given(settings=rails, series=plans)
def test_an_escalated_target_is_left_alone(
    settings: GuardSettings, series: list[tuple[float, list[Action], float, set[int]]]
) -> None:
    failures: dict[str, int] = {}
    until: dict[str, float] = {}
    for planned, when, action, success in carry_out(settings, series):
        assert planned >= until.get(action.target, float("-inf"))
        if not success:
            failures[action.target] = failures.get(action.target, 0) + 1
            if failures[action.target] >= settings.max_failures:
                until[action.target] = when + settings.escalation
