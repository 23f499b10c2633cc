"""What an update would do to a document, read from its bytes before it is applied.

The engine applies what it can and keeps the rest for later, without a bound, and a value nested some ten
thousand times over overflows its stack, which ends the process. So an update is read here first (Yjs'
format, version 1: `UpdateDecoderV1` and `readStructs` of yjs) and one that is not whole, too large, nested
too deep, or that builds on what is not there, never reaches the engine. Of Yjs' types only maps are let in:
a document here has no others, and what merges of crafted lists and texts lead to depends on the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mapek_runtime.errors import MapekError

__all__ = ["Contents", "Refused", "read_message", "read_snapshot", "read_state", "read_update"]

Ranges = dict[int, list[tuple[int, int]]]
"""Client → where ranges of its changes begin and end."""

_MOST_CLOCK = 2**31
_MOST_NUMBER = 2**53
_DEEPEST = 32
_LEFT_ORIGIN, _RIGHT_ORIGIN, _MAP_KEY, _CONTENT = 0x80, 0x40, 0x20, 0x1F
_MAP = 1
_FIXED = {120: 0, 121: 0, 122: 8, 123: 8, 124: 4, 126: 0, 127: 0}
"""Bytes after the tag of a value without a length, which may be a truth, a number, or nothing."""


class Refused(MapekError):
    """These bytes are not taken; `reason` is one of a few words, to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Contents:
    """What an update holds: `added` changes of each client, one range a client, and `deleted` ranges.

    `needs` says, for each client, up to where its changes must be there for this one to build on. `nested`
    counts the maps that may lie within another one: what lies deep is deleted and observed by recursion.
    `maps` are the (client, change) that are maps, `parents` those that must be. `update` is the bytes.
    """

    update: bytes
    added: dict[int, tuple[int, int]] = field(default_factory=dict)
    deleted: Ranges = field(default_factory=dict)
    needs: dict[int, int] = field(default_factory=dict)
    maps: set[tuple[int, int]] = field(default_factory=set)
    parents: set[tuple[int, int]] = field(default_factory=set)
    nested: int = 0


def read_update(update: bytes, *, most: int) -> Contents:
    """What is in an update of at most `most` bytes; raises `Refused` for whatever is not one."""
    if len(update) > most:
        raise Refused("too_large")
    reader = _Reader(update)
    contents = Contents(update)
    for _ in range(reader.number()):
        _read_client(reader, contents)
    contents.deleted = reader.ranges()
    reader.finish()
    return contents


def read_state(state: bytes) -> dict[int, int]:
    """Client → how many changes of it are there; raises `Refused` for what is not a state vector."""
    reader = _Reader(state)
    clocks = reader.clocks()
    reader.finish()
    return clocks


def read_snapshot(snapshot: bytes) -> tuple[Ranges, dict[int, int]]:
    """What is deleted and what is there in a snapshot of the engine, both in order.

    The same for every replica in the same state, which the snapshot's own bytes are not.
    """
    reader = _Reader(snapshot)
    deleted = {client: _joined(found) for client, found in sorted(reader.ranges().items()) if found}
    clocks = dict(sorted((client, clock) for client, clock in reader.clocks().items() if clock))
    return deleted, clocks


def read_message(data: bytes) -> bytes:
    """What a length and as many bytes hold; raises `Refused` where there are fewer, or more."""
    reader = _Reader(data)
    length = reader.number()
    at = len(data) - length
    reader.skip(length)
    reader.finish()
    return data[at:]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _read_client(reader: _Reader, contents: Contents) -> None:
    structs, client, clock = reader.number(), reader.number(), reader.number()
    if client in contents.added:
        raise Refused("malformed")
    start = clock
    for _ in range(structs):
        info = reader.byte()
        if info == 10:
            # A gap: what belongs there comes with a synchronisation.
            raise Refused("early")
        length = reader.number() if info == 0 else _read_item(reader, info, client, clock, contents)
        clock += length
        if not length or clock > _MOST_CLOCK:
            raise Refused("malformed")
    if structs:
        contents.added[client] = start, clock


def _read_item(reader: _Reader, info: int, client: int, clock: int, contents: Contents) -> int:
    """Read one entry of a map and return its length in changes."""
    if info & _RIGHT_ORIGIN:
        raise Refused("unsupported")
    is_root = False
    if info & _LEFT_ORIGIN:
        # It takes the place of that one, in its map and under its key.
        _refer(reader, client, clock, contents)
    else:
        parent = reader.number()
        if parent > 1 or not info & _MAP_KEY:
            raise Refused("unsupported")
        is_root = parent == 1
        if is_root:
            reader.text()
        else:
            contents.parents.add(_refer(reader, client, clock, contents))
        reader.text()
    match info & _CONTENT:
        case 1:
            return reader.number()
        case 3:
            reader.skip(reader.number())
        case 7:
            if reader.number() != _MAP:
                raise Refused("unsupported")
            contents.maps.add((client, clock))
            contents.nested += not is_root
        case 8:
            if reader.number() != 1:
                raise Refused("unsupported")
            reader.value(0)
        case _:
            raise Refused("unsupported")
    return 1


def _refer(reader: _Reader, client: int, clock: int, contents: Contents) -> tuple[int, int]:
    other, at = reader.number(), reader.number()
    if other == client and at >= clock:
        # Within its own history a change builds on earlier ones only.
        raise Refused("malformed")
    if at >= contents.needs.get(other, 0):
        contents.needs[other] = at + 1
    return other, at


class _Reader:
    """Reads what lib0 writes; raises `Refused` where the bytes end early or are no such thing."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    def finish(self) -> None:
        if self._at != self._end:
            raise Refused("malformed")

    def byte(self) -> int:
        at = self._at
        if at >= self._end:
            raise Refused("malformed")
        self._at = at + 1
        return self._data[at]

    def number(self) -> int:
        at = self._at
        if at >= self._end:
            raise Refused("malformed")
        data = self._data
        byte = data[at]
        at += 1
        if byte < 128:
            self._at = at
            return byte
        value, shift = byte & 127, 7
        while True:
            if at >= self._end:
                raise Refused("malformed")
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 56:
                raise Refused("malformed")
        if value > _MOST_NUMBER:
            raise Refused("malformed")
        self._at = at
        return value

    def skip(self, length: int) -> None:
        self._at += length
        if self._at > self._end:
            raise Refused("malformed")

    def text(self) -> str:
        length = self.number()
        at = self._at
        self.skip(length)
        try:
            return self._data[at : self._at].decode()
        except UnicodeDecodeError:
            raise Refused("malformed") from None

    def value(self, depth: int) -> None:
        """Pass over one value of any kind."""
        if depth > _DEEPEST:
            raise Refused("nested")
        tag = self.byte()
        fixed = _FIXED.get(tag)
        if fixed is not None:
            self.skip(fixed)
            return
        match tag:
            case 119:
                self.text()
            case 125:
                while self.byte() >= 128:
                    pass
            case 118:
                for _ in range(self.number()):
                    self.text()
                    self.value(depth + 1)
            case 117:
                for _ in range(self.number()):
                    self.value(depth + 1)
            case 116:
                self.skip(self.number())
            case _:
                raise Refused("malformed")

    def ranges(self) -> Ranges:
        found: Ranges = {}
        for _ in range(self.number()):
            client, count = self.number(), self.number()
            ranges = found.setdefault(client, [])
            for _ in range(count):
                start, length = self.number(), self.number()
                if start + length > _MOST_CLOCK:
                    raise Refused("malformed")
                if length:
                    ranges.append((start, start + length))
        return found

    def clocks(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for _ in range(self.number()):
            client, clock = self.number(), self.number()
            if client in found or clock > _MOST_CLOCK:
                raise Refused("malformed")
            found[client] = clock
        return found
