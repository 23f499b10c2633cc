"""What stands in the document: four kinds of entries, on shelves that have one writer each.

    kind       shelf, a map of its own        key             value, as JSON
    incidents  1/LIFE/NUMBER/NODE             hash            [target, problem, opened, action, closed, …]
    outcomes   1/LIFE/NUMBER/NODE             action|target   [successes, failures]
    facts      1/LIFE/NUMBER/NODE             fact            [number, value]
    goals      1/LIFE/NUMBER/NODE             goal            [number, value, traceparent]

The kinds are the roots of the document. A shelf's name begins with the version of what is on it, and LIFE is
the client id of one life of the NODE: two lives never write to one shelf, so no two writers ever fight over a
key, and a shelf whose writer has filled it with old values is replaced and deleted as a whole.

Whoever can send to a replica can write anything into it, so each value is checked when it is read. What does
not fit is `None` here: it is counted and passed over.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, NamedTuple

import msgspec
from opentelemetry.trace import SpanContext, TraceFlags

from mapek_runtime.loop.knowledge import Goal, Incident

__all__ = [
    "KINDS",
    "Counts",
    "Entry",
    "FactEntry",
    "GoalEntry",
    "IncidentEntry",
    "Key",
    "Kind",
    "Shelf",
    "decode",
    "encode",
    "goal_of",
    "incident_id",
    "incident_of",
    "outcome_key",
    "shelf_of",
]

Kind = Literal["incidents", "outcomes", "facts", "goals"]
KINDS: tuple[Kind, ...] = ("incidents", "outcomes", "facts", "goals")
Key = tuple[Kind, str, str]
"""Kind, node, key: what one value of the whole is found under, whichever shelves it comes from."""

VERSION = "1"
_MOST_KEY = 400
_MOST_VALUE = 6000

_Word = Annotated[str, msgspec.Meta(max_length=100)]
_Target = Annotated[str, msgspec.Meta(max_length=200)]
_Moment = Annotated[float, msgspec.Meta(ge=0, lt=2**33)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=2**24)]
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Number = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=1000)]
_Value = bool | _Integer | float | _Text


class IncidentEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A closed incident; it never changes."""

    target: _Target
    problem: _Word
    opened: _Moment
    action: _Word
    closed: _Moment | None
    repair_seconds: _Seconds | None
    success: bool | None
    trace_id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")]


class Counts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """How often an action of one life has worked, and has not; both only grow."""

    successes: _Count
    failures: _Count


class FactEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A fact; of two lives of a node the higher number holds."""

    number: _Number
    value: _Value


class GoalEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A goal; of all nodes the higher number holds, and of equal ones that of the later name."""

    number: _Number
    value: _Value
    traceparent: Annotated[str, msgspec.Meta(pattern=r"^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")] = ""


Entry = IncidentEntry | Counts | FactEntry | GoalEntry

_encoder = msgspec.json.Encoder()
_decoders: dict[Kind, msgspec.json.Decoder[Entry]] = {
    "incidents": msgspec.json.Decoder(IncidentEntry),
    "outcomes": msgspec.json.Decoder(Counts),
    "facts": msgspec.json.Decoder(FactEntry),
    "goals": msgspec.json.Decoder(GoalEntry),
}


class Shelf(NamedTuple):
    """The name of a shelf, taken apart."""

    life: str
    number: int
    node: str

    def __str__(self) -> str:
        return f"{VERSION}/{self.life}/{self.number}/{self.node}"


def shelf_of(name: str) -> Shelf | None:
    """The parts of a shelf's name; None for one that is no shelf, or of another version."""
    parts = name.split("/", 3)
    if len(parts) < 4 or parts[0] != VERSION:
        return None
    _, life, number, node = parts
    if not 0 < len(life) <= 16 or not 0 < len(node) <= 64:
        return None
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        return None
    shelf = Shelf(life, int(number), node)
    # One name for one shelf.
    return shelf if str(shelf) == name else None


def encode(entry: Entry) -> str:
    """The entry as it stands in the document."""
    return _encoder.encode(entry).decode()


def decode(kind: Kind, node: str, key: str, value: object) -> Entry | None:
    """The entry under a key of a shelf of `node`; None where it is not one."""
    if not isinstance(value, str) or not 0 < len(key) <= _MOST_KEY or len(value) > _MOST_VALUE:
        return None
    try:
        entry = _decoders[kind].decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if isinstance(entry, IncidentEntry) and key != incident_id(node, entry):
        return None
    if kind == "outcomes" and "|" not in key:
        return None
    return entry


def incident_id(node: str, incident: IncidentEntry | Incident) -> str:
    """What an incident is known by everywhere, so that it is counted once however it comes."""
    words = (node, incident.target, incident.problem, repr(float(incident.opened)), incident.action)
    return hashlib.blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def incident_of(entry: IncidentEntry, node: str) -> Incident:
    """The incident of an entry."""
    return Incident(
        target=entry.target,
        problem=entry.problem,
        opened=entry.opened,
        action=entry.action,
        closed=entry.closed,
        repair_seconds=entry.repair_seconds,
        success=entry.success,
        trace_id=entry.trace_id,
        node=node,
    )


def outcome_key(action: str, target: str) -> str:
    """Under what the outcomes of an action on a target stand; an action's name has no bar in it."""
    return f"{action}|{target}"


def goal_of(name: str, entry: GoalEntry, node: str) -> Goal:
    """The goal of an entry, with the span in which it was set."""
    context = None
    if entry.traceparent:
        _, trace_id, span_id, flags = entry.traceparent.split("-")
        found = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
        context = found if found.is_valid else None
    return Goal(name=name, value=entry.value, author=node, number=entry.number, span_context=context)
