"""What a history of decisions must obey, whichever engine decided.

* Claims of each key, and changes of each name of the configuration, are linearizable. A claim ends when
  it is released, or by itself: not before `hold` seconds after it was asked for, nor before `until`.
* Fences grow in the order of the grants, over all keys, and terms never fall.
* No two nodes have a key at one time: what they were told they have, from the answer until `until`.
* What only the leader gets is given to one node in a term.
* Reads are local: they may be old, so they are not linearizable. What a node reads was decided, goes
  forward only until it restarts, and is at least as new as what the node itself was granted.

A fence is of all keys, and claims are searched key by key: of orders that are right for each key and wrong
for all together, only those are found that break the order of the fences in real time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from math import inf
from typing import NamedTuple

from mapek_runtime.loop.domain import Grant
from tests.linearizability import told
from tests.raft_history import Operation, Restart
from tests.raft_reads import wrong_reads

__all__ = ["Claim", "Claims", "Configuration", "Value", "judge", "violations"]


class Claim(NamedTuple):
    """The state of one key. `owner` is empty where it is free, `fence` 0 where nobody was told it."""

    owner: str = ""
    fence: int = 0
    ends: float = -inf
    highest: int = 0
    """The highest fence that is known to have been given."""


class Claims:
    """One key: the first to ask has it, until it is released or the time is over."""

    initial = Claim()

    def step(self, state: Claim, operation: Operation) -> Iterator[tuple[Claim, float]]:
        """See `Model`. Expiry is no step of its own: it happens where another node is granted the key."""
        if operation.kind == "release":
            ours = state.owner == operation.process and state.fence == operation.argument
            if ours:
                yield Claim(highest=state.highest), -inf
            elif operation.answered is not None:
                yield state, -inf
            return
        hold, _leader_only = operation.argument
        mine = state.owner in {"", operation.process}
        ends = max(operation.invoked + hold, state.ends if state.owner == operation.process else -inf)
        if operation.answered is None:
            then = Claim(operation.process, 0, ends, state.highest)
            if then != state:
                yield then, -inf if mine else state.ends
            return
        grant: Grant = operation.result
        if grant.granted:
            if grant.fence > state.highest:
                ends = max(ends, grant.until)
                yield Claim(operation.process, grant.fence, ends, grant.fence), -inf if mine else state.ends
        elif not grant.owner or (grant.owner == state.owner and not mine):
            yield state, -inf

    def may_need(self, state: Claim, operation: Operation, unanswered: Operation) -> bool:
        """See `Model`: somebody gave back what is in the way, or has claimed what is refused."""
        if operation.kind != "claim":
            return False
        if unanswered.kind == "release":
            return (unanswered.process, unanswered.argument) == (state.owner, state.fence)
        refused = not operation.result.granted and operation.result.owner == unanswered.process
        return bool(refused and state.owner != unanswered.process)

    def place(self, operation: Operation) -> int | None:
        """See `Model`: fences grow."""
        grant = operation.result
        return grant.fence if isinstance(grant, Grant) and grant.granted else None

    def show(self, state: Claim) -> str:
        """The state in a few words."""
        if not state.owner:
            return f"nobody has it; the highest fence is {state.highest}"
        return f"{state.owner} has it, by fence {state.fence or 'unknown'}"

    def answer(self, operation: Operation) -> str:
        """The answer in a few words."""
        if not isinstance(operation.result, Grant):
            return "done" if operation.answered is not None else "no answer"
        grant: Grant = operation.result
        if grant.granted:
            return f"granted by fence {grant.fence} in term {grant.term}"
        return f"refused: {grant.owner or grant.reason}"


class Value(NamedTuple):
    """What was agreed upon under one name."""

    value: str = ""
    epoch: int = 0


class Configuration:
    """One name: a register with compare-and-set on its epoch. The value that it has is no change."""

    initial = Value()

    def step(self, state: Value, operation: Operation) -> Iterator[tuple[Value, float]]:
        """See `Model`."""
        value, expected = operation.argument
        fits = expected in {None, state.epoch}
        same = state.epoch > 0 and value == state.value
        then = state if same else Value(value, state.epoch + 1)
        if operation.answered is None:
            if fits and not same:
                yield then, -inf
        elif operation.result is None:
            if not fits:
                yield state, -inf
        elif fits and operation.result == then.epoch:
            yield then, -inf

    def may_need(self, state: Value, operation: Operation, unanswered: Operation) -> bool:
        """See `Model`: somebody has changed it before."""
        expected = operation.argument[1]
        return bool(expected == state.epoch if operation.result is None else state.epoch < operation.result)

    def place(self, operation: Operation) -> int | None:
        """See `Model`: epochs do not fall."""
        epoch: int | None = operation.result
        return epoch

    def show(self, state: Value) -> str:
        """The state in a few words."""
        return f"it is {state.value!r}, epoch {state.epoch}"

    def answer(self, operation: Operation) -> str:
        """The answer in a few words."""
        if operation.answered is None:
            return "no answer"
        return "refused" if operation.result is None else f"epoch {operation.result}"


def violations(
    history: Sequence[Operation],
    *,
    restarts: Sequence[Restart] = (),
    leaders: Iterable[tuple[int, str]] = (),
) -> list[str]:
    """What is wrong with a history, in words; `leaders`: (term, node) whenever a node led.

    Raises `Undecided` where the search takes too long.
    """
    found = [*_two_leaders(leaders), *_fences(history), *_two_owners(history)]
    parts: dict[tuple[bool, str], list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.kind != "read":
            parts[operation.kind == "configure", operation.key].append(operation)
    for (configured, _), part in parts.items():
        story = told(Configuration(), part) if configured else told(Claims(), part)
        if story:
            found.append(story)
    return found + wrong_reads(history, restarts)


def judge(
    history: Sequence[Operation],
    *,
    restarts: Sequence[Restart] = (),
    leaders: Iterable[tuple[int, str]] = (),
) -> None:
    """Fails with the story of what is wrong."""
    found = violations(history, restarts=restarts, leaders=leaders)
    assert not found, "\n\n".join(["this cannot have been decided:", *found])


def _granted(history: Iterable[Operation]) -> list[tuple[Operation, float, Grant]]:
    """Claims that were granted, when they were answered, and the grants."""
    return [
        (operation, operation.answered, operation.result)
        for operation in history
        if operation.kind == "claim" and operation.answered is not None and operation.result.granted
    ]


def _two_leaders(leaders: Iterable[tuple[int, str]]) -> Iterator[str]:
    by_term: dict[int, set[str]] = defaultdict(set)
    for term, node in leaders:
        by_term[term].add(node)
    for term, nodes in sorted(by_term.items()):
        if len(nodes) > 1:
            yield f"term {term} had {len(nodes)} leaders: {', '.join(sorted(nodes))}"


def _fences(history: Sequence[Operation]) -> Iterator[str]:
    granted = sorted(_granted(history), key=lambda each: each[1])
    for (first, answered, one), (second, _, other) in combinations(granted, 2):
        if one.fence == other.fence:
            yield f"fence {one.fence} was given twice: {_who(first)} and {_who(second)}"
        if answered < second.invoked and one.fence > other.fence:
            yield f"fence {other.fence} ({_who(second)}) after fence {one.fence} ({_who(first)})"
    by_fence = sorted((each for each in granted if each[2].term), key=lambda each: each[2].fence)
    for (first, _, one), (second, _, other) in pairwise(by_fence):
        if one.term > other.term:
            yield (
                f"term {other.term} with fence {other.fence} ({_who(second)}) after term {one.term} "
                f"with fence {one.fence} ({_who(first)})"
            )
    leading = [(grant.term, claim.process) for claim, _, grant in granted if claim.argument[1]]
    yield from _two_leaders(leading)


def _two_owners(history: Sequence[Operation]) -> Iterator[str]:
    released = [operation for operation in history if operation.kind == "release"]
    granted = _granted(history)
    for (first, begins, one), (second, starts, other) in combinations(granted, 2):
        if first.key != second.key or first.process == second.process:
            continue
        ends, stops = _ends(first, one, released), _ends(second, other, released)
        overlap = min(ends, stops) - max(begins, starts)
        if overlap > 0:
            yield (
                f"{first.key!r} had two owners for {overlap * 1e3:.3g} ms: "
                f"{first.process} (fence {one.fence}) and {second.process} (fence {other.fence})"
            )


def _ends(claim: Operation, grant: Grant, released: Iterable[Operation]) -> float:
    """When its owner stopped to count on it."""
    own = (
        release.invoked
        for release in released
        if (release.process, release.key) == (claim.process, claim.key) and release.argument >= grant.fence
    )
    return min(grant.until, *own, inf)


def _who(claim: Operation) -> str:
    return f"{claim.process}, {claim.key!r}"
