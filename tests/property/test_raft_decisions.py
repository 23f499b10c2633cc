"""The laws of what is agreed upon, over any log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.commands import (
    Admit,
    Claim,
    Command,
    CommandError,
    Configure,
    Expire,
    Lead,
    Release,
    Request,
    decode,
    encode,
)
from mapek_domains.raft.decisions import Answer, Decisions

NODES = ("node-1", "node-2", "node-3")
KEYS = ("a", "b")

nodes = st.sampled_from(NODES)
keys = st.sampled_from(KEYS)
fences = st.integers(0, 40)
requests = st.builds(
    Request,
    owner=nodes,
    session=st.integers(1, 2),
    number=st.integers(1, 12),
    settled=st.integers(0, 8),
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Lead, node=nodes, term=st.integers(1, 5)),
    st.builds(Claim, request=requests, key=keys, hold_us=st.integers(1, 1000), leader_only=st.booleans()),
    st.builds(Claim, request=requests, key=keys, hold_us=st.integers(1, 1000)),
    st.builds(Release, request=requests, key=keys, fence=fences),
    st.builds(Expire, key=keys, fence=fences),
    st.builds(
        Configure,
        request=requests,
        name=keys,
        value=st.sampled_from(("x", "y", "")),
        expected=st.none() | st.integers(0, 4),
    ),
    st.builds(Admit, node=nodes, identity=st.integers(0, 9)),
)


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[int, int, Command]]:
    """Entries with their index and term: one leader a term, that says so only there."""
    log = []
    term = 1
    leaders: dict[int, str] = {}
    for index, drawn in enumerate(draw(st.lists(commands, max_size=40)), 2):
        command = drawn
        if isinstance(drawn, Lead):
            term = max(term, drawn.term)
            command = Lead(leaders.setdefault(term, drawn.node), term)
        log.append((index, term, command))
    return log


def replay(log: Sequence[tuple[int, int, Command]]) -> tuple[Decisions, list[Answer | None]]:
    decisions = Decisions()
    return decisions, [decisions.apply(*entry) for entry in log]


@given(logs())
def test_equal_logs_give_equal_answers_and_states(log: list[tuple[int, int, Command]]) -> None:
    first, answers = replay(log)
    second, again = replay(log)

    assert answers == again
    assert first.dump() == second.dump()


@given(logs(), st.data())
def test_a_snapshot_is_as_good_as_the_entries_before_it(
    log: list[tuple[int, int, Command]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(log)))
    whole, answers = replay(log)
    early, _ = replay(log[:cut])

    late = Decisions()
    late.load(early.dump())
    later = [late.apply(*entry) for entry in log[cut:]]

    assert later == answers[cut:]
    assert late.dump() == whole.dump()


@given(logs())
def test_a_key_has_one_owner_until_it_is_given_back_or_its_time_is_over(
    log: list[tuple[int, int, Command]],
) -> None:
    decisions = Decisions()
    for index, term, command in log:
        before = dict(decisions.claims)
        answer = decisions.apply(index, term, command)
        after = decisions.claims
        for key in KEYS:
            was, now = before.get(key), after.get(key)
            if was is None or now == was:
                continue
            if now is not None:
                # Only its owner replaces a grant.
                assert isinstance(command, Claim)
                assert (now.owner, command.request.owner) == (was.owner, was.owner)
                assert now.hold_us >= was.hold_us
            elif isinstance(command, Release):
                assert (command.request.owner, command.fence) == (was.owner, was.fence)
                assert answer is not None
                assert answer.done
            else:
                assert isinstance(command, Expire)
                assert command.fence == was.fence


@given(logs())
def test_fences_grow_over_all_keys(log: list[tuple[int, int, Command]]) -> None:
    decisions = Decisions()
    newest = 0
    for index, term, command in log:
        held = {key: held.fence for key, held in decisions.claims.items()}
        decisions.apply(index, term, command)
        given_now = [h.fence for key, h in decisions.claims.items() if held.get(key) != h.fence]
        for fence in given_now:
            assert fence > newest
            newest = fence


@given(logs(), st.data())
def test_a_question_asked_again_is_answered_as_the_first_time_and_does_nothing_more(
    log: list[tuple[int, int, Command]], data: st.DataObject
) -> None:
    asked = [place for place, (_, _, command) in enumerate(log) if hasattr(command, "request")]
    if not asked:
        return
    place = data.draw(st.sampled_from(asked))
    later = data.draw(st.integers(place, len(log) - 1))
    decisions = Decisions()
    answers = [decisions.apply(*entry) for entry in log[: later + 1]]
    before = dict(decisions.claims), [decisions.configured(key) for key in KEYS]

    again = decisions.apply(log[later][0] + 1, log[later][1], log[place][2])

    # Also None where it was settled meanwhile: whoever asked has the answer.
    assert again in (answers[place], None)
    assert (dict(decisions.claims), [decisions.configured(key) for key in KEYS]) == before


@given(logs())
def test_only_the_leader_of_the_entrys_own_term_gets_what_is_the_leaders(
    log: list[tuple[int, int, Command]],
) -> None:
    decisions = Decisions()
    leads: dict[int, str] = {}
    answered: dict[tuple[str, int, int], Answer] = {}
    for index, term, command in log:
        if isinstance(command, Lead):
            leads[term] = command.node
        answer = decisions.apply(index, term, command)
        if not isinstance(command, Claim) or answer is None:
            continue
        key = (command.request.owner, command.request.session, command.request.number)
        first = answered.setdefault(key, answer)
        if command.leader_only and answer.done and first is answer and answer.fence == index:
            assert leads.get(term) == command.request.owner


@given(logs())
def test_an_epoch_counts_the_changes_of_a_value(log: list[tuple[int, int, Command]]) -> None:
    decisions = Decisions()
    for index, term, command in log:
        before = {key: decisions.configured(key) for key in KEYS}
        answer = decisions.apply(index, term, command)
        for key in KEYS:
            (old, epoch), (new, now) = before[key], decisions.configured(key)
            changed = old != new or (epoch == 0 and now == 1)
            assert now == epoch + changed
            if changed:
                assert isinstance(command, Configure)
                assert command.expected in (None, epoch)
                assert answer is not None
                assert (answer.done, answer.epoch) == (True, now)


@given(commands)
def test_a_command_comes_back_as_it_went(command: Command) -> None:
    assert decode(encode(command)) == command


@given(st.binary(max_size=300))
def test_random_bytes_are_a_command_or_a_command_error(encoded: bytes) -> None:
    try:
        decoded = decode(encoded)
    except CommandError:
        return
    assert isinstance(decoded, Lead | Claim | Release | Expire | Configure | Admit)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_state_and_leave_it_as_it_is(dumped: bytes) -> None:
    decisions = Decisions()
    decisions.apply(2, 1, Claim(Request("node-1", 1, 1), "a", 5))
    before = decisions.dump()

    try:
        decisions.load(dumped)
    except ValueError:
        assert decisions.dump() == before


def test_a_claim_with_a_hold_that_is_no_whole_number_is_no_command() -> None:
    claim = encode(Claim(Request("node-1", 1, 1), "a", 5))
    # The hold as a double that is not a number, in place of 5.
    nan = claim.replace(b"\x05\xc2", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xc2")

    assert nan != claim
    with pytest.raises(CommandError):
        decode(nan)
