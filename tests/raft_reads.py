"""What the local reads of a history must obey: monotone, explained, and up to the node's own grants.

A read may show what was in force a while ago. It must show something that was decided; a node must not
see older things after newer ones until it restarts; and after an own grant it sees at least that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf

from tests.raft_history import Operation, Restart

__all__ = ["wrong_reads"]


def wrong_reads(history: Sequence[Operation], restarts: Sequence[Restart] = ()) -> list[str]:
    """What is wrong with the reads, in words."""
    parts: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in history:
        what = "configured" if operation.kind == "configure" else "claim"
        parts[operation.argument if operation.kind == "read" else what, operation.key].append(operation)
    return [
        story
        for (what, _), part in parts.items()
        for story in (_values if what == "configured" else _owners)(part, restarts)
    ]


def _lives(
    part: Sequence[Operation], restarts: Sequence[Restart]
) -> Iterator[tuple[str, float, list[Operation]]]:
    """The reads of each life of each process, in order, and when that life began."""
    for process in sorted({operation.process for operation in part if operation.kind == "read"}):
        begins = [-inf, *sorted(r.at for r in restarts if r.process == process)]
        for begin, end in zip(begins, [*begins[1:], inf], strict=True):
            reads = [
                o for o in part if o.kind == "read" and o.process == process and begin <= o.invoked < end
            ]
            yield process, begin, sorted(reads, key=lambda o: o.invoked)


def _values(part: Sequence[Operation], restarts: Sequence[Restart]) -> Iterator[str]:
    changes = [o for o in part if o.kind == "configure"]
    for process, begin, reads in _lives(part, restarts):
        newest = 0
        for read in reads:
            value, epoch = read.result
            own = [
                o.result
                for o in changes
                if o.process == process and o.result and o.invoked >= begin and _before(o, read)
            ]
            least = max(newest, *own, 0)
            if epoch < least:
                yield f"{process} read epoch {epoch} of {read.key!r}, and knew epoch {least}"
            newest = max(newest, epoch)
            if epoch and not _explained(changes, read, value, epoch):
                yield f"{process} read {value!r}, epoch {epoch} of {read.key!r}, which nobody configured"
            if not epoch and value:
                yield f"{process} read {value!r} of {read.key!r} without an epoch"


def _explained(changes: Sequence[Operation], read: Operation, value: str, epoch: int) -> bool:
    """Whether somebody had asked for that value, and was told that epoch, or has no answer."""
    return any(
        o.argument[0] == value and o.invoked <= _end(read) and (o.answered is None or o.result == epoch)
        for o in changes
    )


def _owners(part: Sequence[Operation], restarts: Sequence[Restart]) -> Iterator[str]:
    claims = [o for o in part if o.kind == "claim" and (o.answered is None or o.result.granted)]
    releases = [o for o in part if o.kind == "release"]
    for process, begin, reads in _lives(part, restarts):
        seen, gone = 0, False
        for read in reads:
            owner: str = read.result
            own = _own(claims, releases, read, begin)
            if own and owner != process:
                yield (
                    f"{process} read that {owner or 'nobody'} has {read.key!r}, "
                    f"and has it itself by fence {own}"
                )
            if not owner:
                gone = True
                continue
            asked = [o for o in claims if o.process == owner and o.invoked <= _end(read)]
            # What was never answered may have any fence.
            fences = [o.result.fence if o.answered is not None else inf for o in asked]
            fitting = [fence for fence in fences if (fence > seen if gone else fence >= seen)]
            if not fitting:
                yield (
                    f"{process} read that {owner} has {read.key!r}, "
                    f"after what was granted later (fence {seen})"
                )
            elif min(fitting) < inf:
                seen, gone = int(min(fitting)), False


def _own(claims: Sequence[Operation], releases: Sequence[Operation], read: Operation, begin: float) -> int:
    """The fence of a grant of the reader's own that is in force while it reads; 0 for none."""
    for claim in claims:
        if claim.process != read.process or claim.invoked < begin or not _before(claim, read):
            continue
        given_back = any(
            r.process == read.process and r.argument >= claim.result.fence and r.invoked <= _end(read)
            for r in releases
        )
        if not given_back and _end(read) < claim.result.until:
            fence: int = claim.result.fence
            return fence
    return 0


def _before(operation: Operation, other: Operation) -> bool:
    return operation.answered is not None and operation.answered < other.invoked


def _end(operation: Operation) -> float:
    return inf if operation.answered is None else operation.answered
