"""The domains of a run while they are open, and what they offer one another and the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from mapek_runtime.loop import Consensus, DomainSession

__all__ = ["Sessions"]

_P = TypeVar("_P")


class Sessions:
    """The sessions in the order in which their domains were opened."""

    def __init__(self) -> None:
        self._open: list[DomainSession] = []
        # To look through a protocol takes some microseconds, and plugins ask in every cycle.
        self._found: dict[type, object] = {}

    def add(self, session: DomainSession) -> None:
        """One more domain is open."""
        self._open.append(session)

    def find(self, protocol: type[_P], /) -> _P | None:
        """The session that offers what `protocol` says, the first of several; None while there is none."""
        found = self._found.get(protocol)
        if found is None:
            found = next((session for session in self._open if isinstance(session, protocol)), None)
            if found is not None:
                self._found[protocol] = found
        return cast("_P | None", found)

    def all(self, protocol: type[_P], /) -> Sequence[_P]:
        """Every session that offers it."""
        return [session for session in self._open if isinstance(session, protocol)]

    def plugins(self, node_id: str) -> list[object]:
        """The plugins of one node, of all domains."""
        return [plugin for session in self._open for plugin in session.plugins(node_id)]

    def leader(self, nodes: Iterable[str]) -> str:
        """Who leads, as most of `nodes` know; empty while nobody does, or without a consensus."""
        consensus = self.find(Consensus)
        if consensus is None:
            return ""
        known = Counter(leader for node in nodes if (leader := consensus.leader(node)) is not None)
        return known.most_common(1)[0][0] if known else ""
