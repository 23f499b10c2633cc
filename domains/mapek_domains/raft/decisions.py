"""What the nodes agreed upon: the state that every node computes from the same log.

Pure: entries go in, in the order of the log, with their index and term; answers come out. There is no clock
here. That a claim's time is over is an entry like any other, which the leader proposes when its own clock
says so: no jump of a clock takes a claim away, and all nodes see it end at the same place of the log.

The rules:

* A key has at most one owner. Who asks first is granted it; its owner may ask again, which is a grant of
  its own and replaces the one before. The fence of a grant is the index of its entry, so fences grow over
  all keys.
* `leader_only` is granted to the node that said it leads in the term of the entry itself. An entry of a term
  whose leader has not said so yet is granted to nobody.
* A release or an expiry takes the grant of exactly its fence away, and else does nothing.
* A value's epoch counts its changes; the value that it has already is no change.
* A question that is asked again is answered as the first time. Answers are remembered for each life of a
  node until it says that it has them (`Request.settled`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from .commands import Admit, Claim, Command, Configure, Expire, Lead, Release, Request

__all__ = ["MOST_CLAIMS", "MOST_NAMES", "Answer", "Decisions", "Held"]

MOST_CLAIMS = 4096
MOST_NAMES = 1024
_LIVES = 4
_ANSWERS = 1024
_NOTHING: tuple[str, int] = ("", 0)


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of a question.

    `done`: the claim was granted, the release took effect, the epoch was as expected. `owner` and `fence`
    are those of the key from then on; `epoch` is the name's. `reason` says in words why not.
    """

    done: bool
    term: int
    owner: str = ""
    fence: int = 0
    epoch: int = 0
    reason: str = ""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A grant in force."""

    owner: str
    fence: int
    hold_us: int
    """The longest time that was asked for since the owner has it, in microseconds."""


@dataclass(slots=True)
class _Life:
    """The questions of one life of a node: those below `settled` were answered and are forgotten."""

    settled: int
    answers: dict[int, Answer]


class _Kept(msgspec.Struct, array_like=True):
    """The state as a snapshot holds it; everything in the order in which it was decided."""

    leader: str
    leader_term: int
    claims: list[tuple[str, Held]]
    values: list[tuple[str, str, int]]
    lives: list[tuple[str, int, int, list[tuple[int, Answer]]]]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Kept] = msgspec.msgpack.Decoder(_Kept)


class Decisions:
    """The state machine. Equal logs give equal states, byte for byte of `dump`."""

    def __init__(self) -> None:
        self.leader = ""
        """Who said so in the newest term of the log, and that term."""
        self.leader_term = 0
        self._claims: dict[str, Held] = {}
        self._values: dict[str, tuple[str, int]] = {}
        self._lives: dict[tuple[str, int], _Life] = {}

    # What is agreed upon

    @property
    def claims(self) -> Mapping[str, Held]:
        """The grants in force by key."""
        return self._claims

    def configured(self, name: str) -> tuple[str, int]:
        """The value of a name and its epoch; empty and 0 when there is none."""
        return self._values.get(name, _NOTHING)

    # The log

    def apply(self, index: int, term: int, command: Command) -> Answer | None:
        """Take the entry at `index` into account; the answer for whoever asked, None where nobody did.

        Also None for a question that was settled before: whoever asked has its answer.
        """
        match command:
            case Lead():
                if command.term == term and command.term >= self.leader_term:
                    self.leader, self.leader_term = command.node, command.term
                return None
            case Expire():
                self._take(command.key, command.fence)
                return None
            case Admit():
                # Of the nodes themselves, and not of what they agree upon.
                return None
            case Claim():
                return self._once(command.request, index, term, command)
            case Release():
                return self._once(command.request, index, term, command)
            case Configure():
                return self._once(command.request, index, term, command)

    # Snapshots

    def dump(self) -> bytes:
        """The state as bytes, for `load`."""
        return _encoder.encode(
            _Kept(
                self.leader,
                self.leader_term,
                list(self._claims.items()),
                [(name, value, epoch) for name, (value, epoch) in self._values.items()],
                [
                    (owner, session, life.settled, list(life.answers.items()))
                    for (owner, session), life in self._lives.items()
                ],
            )
        )

    def load(self, dumped: bytes) -> None:
        """Be in that state; raises ValueError, and stays as it is, for bytes that are none."""
        try:
            kept = _decoder.decode(dumped)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"these {len(dumped)} bytes are no state: {error}") from None
        self.leader, self.leader_term = kept.leader, kept.leader_term
        self._claims = dict(kept.claims)
        self._values = {name: (value, epoch) for name, value, epoch in kept.values}
        self._lives = {
            (owner, session): _Life(settled, dict(answers)) for owner, session, settled, answers in kept.lives
        }

    # Inside

    def _once(
        self, request: Request, index: int, term: int, command: Claim | Release | Configure
    ) -> Answer | None:
        life = self._life(request)
        if request.settled > life.settled:
            life.settled = request.settled
            for number in [number for number in life.answers if number < request.settled]:
                del life.answers[number]
        if request.number < life.settled:
            return None
        answer = life.answers.get(request.number)
        if answer is None:
            answer = self._decide(request.owner, index, term, command)
            life.answers[request.number] = answer
            # Whoever asks more at once has not followed the rule; the log must stay bounded all the same.
            if len(life.answers) > _ANSWERS:
                oldest = min(life.answers)
                del life.answers[oldest]
                life.settled = max(life.settled, oldest + 1)
        return answer

    def _decide(self, owner: str, index: int, term: int, command: Claim | Release | Configure) -> Answer:
        match command:
            case Claim():
                return self._claim(owner, index, term, command)
            case Release():
                return Answer(self._take(command.key, command.fence, owner), term)
            case Configure():
                return self._configure(term, command)

    def _claim(self, owner: str, index: int, term: int, command: Claim) -> Answer:
        held = self._claims.get(command.key)
        if held is not None and held.owner != owner:
            return Answer(False, term, held.owner, held.fence, reason=f"{held.owner} has it")
        if command.leader_only and (self.leader != owner or self.leader_term != term):
            leads = f"{self.leader} leads" if self.leader_term == term else "nobody has led yet"
            return Answer(False, term, reason=f"only the leader may have it, and {leads} in term {term}")
        if held is None and len(self._claims) >= MOST_CLAIMS:
            return Answer(False, term, reason=f"{MOST_CLAIMS} claims are in force, which is the most")
        # An earlier grant was given for its time, which a later one does not shorten.
        hold_us = command.hold_us if held is None else max(command.hold_us, held.hold_us)
        self._claims[command.key] = Held(owner, index, hold_us)
        return Answer(True, term, owner, index)

    def _take(self, key: str, fence: int, owner: str | None = None) -> bool:
        held = self._claims.get(key)
        if held is None or held.fence != fence or owner not in (None, held.owner):
            return False
        del self._claims[key]
        return True

    def _configure(self, term: int, command: Configure) -> Answer:
        value, epoch = self.configured(command.name)
        if command.expected is not None and command.expected != epoch:
            return Answer(
                False, term, epoch=epoch, reason=f"its epoch is {epoch}, and {command.expected} was expected"
            )
        if epoch and command.value == value:
            return Answer(True, term, epoch=epoch)
        if not epoch and len(self._values) >= MOST_NAMES:
            return Answer(False, term, reason=f"{MOST_NAMES} names are configured, which is the most")
        self._values[command.name] = (command.value, epoch + 1)
        return Answer(True, term, epoch=epoch + 1)

    def _life(self, request: Request) -> _Life:
        key = (request.owner, request.session)
        life = self._lives.get(key)
        if life is None:
            life = self._lives[key] = _Life(0, {})
            # A question of an earlier life may still be on its way; those of long ago are not.
            lives = [other for other in self._lives if other[0] == request.owner]
            for other in lives[: max(0, len(lives) - _LIVES)]:
                del self._lives[other]
        return life
