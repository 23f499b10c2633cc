"""Updates that were tampered with: refused, and nothing is changed by them, or merged, and all goes on."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_domains.crdt.document import Batch, Document
from mapek_domains.crdt.update import Refused, read_message, read_snapshot, read_state, read_update
from mapek_runtime.loop.knowledge import Goal
from tests.unit.crdt.net import incident, leaves

LIKELY = st.sampled_from(
    [0, 1, 7, 8, 10, 0x21, 0x27, 0x28, 0x68, 0xA1, 0xA8, 0xE8, 117, 118, 119, 127, 128, 255]
)
places = st.floats(0.0, 1.0, exclude_max=True)
tamperings = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("set"), places, LIKELY | st.integers(0, 255)),
        st.tuples(st.just("cut"), places, st.integers(1, 8)),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("repeat"), places, st.integers(1, 30)),
    ),
    min_size=1,
    max_size=4,
)


def tampered(update: bytes, how: list[tuple[str, float, object]]) -> bytes:
    data = bytearray(update)
    for what, share, value in how:
        at = int(share * len(data))
        match what, value:
            case "flip", int() if data:
                data[at] ^= 1 << value
            case "set", int() if data:
                data[at] = value
            case "cut", int():
                del data[at : at + value]
            case "insert", bytes():
                data[at:at] = value
            case "repeat", int():
                data[at:at] = data[at : at + value]
    return bytes(data)


@given(st.lists(tamperings, min_size=1, max_size=20), st.integers(0, 2))
@settings(max_examples=150)
def test_a_tampered_update_is_refused_or_merged_and_nothing_between(
    tries: list[list[tuple[str, float, object]]], which: int
) -> None:
    one, two, three = (Document(f"node-{number}") for number in (1, 2, 3))
    said = []
    for number in range(4):
        document, other = (one, two) if number % 2 else (two, one)
        goals = {"g": Goal(name="g", value=number)}
        update, _ = document.commit(Batch(closed=[incident(number)], facts={"a": number}, goals=goals))
        other.merge(other.examine(update))
        said.append(update)
    target = (one, two, three)[which]

    for how in tries:
        update = tampered(said[-1] if len(how) % 2 else one.whole(), how)
        before = target.whole(), target.digest(), leaves(target), dict(target.view.values)
        clocks = read_state(target.state())
        try:
            changes = target.merge(target.examine(update))
        except Refused:
            assert (target.whole(), target.digest(), leaves(target), target.view.values) == before
            assert read_state(target.state()) == clocks
            continue
        assert all(target.view.values.get(key) == value for key, value in changes.items())
        # It goes on as before, and whoever joins gets all of it.
        target.commit(Batch(facts={"b": len(changes)}))
        assert target.facts()[target.node, "b"] == len(changes)
        newcomer, whole = Document("newcomer"), target.whole()
        newcomer.merge(newcomer.examine(whole))
        assert read_state(newcomer.state()) == read_state(target.state())


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_no_bytes_are_anything_but_read_or_refused(data: bytes) -> None:
    for read in (read_state, read_message, read_snapshot):
        with suppress(Refused):
            read(data)
    with suppress(Refused):
        read_update(data, most=1000)
