"""Operations in a few words, for histories that are written by hand."""

from __future__ import annotations

from typing import Any

from mapek_runtime.loop.domain import Grant
from tests.raft_history import Operation

__all__ = ["claim", "configure", "read", "read_value", "release"]


def claim(
    process: str,
    invoked: float,
    answered: float | None,
    *,
    fence: int = 0,
    owner: str = "",
    hold: float = 10.0,
    key: str = "drain",
    term: int = 1,
    leader_only: bool = False,
) -> Operation:
    """Granted by `fence`, refused because of `owner`, or without an answer."""
    grant = None
    if answered is not None:
        grant = Grant(
            key=key,
            granted=fence > 0,
            owner=process if fence else owner,
            fence=fence,
            term=term,
            until=invoked + hold if fence else 0.0,
        )
    return _operation(process, "claim", (hold, leader_only), grant, invoked, answered, key=key)


def release(process: str, fence: int, invoked: float, answered: float | None) -> Operation:
    """Of that fence; answered or not."""
    return _operation(process, "release", fence, None, invoked, answered)


def configure(
    value: str, epoch: int | None, invoked: float, answered: float | None, *, expected: int | None = None
) -> Operation:
    """With the epoch that it came to; None where it was refused, as where no answer came."""
    return _operation("a", "configure", (value, expected), epoch, invoked, answered)


def read(process: str, owner: str, at: float) -> Operation:
    """Of the owner of the key; empty for nobody."""
    return _operation(process, "read", "claim", owner, at, at)


def read_value(process: str, value: str, epoch: int, at: float) -> Operation:
    """Of what was configured."""
    return _operation(process, "read", "configured", (value, epoch), at, at)


def _operation(
    process: str,
    kind: Any,
    argument: object,
    result: object,
    invoked: float,
    answered: float | None,
    *,
    key: str = "drain",
) -> Operation:
    return Operation(
        process=process,
        kind=kind,
        key=key,
        argument=argument,
        result=result,
        invoked=invoked,
        answered=answered,
    )
