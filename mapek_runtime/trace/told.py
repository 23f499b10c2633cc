"""Which exceptions a span has told of already, and in which trace.

A group that a span raises is made of errors that the spans below have recorded. To record them once,
they are known again here: by identity, with a weak reference where the type allows one, so that
nothing is kept alive and nothing is written on an exception. The built-in types allow none; there an
address that was given to another exception is told apart by type, text and place of raising. Two that
are alike in all of it, in one trace, look the same in every event too.
"""

from __future__ import annotations

import weakref

from .values import text_of

__all__ = ["Told", "told_of"]

Witness = weakref.ref[BaseException] | tuple[object, ...]


class Told:
    """The exceptions recorded last: at least `most`, at most twice as many."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        # Two generations: letting go of the older one is one step, from whichever thread.
        self._young: dict[int, tuple[int, Witness]] = {}
        self._old: dict[int, tuple[int, Witness]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, error: BaseException, trace_id: int) -> None:
        """Remember that `error` was recorded in that trace."""
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[id(error)] = (trace_id, _witness(error))

    def knows(self, error: BaseException, trace_id: int) -> bool:
        """Whether `error` was recorded in that trace, as far as is remembered."""
        told = self._young.get(id(error)) or self._old.get(id(error))
        if told is None or told[0] != trace_id:
            return False
        witness = told[1]
        return witness() is error if isinstance(witness, weakref.ref) else witness == _likeness(error)


def _witness(error: BaseException) -> Witness:
    try:
        return weakref.ref(error)
    except TypeError:
        return _likeness(error)


def _likeness(error: BaseException) -> tuple[object, ...]:
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    place = (
        (None, 0)
        if raised is None
        else (raised.tb_frame.f_code.co_qualname, raised.tb_frame.f_code.co_filename, raised.tb_lasti)
    )
    # The hash, because a text may be long.
    return (type(error).__name__, hash(text_of(error)), *place)


told_of = Told()
"""What the spans of this process have told of."""
