"""What is read from an update before the engine sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pycrdt import Array, Doc, Map, Snapshot, Text, get_state, merge_updates

from mapek_domains.crdt.update import (
    Contents,
    Refused,
    read_message,
    read_snapshot,
    read_state,
    read_update,
)

MOST = 1 << 20


def number(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(128 | (value & 127))
        value >>= 7
    parts.append(value)
    return bytes(parts)


def text(value: str) -> bytes:
    return number(len(value.encode())) + value.encode()


def update(*structs: bytes, client: int = 5, clock: int = 0, deletions: bytes = b"\x00") -> bytes:
    return b"\x01" + number(len(structs)) + number(client) + number(clock) + b"".join(structs) + deletions


def entry(content: bytes, *, kind: int = 8, key: str = "k") -> bytes:
    return bytes((0x20 | kind,)) + b"\x01" + text("facts") + text(key) + content


PLAIN = entry(b"\x01" + b"w" + text("v"))


def maps() -> tuple[Doc[Map[Map[str]]], Map[Map[str]]]:
    doc: Doc[Map[Map[str]]] = Doc()
    return doc, doc.get("facts", type=Map)


def test_what_the_engine_writes_is_read() -> None:
    doc, root = maps()
    root["shelf"] = Map({"a": "1"})
    root["shelf"]["a"] = "2"
    root["shelf"]["ü𝄞"] = "3"
    del root["shelf"]["ü𝄞"]
    whole = doc.get_update()

    contents = read_update(whole, most=MOST)

    client = doc.client_id
    assert contents == Contents(
        update=whole,
        added={client: (0, 4)},
        deleted={client: [(1, 2), (3, 4)]},
        needs={client: 2},
        maps={(client, 0)},
        parents={(client, 0)},
    )
    assert read_state(get_state(whole)) == {client: 4}


def test_a_snapshot_is_read_the_same_whatever_the_order_of_merging() -> None:
    updates = []
    for _ in range(6):
        doc, root = maps()
        for each in range(3):
            root[f"{doc.client_id}/{each}"] = Map({"a": "1"})
        del root[f"{doc.client_id}/1"]
        updates.append(doc.get_update())
    found, bytes_of_engine = [], set()
    for shift in range(6):
        doc, _ = maps()
        for whole in (*updates[shift:], *updates[:shift]):
            doc.apply_update(whole)
        snapshot = Snapshot.from_doc(doc).encode()
        bytes_of_engine.add(snapshot)
        found.append(read_snapshot(snapshot))

    assert all(each == found[0] for each in found)
    assert [list(each[1]) for each in found] == [sorted(found[0][1])] * 6


def test_an_update_is_read_whole_or_not_at_all() -> None:
    doc, root = maps()
    root["shelf"] = Map({"a": "1", "b": "2"})
    del root["shelf"]["a"]
    whole = doc.get_update()

    for cut in range(len(whole)):
        with pytest.raises(Refused, match="malformed"):
            read_update(whole[:cut], most=MOST)
    with pytest.raises(Refused, match="malformed"):
        read_update(whole + b"\x00", most=MOST)
    with pytest.raises(Refused, match="too_large"):
        read_update(whole, most=len(whole) - 1)


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (number(2**32), "malformed"),
        (b"\x01" + number(2**60), "malformed"),
        (b"\x01" + number(2**31) + b"\x05\x00", "malformed"),
        (b"\x01\x01\x05\x00" + b"\x80" * 20, "malformed"),
        (update(b"\x00" + number(2**31), clock=1), "malformed"),
        (update(b"\x00\x00"), "malformed"),
        (update(PLAIN, clock=2**31), "malformed"),
        (update(b"\x0a\x03", PLAIN), "early"),
        (update(entry(b"\x01" + b"u\x01" * 20_000 + b"~")), "nested"),
        (update(entry(b"\x01" + b"v\x01\x01a" * 20_000 + b"~")), "nested"),
        (update(entry(b"\x01u" + number(2**40))), "malformed"),
        (update(entry(b"\x01t" + number(2**40))), "malformed"),
        (update(entry(b"\x01\x05")), "malformed"),
        (update(entry(b"\x01w\x02\xff\xfe")), "malformed"),
        (update(entry(b"\x02~~")), "unsupported"),
        (update(entry(text("abc"), kind=4)), "unsupported"),
        (update(entry(b"\x01" + text("{}"), kind=2)), "unsupported"),
        (update(entry(text("guid") + b"~", kind=9)), "unsupported"),
        (update(entry(b"\x02", kind=7)), "unsupported"),
        (update(b"\x48\x05\x00\x01~", clock=1), "unsupported"),
        (update(b"\x08\x01" + text("facts") + b"\x01~"), "unsupported"),
        (update(b"\x28\x07"), "unsupported"),
        (update(b"\x88\x05\x09\x01~"), "malformed"),
        (b"\x02" + update(PLAIN)[1:-1] * 2 + b"\x00", "malformed"),
        (update(PLAIN, deletions=b"\x01\x05\x01\x00" + number(2**40)), "malformed"),
        (update(PLAIN, deletions=b"\x01\x05" + number(2**40)), "malformed"),
    ],
)
def test_hostile_updates_are_refused(hostile: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read_update(hostile, most=MOST)

    assert refused.value.reason == reason


def _array(doc: Doc[Array[str]]) -> None:
    doc.get("list", type=Array).append("a")


def _text(doc: Doc[Text]) -> None:
    text = doc.get("text", type=Text)
    text += "hello"


@pytest.mark.parametrize("write", [_array, _text])
def test_other_types_than_maps_are_refused(write: Callable[[Doc[object]], None]) -> None:  # type: ignore[type-var]
    doc: Doc[object] = Doc()  # type: ignore[type-var]
    write(doc)

    with pytest.raises(Refused, match="unsupported"):
        read_update(doc.get_update(), most=MOST)


def test_a_gap_is_early() -> None:
    doc, root = maps()
    said: list[bytes] = []
    doc.observe(lambda event: said.append(event.update))
    for each in "abc":
        root[each] = Map({})

    with pytest.raises(Refused, match="early"):
        read_update(merge_updates(said[0], said[2]), most=MOST)
    assert read_update(merge_updates(said[0], said[1]), most=MOST).added == {doc.client_id: (0, 2)}


@pytest.mark.parametrize(
    "state", [b"", b"\x02\x05\x01", b"\x01\x05\x01\x00", b"\x02\x05\x01\x05\x02", b"\xff" * 9]
)
def test_what_is_no_state_is_refused(state: bytes) -> None:
    with pytest.raises(Refused, match="malformed"):
        read_state(state)


def test_a_message_has_the_length_it_says() -> None:
    assert read_message(b"\x02ab") == b"ab"
    for wrong in (b"", b"\x03ab", b"\x01ab", number(2**40) + b"ab"):
        with pytest.raises(Refused, match="malformed"):
            read_message(wrong)
