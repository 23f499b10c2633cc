"""The search for an order finds one exactly where trying all of them finds one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

from hypothesis import given
from hypothesis import strategies as st

from tests.linearizability import linearize
from tests.raft_asked import claim, release
from tests.raft_history import Operation
from tests.raft_rules import Claims


@st.composite
def claims(draw: st.DrawFn) -> list[Operation]:
    """Up to six claims and releases that a table answered, one of the answers changed, some lost."""
    asked = draw(
        st.lists(
            st.tuples(
                st.sampled_from("ab"), st.sampled_from([0, 0, 1, 2, 3]), st.integers(1, 4),
                st.integers(0, 8), st.integers(0, 3), st.integers(0, 3),
            ),
            max_size=6,
        )
    )  # fmt: skip
    wrong = draw(st.sampled_from([None, 0, 1, 1, 2, 2, 3, 4]))
    owner, held, ends, fence = "", 0, 0, 0
    history: list[Operation] = []
    for process, released, hold, invoked, until_it_happens, until_answered in sorted(
        asked, key=lambda each: each[3] + each[4]
    ):
        happens = invoked + until_it_happens
        lost, broken = until_answered == 3, wrong == len(history)
        answered = None if lost else happens + until_answered
        if released:
            if owner == process and (released == held) != broken:
                owner = ""
            history.append(release(process, released, invoked, answered))
        elif (owner in {"", process} or happens >= ends) != broken:
            fence += 1
            ends = max(invoked + hold, ends if owner == process else 0)
            owner, held = process, fence
            history.append(claim(process, invoked, answered, fence=fence, hold=hold))
        else:
            history.append(claim(process, invoked, answered, owner=owner or "b", hold=hold))
    return history


@given(claims())
def test_the_search_agrees_with_trying_every_order(history: list[Operation]) -> None:
    found = linearize(Claims(), history)

    assert (found.stuck == ()) == any(explains(order) for order in every_order(history))


def every_order(history: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Every order of all operations with an answer and any of the others."""
    answered = [o for o in history if o.answered is not None]
    unanswered = [o for o in history if o.answered is None]
    for size in range(len(unanswered) + 1):
        for some in combinations(unanswered, size):
            yield from permutations([*answered, *some])


def explains(
    order: Sequence[Operation],
    owner: str = "",
    held: int = 0,
    ends: float = 0,
    time: float = 0,
    highest: int = 0,
) -> bool:
    """Whether a table that does these one after another, and forgets claims in between, answers so."""
    if not order:
        return True
    if owner and explains(order, "", 0, 0, max(time, ends), highest):
        return True
    now, *later = order
    time = max(time, now.invoked)
    if now.answered is not None and time > now.answered:
        return False
    if now.kind == "release":
        if owner == now.process and held == now.argument:
            owner, held = "", 0
        return explains(later, owner, held, ends, time, highest)
    if owner in {"", now.process}:
        fence = 0
        if now.answered is not None:
            fence = now.result.fence
            if fence <= highest:
                return False
            highest = fence
        until = now.invoked + now.argument[0]
        ends = max(until, ends if owner else 0)
        return explains(later, now.process, fence, ends, time, highest)
    refused = now.answered is None or (not now.result.granted and now.result.owner == owner)
    return refused and explains(later, owner, held, ends, time, highest)
