"""Rules of the control protocol and of adverts that hold for every input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.babel.advert import (
    LIFETIME,
    MAX_DATAGRAM,
    Advert,
    Adverts,
    Malformed,
    decode,
    encode,
)
from mapek_domains.mesh.babel.protocol import BabelState, Change, parse_change
from mapek_domains.mesh.probe import Probe

words = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
verbs = st.sampled_from(["add", "change", "flush"])
kinds = st.sampled_from(["interface", "neighbour", "route", "xroute"])
names = st.sampled_from(["n1", "n2", "n3", "n4"])

neighbour_values = st.fixed_dictionaries(
    {
        "address": st.sampled_from(["fe80::1", "fe80::2"]),
        "if": st.sampled_from(["to-n2", "to-n3"]),
        "reach": st.integers(0, 0xFFFF).map(lambda n: f"{n:04x}"),
        "ureach": st.just("0000"),
        "rxcost": st.integers(0, 65535).map(str),
        "txcost": st.integers(0, 65535).map(str),
        "cost": st.integers(0, 65535).map(str),
    }
)
adverts = st.builds(
    Advert,
    origin=names,
    seq=st.integers(1, 1 << 62),
    hops=st.integers(0, 16),
    peers=st.lists(names, max_size=4).map(tuple),
    drained=st.lists(names, max_size=4).map(tuple),
    next_hops=st.dictionaries(names, names, max_size=4),
)


@given(verbs, kinds, words, st.lists(st.tuples(words, words), max_size=8))
def test_a_line_that_was_written_by_the_grammar_is_read_back(
    verb: str, kind: str, handle: str, pairs: list[tuple[str, str]]
) -> None:
    line = " ".join([verb, kind, handle, *(word for pair in pairs for word in pair)])

    change = parse_change(line)

    assert change is not None
    assert (change.verb, change.kind, change.handle) == (verb, kind, handle)
    assert change.values == dict(pairs)


@given(st.lists(st.one_of(st.text(max_size=80), st.builds("{} {} {}".format, verbs, kinds, st.text()))))
def test_hostile_lines_are_counted_and_never_raised(lines: list[str]) -> None:
    state = BabelState()

    state.feed(lines)

    kept = len(state.interfaces) + len(state.neighbours()) + len(state.routes()) + len(state.own_prefixes())
    assert 0 <= state.refused <= len(lines)
    assert kept <= len(lines) - state.refused


@given(st.lists(st.tuples(verbs, st.sampled_from(["a1", "a2", "a3"]), neighbour_values), max_size=30))
def test_the_newest_neighbour_of_an_address_and_interface_wins(
    changes: list[tuple[str, str, dict[str, str]]],
) -> None:
    state = BabelState()
    by_handle: dict[str, dict[str, str]] = {}
    for verb, handle, values in changes:
        state.feed([f"{verb} neighbour {handle} " + " ".join(f"{k} {v}" for k, v in values.items())])
        by_handle.pop(handle, None)
        if verb != "flush":
            by_handle[handle] = values

    newest = {(v["address"], v["if"]): int(v["cost"]) for v in by_handle.values()}

    assert {key: row.cost for key, row in state.neighbours().items()} == newest
    assert state.refused == 0


@given(kinds, st.dictionaries(words, words, max_size=4))
def test_a_flush_of_what_is_not_there_is_no_error(kind: str, values: dict[str, str]) -> None:
    state = BabelState()

    assert state.apply(Change(verb="flush", kind=kind, handle="x", values=values))  # type: ignore[arg-type]


@given(st.binary(max_size=200) | st.binary(max_size=60).map(b"MB\x01".__add__))
def test_hostile_datagrams_are_malformed_and_nothing_else(datagram: bytes) -> None:
    try:
        frame = decode(datagram)
    except Malformed:
        return

    assert isinstance(frame, Probe | Advert)


@given(adverts)
def test_an_advert_survives_the_wire(advert: Advert) -> None:
    datagram = encode(advert)

    assert len(datagram) <= MAX_DATAGRAM
    assert decode(datagram) == advert


@given(st.lists(adverts, max_size=20))
def test_a_flood_ends(heard: list[Advert]) -> None:
    table = Adverts("n1")
    handed_on = 0
    queue = [*heard]
    while queue:
        advert = queue.pop()
        if table.take(advert, 0.0) and (further := advert.handed_on()) is not None:
            handed_on += 1
            queue.append(further)

    assert handed_on <= len(heard)


@given(st.lists(adverts, max_size=20), st.dictionaries(names, names), names)
def test_a_route_never_goes_in_a_circle(heard: list[Advert], own: dict[str, str], destination: str) -> None:
    table = Adverts("n1")
    for advert in heard:
        table.take(advert, 0.0)

    path = table.route(own, destination)

    assert len(set(path)) == len(path)
    assert not path or (path[0] == "n1" and path[-1] == destination)


@given(st.lists(adverts, max_size=20), st.lists(names, max_size=4))
def test_an_edge_needs_both_its_ends(heard: list[Advert], own: list[str]) -> None:
    table = Adverts("n1")
    for advert in heard:
        table.take(advert, 0.0)

    for a, b in table.edges(own, 0.0):
        says = [own if node == "n1" else _peers(heard, node) for node in (a, b)]
        assert b in says[0]
        assert a in says[1]


@given(adverts.filter(lambda advert: advert.origin != "n1"), st.floats(0, 10))
def test_sleep_of_ones_own_makes_nobody_dead(advert: Advert, asleep: float) -> None:
    table = Adverts("n1")
    table.take(advert, 0.0)

    table.overslept(asleep)

    assert table.alive(asleep + LIFETIME / 2)[advert.origin]
    assert not table.alive(asleep + LIFETIME * 1.01)[advert.origin]


def _peers(heard: list[Advert], node: str) -> set[str]:
    return {peer for advert in heard if advert.origin == node for peer in advert.peers}
