"""Where a span was started: found by a short walk up the stack, counted when the span is lost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from types import CodeType
from typing import Any

from mapek_runtime.trace.ring import Tally

__all__ = ["NOWHERE", "Birth", "Births"]

NOWHERE = "elsewhere"
"""What stands for places that are not known, or are too many to tell apart."""

DEPTH = 24
"""How many frames the walk goes up at most."""
MOST = 1000
"""How many places are told apart."""

# Who only passes a span on. An instrumentation is not among them: it decides when its spans end.
_TRACING = (
    "mapek_runtime.testing.recorder",
    "mapek_runtime.trace.",
    "opentelemetry.context",
    "opentelemetry.sdk.",
    "opentelemetry.trace",
    "opentelemetry.util.",
)
_PASSING = ("contextlib", "functools")


class Birth:
    """A place where spans are started, and how many of them were lost."""

    __slots__ = ("_lost", "lose", "place")

    def __init__(self, place: str) -> None:
        self.place = place
        """`file:line function`."""
        self._lost = Tally()
        self.lose = self._lost.add
        """Count one more; takes no lock."""

    @property
    def count(self) -> int:
        """How many spans that were started here were lost."""
        return self._lost.read()


class Births:
    """The places where spans were started: a bounded number."""

    def __init__(self) -> None:
        self._inside: dict[Any, bool] = {}
        # By instruction, not by line: which line that is takes time to find out.
        self._places: dict[tuple[str, int, int], Birth] = {}
        self._others = Birth(NOWHERE)

    def here(self) -> Birth:
        """The place outside the tracing packages that the call came from."""
        frame = sys._getframe(1)
        inside = self._inside
        for _ in range(DEPTH):
            module = frame.f_globals.get("__name__")
            try:
                if not inside[module]:
                    break
            except (KeyError, TypeError):  # TypeError: code may call its module what it likes
                if not self._learn(module):
                    break
            if frame.f_back is None:
                return self._others
            frame = frame.f_back
        else:
            return self._others
        code = frame.f_code
        known = self._places.get((code.co_filename, code.co_firstlineno, frame.f_lasti))
        if known is not None:
            return known
        return self._first(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}", code, frame.f_lasti)

    def _learn(self, module: object) -> bool:
        if not isinstance(module, str):
            return False
        inside = module in _PASSING or module.startswith(_TRACING)
        if len(self._inside) < MOST:
            self._inside[module] = inside
        return inside

    def _first(self, place: str, code: CodeType, instruction: int) -> Birth:
        if len(self._places) >= MOST:
            return self._others
        # Two threads may come at once: the one that is kept is the one that counts.
        return self._places.setdefault((code.co_filename, code.co_firstlineno, instruction), Birth(place))

    @property
    def count(self) -> int:
        """How many spans were lost, wherever they were started."""
        return sum(birth.count for birth in self._all())

    def counted(self) -> Mapping[str, int]:
        """The places that lost spans and how many, the worst first."""
        counts: Counter[str] = Counter()
        for birth in self._all():
            counts[birth.place] += birth.count
        return {place: count for place, count in counts.most_common() if count}

    def _all(self) -> list[Birth]:
        return [*self._places.copy().values(), self._others]
