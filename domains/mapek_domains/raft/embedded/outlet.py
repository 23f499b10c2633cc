"""PySyncObj's way out: what it wants to send becomes a frame in the outbox, and nothing is sent here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pysyncobj.transport import Transport

from .wire import Append, Ask, Body, Chunk, Say, Vote, split

if TYPE_CHECKING:
    from .replica import Replica

__all__ = ["Outgoing", "Outlet"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame on its way out, with the term and the standing of the moment in which it was made.

    `causes`: what its entries follow from, each once. `notice`: it tells that entries became final.
    """

    to: str
    body: Body
    term: int
    say: Say
    causes: tuple[Any, ...] = ()
    notice: bool = False
    to_any: bool = False
    """Whatever journal the receiver has by now."""


class Outlet(Transport):  # type: ignore[misc]
    """A transport that is always ready."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(None, None, [])
        self.cause: Any = None
        """Of the frame that is being answered."""
        self.notice = False
        self._replica = replica

    @property
    def ready(self) -> bool:
        """Whether the library may begin."""
        return True

    def waitReady(self) -> None:  # noqa: N802 - PySyncObj's name
        """It is."""

    def destroy(self) -> None:
        """Nothing to close."""

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        """One message of the library's; it sends no other kinds, as its other ways in are not used."""
        replica = self._replica
        match message["type"]:
            case "append_entries" if "serialized" in message:
                # Without a snapshot yet there is nothing to say to a node that needs one.
                sent = message["serialized"]
                if sent is not None:
                    chunk: Chunk = sent[0]
                    replica.send(node.id, chunk)
            case "append_entries" if message["prevLogIdx"] is not None:
                self._append(node.id, message)
            case "request_vote":
                replica.send(node.id, Ask(message["last_log_index"], message["last_log_term"]))
            case "response_vote":
                causes = () if self.cause is None else (self.cause,)
                replica.send(node.id, Vote(message["term"]), causes)
        return True

    def _append(self, to: str, message: dict[str, Any]) -> None:
        entries = [(term, command) for command, _, term in message["entries"]]
        whole = Append(message["prevLogIdx"], message["prevLogTerm"], message["commit_index"], entries)
        known = self._replica.causes
        for part in split(whole):
            causes: dict[int, Any] = {}
            if known:
                for index in range(part.prev_index + 1, part.prev_index + len(part.entries) + 1):
                    if index in known:
                        causes[id(known[index])] = known[index]
            notice = self.notice and not part.entries
            self._replica.send(to, part, tuple(causes.values()), notice=notice)
