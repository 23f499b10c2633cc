"""Telling objects that this process is now the child of a fork, without keeping them alive.

Python never lets go of what `os.register_at_fork` was given, so one callback is registered for all.
Knows nothing of who follows.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["follow_forks"]

logger = logging.getLogger(__name__)

_followers: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}


def follow_forks(method: Callable[[], None]) -> None:
    """Call `method`, a bound method, in the child of every fork from now on, while its object lives."""
    owner: Any = method.__self__  # type: ignore[attr-defined]
    function: Callable[[Any], None] = method.__func__  # type: ignore[attr-defined]
    pop = _followers.pop
    key = 0

    def forget(_gone: object) -> None:
        # The garbage collector calls it between any two steps, at exit when this module is no more.
        pop(key, None)

    follower = weakref.ref(owner, forget)
    key = id(follower)
    _followers[key] = (follower, function)


def _tell() -> None:
    for follower, function in list(_followers.values()):
        owner = follower()
        if owner is not None:
            try:
                function(owner)
            except Exception:
                # Python would say so too, and leave the others with what is their parent's.
                logger.exception("%s failed in the child of a fork", function.__qualname__)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
