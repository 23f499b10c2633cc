"""Frames: whatever the bytes, a frame or one kind of error, and never a pickle."""

from __future__ import annotations

import contextlib
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.raft.commands import MOST_COMMAND, Claim, Configure, Request
from mapek_domains.raft.commands import encode as encode_command
from mapek_domains.raft.embedded.wire import (
    MOST_CHUNK,
    MOST_FRAME,
    MOST_INDEX,
    NO_OP,
    REGULAR,
    Append,
    Ask,
    Body,
    Chunk,
    Frame,
    FrameError,
    Hello,
    Progress,
    Propose,
    Say,
    Vote,
    check_entry,
    decode,
    encode,
    split,
)

index = st.integers(0, MOST_INDEX)
entry = REGULAR + encode_command(Claim(Request("node-1", 1, 2), "drain node-1~node-2", 5_000_000))
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(Hello),
    st.builds(Ask, index, index, st.booleans()),
    st.builds(Vote, index, st.booleans()),
    st.builds(Append, index, st.just(0), index, st.lists(st.just((3, entry)), max_size=4)),
    st.builds(Chunk, index, st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.binary(max_size=50)),
    st.builds(Progress, index, st.booleans(), st.booleans()),
    st.builds(Propose, st.binary(max_size=50)),
)
frames = st.builds(
    Frame,
    group=st.integers(0, 0xFFFF_FFFF),
    sender=st.text(min_size=1, max_size=20),
    identity=st.integers(0, (1 << 63) - 1),
    life=st.integers(0, 0xFFFF_FFFF),
    seq=index,
    to=index,
    say=st.sampled_from(Say),
    term=st.integers(3, MOST_INDEX),
    body=bodies,
)


def framed(body: Body, *, term: int = 3) -> Frame:
    return Frame(1, "node-1", 2, 1, 1, 0, Say.SETTLED, term, body)


@given(frames)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=400))
def test_random_bytes_are_a_frame_error(message: bytes) -> None:
    with pytest.raises(FrameError):
        decode(message)


@given(frames, st.data())
def test_a_changed_frame_raises_nothing_else(frame: Frame, data: st.DataObject) -> None:
    message = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))

    for candidate in (bytes(message), bytes(message[:cut])):
        with contextlib.suppress(FrameError):
            assert isinstance(decode(candidate), Frame)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not_ours"),
        (pickle.dumps({"type": "append_entries"}), "not_ours"),
        (b"MR\x02" + encode(framed(Hello()))[3:], "version"),
        (b"MR\x01" + pickle.dumps({"type": "append_entries"}), "invalid"),
        (b"MR\x01" + b"\x91" * 10_000, "invalid"),
        (b"MR\x01" + b"\xdd\xff\xff\xff\xff", "undecodable"),
        (bytes(MOST_FRAME + 1), "too_long"),
        (encode(framed(Append(1, 0, 0, [(4, NO_OP)]), term=3)), "terms"),
        (encode(framed(Append(1, 2, 0, [(1, NO_OP)]), term=3)), "terms"),
        (encode(framed(Append(1, 4, 0, []), term=3)), "terms"),
        (encode(framed(Append(1, 0, 0, [(3, b"\x00" + pickle.dumps(1))]))), "command"),
        (encode(framed(Append(1, 0, 0, [(3, b"\x02" + pickle.dumps(["add", "x"]))]))), "command_kind"),
        (encode(framed(Append(1, 0, 0, [(3, b"\x03" + pickle.dumps(7))]))), "command_kind"),
        (encode(framed(Append(1, 0, 0, [(3, NO_OP + b"more")]))), "command_kind"),
    ],
    ids=[
        "empty", "a pickle", "another version", "a pickle behind the head", "nested", "huge list", "too long",
        "a term after the frame's", "a term that goes back", "a term before that is after",
        "a pickled command", "a change of the members", "a change of the version", "more than nothing",
    ],
)  # fmt: skip
def test_each_reason_has_its_word(message: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as raised:
        decode(message)

    assert raised.value.reason == reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -1, 1 << 63, True, "1", None])
@pytest.mark.parametrize("place", range(8))
def test_what_is_no_such_number_is_no_frame(value: object, place: int) -> None:
    frame: list[object] = [1, "node-1", 2, 1, 1, 0, 2, 3, [1]]
    frame[place] = value
    if place == 1 and value == "1":
        frame[place] = ""

    with pytest.raises(FrameError):
        decode(b"MR\x01" + msgspec.msgpack.encode(frame))


@given(st.lists(st.integers(1, MOST_COMMAND + 1), max_size=30), st.integers(0, 5))
def test_entries_are_split_so_that_each_frame_fits_and_none_is_lost(sizes: list[int], prev: int) -> None:
    entries = [(2 + place // 7, bytes(size)) for place, size in enumerate(sizes)]
    parts = list(split(Append(prev, 1, 9, entries)))

    assert [each for part in parts for each in part.entries] == entries
    at, term = prev, 1
    for part in parts:
        assert (part.prev_index, part.prev_term, part.commit) == (at, term, 9)
        at += len(part.entries)
        term = part.entries[-1][0] if part.entries else term
        assert len(encode(framed(part, term=50))) <= MOST_FRAME


def test_a_thousand_small_entries_are_split_too() -> None:
    parts = list(split(Append(1, 1, 0, [(1, NO_OP)] * 1300)))

    assert [len(part.entries) for part in parts] == [512, 512, 276]


def test_the_longest_command_and_the_longest_chunk_fit() -> None:
    longest = "\U0001f578"
    command = encode_command(
        Configure(Request(longest * 64, (1 << 63) - 1, 1, 1), longest * 200, longest * 700, MOST_INDEX)
    )
    check_entry(REGULAR + command)

    chunk = Chunk(MOST_INDEX, 1 << 24, 1 << 24, bytes(MOST_CHUNK))
    append = Append(MOST_INDEX, 1, MOST_INDEX, [(1, REGULAR + command)] * 3)
    for body in (chunk, append, Propose(command)):
        frame = Frame(
            0xFFFF_FFFF, longest * 64, MOST_INDEX, 0xFFFF_FFFF, MOST_INDEX, MOST_INDEX, Say.BLANK, MOST_INDEX,
            body,
        )  # fmt: skip
        assert len(encode(frame)) <= MOST_FRAME


def test_a_frame_that_no_message_holds_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="a message holds at most"):
        encode(framed(Append(1, 1, 1, [(1, bytes(4000))] * 5)))
