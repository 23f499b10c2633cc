"""The envelope: what is written is read, and nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, create_sync_message, create_update_message

from mapek_domains.crdt.messages import (
    Again,
    Compare,
    Frame,
    Part,
    Sync,
    YSyncMessageType,
    decode,
    encode,
    read_sync,
    step1,
    step2,
    update_message,
)
from mapek_domains.crdt.update import Refused


@pytest.mark.parametrize(
    "frame",
    [
        Compare(bytes(16)),
        Sync(b"\x00\x00\x01\x00"),
        Sync(b"abc", True),
        Part(1, 0, 2, b"x"),
        Again(1, [0, 4095]),
    ],
)
def test_what_is_written_is_read(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_ours"),
        (b"MK\x01", "not_ours"),
        (b"KC", "version"),
        (b"KC\x02" + encode(Compare(bytes(16)))[3:], "version"),
        (b"KC\x01", "undecodable"),
        (b"KC\x01\xc1", "undecodable"),
        (b"KC\x01" + b"\x91" * 100_000, "undecodable"),
        (encode(Compare(bytes(15))), "undecodable"),
        (encode(Part(1, 0, 1, b"x")), "undecodable"),
        (encode(Part(1, 4096, 4096, b"x")), "undecodable"),
        (encode(Part(1, 0, 2, b"")), "undecodable"),
        (encode(Again(1, [])), "undecodable"),
        (encode(Again(1, list(range(4097)))), "undecodable"),
    ],
)
def test_anything_else_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        decode(payload)

    assert refused.value.reason == reason


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for payload in (data, b"KC\x01" + data):
        with suppress(Refused):
            decode(payload)
    with suppress(Refused):
        read_sync(data)


def test_the_sync_messages_are_those_of_yjs() -> None:
    doc: Doc[object] = Doc()  # type: ignore[type-var]

    assert step1(doc.get_state()) == create_sync_message(doc)
    assert update_message(b"abc") == create_update_message(b"abc")
    assert read_sync(step2(b"x" * 300)) == (YSyncMessageType.SYNC_STEP2, b"x" * 300)
