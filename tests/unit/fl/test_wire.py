"""The messages: what is sent is what comes, and what is not a message has a reason."""

from __future__ import annotations

import math
import pickle
import struct

import msgspec
import numpy as np
import pytest

from mapek_domains.fl import wire
from mapek_domains.fl.wire import Arrays, Message, Version, WireError, arrays, decode, encode, weights_of

WEIGHTS = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5, -2.5], np.float32))
MODEL = arrays(WEIGHTS)
MESSAGES: list[Message] = [
    wire.Ask("drain node-1~node-2"),
    wire.Call(7, Version(3, "node-1")),
    wire.Ready(7, Version(3, "node-1"), 120),
    wire.Download(7, Version(3, "node-1"), "mesh.link", MODEL),
    wire.Upload(7, "mesh.link", 120, 0.25, MODEL),
    wire.Declined(7, "no_samples"),
    wire.Model(Version(4, "node-1"), "mesh.link", MODEL),
    wire.Fetch(Version(0, "")),
    wire.Part(bytes(16), 100, 0, b"some bytes"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_sent_is_what_comes(message: Message) -> None:
    assert decode(encode(message)) == message


def test_weights_travel_as_little_endian_float32_in_the_order_of_c() -> None:
    turned = np.asfortranarray(WEIGHTS[0]).astype(">f4")

    assert MODEL.shapes == ((2, 3), (2,))
    assert MODEL.data == struct.pack("<8f", 0, 1, 2, 3, 4, 5, 1.5, -2.5)
    assert arrays((turned, WEIGHTS[1])) == MODEL


def test_weights_come_as_they_were_and_cannot_be_written_to() -> None:
    came = weights_of(MODEL)

    assert [array.dtype for array in came] == [np.float32, np.float32]
    assert all(np.array_equal(a, b) for a, b in zip(came, WEIGHTS, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        came[0][0, 0] = 1.0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_ours"),
        (b"MK\x01\x93", "not_ours"),
        (pickle.dumps(WEIGHTS), "not_ours"),
        (b"FL", "version"),
        (b"FL\x02" + encode(MESSAGES[1])[3:], "version"),
        (b"FL\x01" + pickle.dumps(WEIGHTS), "invalid"),
        (b"FL\x01", "undecodable"),
        (encode(MESSAGES[3])[:-1], "undecodable"),
        (encode(MESSAGES[3]) + b"\x00", "undecodable"),
        (b"FL\x01" + b"\x91" * 5000, "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([99, 1]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([2, -1, [3, "a"]]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([2, 1, [1 << 62, "a"]]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([2, 1, [3, "a" * 65]]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([7, [1, "a"], "k", [[[-4]], b""]]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([7, [1, "a"], "k", [[[1 << 30]], b""]]), "invalid"),
        (b"FL\x01" + msgspec.msgpack.encode([7, [1, "a"], "k", [[[1]] * 65, b""]]), "invalid"),
        (b"FL\x01" + bytes(wire.MOST), "too_long"),
    ],
)
def test_what_is_not_a_message_has_a_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(WireError) as raised:
        decode(payload)

    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "model",
    [
        Arrays(((2, 3),), bytes(20)),
        Arrays(((2, 3),), bytes(25)),
        Arrays((), bytes(4)),
        Arrays(((1 << 20,) * 4,) * 64, b""),
    ],
    ids=["too few", "no whole number", "no shape", "huge"],
)
def test_shapes_that_are_not_those_of_the_bytes_are_refused(model: Arrays) -> None:
    with pytest.raises(WireError, match="size"):
        weights_of(model)


def test_a_model_that_is_too_large_is_refused_with_words() -> None:
    large = arrays((np.zeros(wire.MOST // 4, np.float32),))

    with pytest.raises(ValueError, match=r"a Model of 41943.. bytes.*at most 4194304.*1048576 parameters"):
        encode(wire.Model(Version(1, "a"), "k", large))


def test_the_newer_model_is_that_of_the_higher_round_and_then_of_the_later_name() -> None:
    versions = [Version(2, "a"), Version(1, "z"), wire.FRESH, Version(2, "b"), Version(10, "a")]

    assert sorted(versions) == [
        wire.FRESH,
        Version(1, "z"),
        Version(2, "a"),
        Version(2, "b"),
        Version(10, "a"),
    ]


def test_numbers_that_are_none_travel_and_are_for_others_to_refuse() -> None:
    came = decode(encode(wire.Upload(1, "k", -1, math.nan, arrays((np.array([np.nan], np.float32),)))))

    assert isinstance(came, wire.Upload)
    assert math.isnan(came.loss)
    assert np.isnan(weights_of(came.model)[0][0])
