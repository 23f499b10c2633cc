"""Whatever comes over the wire: a message or a reason, and a node that goes on."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.fl.parts import Parts, split
from mapek_domains.fl.wire import (
    FRESH,
    Arrays,
    Ask,
    Call,
    Declined,
    Download,
    Fetch,
    Message,
    Model,
    Part,
    Ready,
    Upload,
    Version,
    WireError,
    arrays,
    decode,
    encode,
    weights_of,
)
from mapek_runtime.testing import AutojumpClock
from tests.unit.fl.toy import Toy, net

words = st.text(max_size=20)
kinds = st.text(min_size=1, max_size=20)
digests = st.binary(min_size=16, max_size=16)
tokens = st.integers(0, (1 << 63) - 1)
versions = st.builds(Version, st.integers(0, 1 << 40), words)
shapes = st.lists(st.lists(st.integers(1, 5), max_size=4).map(tuple), max_size=4).map(tuple)
models = st.builds(Arrays, shapes, st.binary(max_size=400))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ask, words),
    st.builds(Call, tokens, versions),
    st.builds(Ready, tokens, versions, st.integers(0, 1 << 40)),
    st.builds(Download, tokens, versions, kinds, models),
    st.builds(Upload, tokens, kinds, st.integers(-5, 1 << 40), st.floats(allow_nan=False), models),
    st.builds(Declined, tokens, words),
    st.builds(Model, versions, kinds, models),
    st.builds(Fetch, versions),
    st.builds(Part, digests, st.integers(1, 9999), st.integers(0, 9999), st.binary(min_size=1)),
)


@given(messages)
def test_every_message_comes_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def reason(payload: bytes) -> str:
    """Why these bytes are not a message that can be worked on; empty where they are one."""
    try:
        message = decode(payload)
        if isinstance(message, Download | Upload | Model):
            weights_of(message.model)
    except WireError as error:
        return error.reason
    assert decode(encode(message)) == message or "nan" in repr(message)
    return ""


REASONS = {"", "not_ours", "version", "invalid", "undecodable", "size"}


@given(st.one_of(st.binary(), st.binary().map(lambda rest: b"FL\x01" + rest)))
def test_any_bytes_are_a_message_or_have_a_reason(payload: bytes) -> None:
    assert reason(payload) in REASONS


@given(messages, st.data())
def test_a_message_with_a_wrong_byte_is_a_message_or_has_a_reason(
    message: Message, data: st.DataObject
) -> None:
    payload = bytearray(encode(message))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))

    assert reason(bytes(payload)) in REASONS


@given(st.lists(st.lists(st.integers(1, 6), max_size=3), max_size=5), st.integers(0, 99))
def test_weights_come_as_they_were_sent(sizes: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=size).astype(np.float32) for size in sizes]

    came = weights_of(arrays(weights))

    assert [array.shape for array in came] == [array.shape for array in weights]
    assert all(np.array_equal(a, b) for a, b in zip(came, weights, strict=True))


@settings(max_examples=40)
@given(
    st.lists(st.integers(600, 20_000), min_size=1, max_size=2, unique=True),
    st.integers(600, 3000),
    st.randoms(use_true_random=False),
    st.floats(0.0, 0.6),
)
def test_parts_in_any_order_some_lost_some_doubled_give_the_message_when_sent_often_enough(
    sizes: list[int], most: int, rng: random.Random, lost: float
) -> None:
    wanted = [rng.randbytes(size) for size in sizes]
    parts, found = Parts(), list[bytes]()

    for _ in range(100):
        if set(found) == set(wanted):
            break
        wire = [piece for payload in wanted for piece in split(payload, most) if rng.random() >= lost]
        wire += [piece for piece in wire if rng.random() < 0.2]
        rng.shuffle(wire)
        for piece in wire:
            message = piece if piece in wanted else None
            if message is None:
                part = decode(piece)
                assert isinstance(part, Part)
                message = parts.add("a", part, 0.0)
            if message is not None:
                found.append(message)

    assert set(found) == set(wanted)
    assert parts.held <= sum(sizes)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), messages), max_size=30),
    st.integers(0, 99),
)
def test_nodes_go_on_whatever_they_are_sent(hostile: list[tuple[str, str, Message]], seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> Any:
        with AutojumpClock():
            async with net(Toy({"a": 1.0, "b": 2.0}), nodes=("a", "b")) as here:
                for source, destination, message in hostile:
                    await asyncio.sleep(rng.uniform(0.0, 3.0))
                    here.messenger._planes[source].send(destination, "fl", encode(message), traced=False)
                count = len(here.events)
                await here.rounds(count + 2)
                return here.numbers(), [here.session.counts(name) for name in "ab"], here.versions()

    numbers, counts, found = asyncio.run(run())

    # What is learned is between what the nodes wish for.
    assert all(0.0 <= number <= 2.0 for number in numbers.values())
    assert not any("dropped.failed" in each or "round.failed" in each for each in counts)
    assert all(version > (FRESH.round, "") for version in found.values())
