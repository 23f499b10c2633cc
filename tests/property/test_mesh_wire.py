"""Hostile datagrams: whatever the bytes, a frame or one kind of error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.probe import Probe
from mapek_domains.mesh.udp.wire import (
    MAX_DATAGRAM,
    MAX_PAYLOAD,
    Data,
    Frame,
    FrameError,
    Hello,
    Lsa,
    LsaAck,
    LsaLink,
    decode,
    encode,
)

name = st.text(min_size=1, max_size=20)
u32 = st.integers(0, 0xFFFF_FFFF)
time = st.integers(0, 1 << 62)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Probe, epoch=u32, seq=u32, sent_us=time, interval_us=u32, overslept=st.booleans(), heard_epoch=u32,
        heard_seq=u32, heard_bitmap=st.integers(0, (1 << 64) - 1), echo_us=time, hold_us=time,
    ),
    st.builds(
        Hello, node=name, heard=st.lists(name, max_size=5), digest=st.lists(st.tuples(name, u32), max_size=5)
    ),
    st.builds(
        Lsa, origin=name, seq=u32,
        links=st.lists(st.builds(LsaLink, peer=name, cost=st.integers(1, 65535)), max_size=5),
    ),
    st.builds(LsaAck, origin=name, seq=u32),
    st.builds(
        Data, id=st.integers(0, (1 << 64) - 1), source=name, destination=name, ttl=st.integers(1, 32),
        topic=name, payload=st.binary(max_size=200), traceparent=st.text(max_size=60),
    ),
)  # fmt: skip


@given(frames)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=400))
def test_random_bytes_are_a_frame_error(datagram: bytes) -> None:
    with pytest.raises(FrameError):
        decode(datagram)


@given(st.binary(max_size=400))
def test_random_bytes_behind_the_head_raise_nothing_else(body: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode(b"MK\x01" + body), Probe | Hello | Lsa | LsaAck | Data)


@given(frames, st.data())
def test_a_mutated_frame_raises_nothing_else(frame: Frame, data: st.DataObject) -> None:
    datagram = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(datagram) - 1))
        datagram[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(datagram)))
    for candidate in (bytes(datagram), bytes(datagram[:cut])):
        try:
            decoded = decode(candidate)
        except FrameError:
            continue
        assert isinstance(decoded, Probe | Hello | Lsa | LsaAck | Data)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "not_ours"),
        (b"XX\x01\x90", "not_ours"),
        (b"MK\x02\x90", "version"),
        (b"MK\x01" + b"\x91" * 10_000, "invalid"),
        (b"MK\x01" + b"\xdd\xff\xff\xff\xff", "undecodable"),
        (b"MK\x01" + b"\x91\x63", "invalid"),
        (bytes(MAX_DATAGRAM + 1), "too_long"),
    ],
    ids=["empty", "another protocol", "another version", "nested", "huge list", "unknown frame", "too long"],
)
def test_each_reason_has_its_word(datagram: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as raised:
        decode(datagram)

    assert raised.value.reason == reason


def test_a_frame_that_no_datagram_holds_is_refused_where_it_is_made() -> None:
    frame = Data(
        id=1, source="a", destination="b", ttl=1, topic="t", payload=bytes(MAX_PAYLOAD), tracestate="x" * 5000
    )

    with pytest.raises(ValueError, match="a datagram holds at most"):
        encode(frame)
