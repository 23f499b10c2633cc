"""What babeld 1.12.1 was seen to write, read into tables."""

from __future__ import annotations

import pytest

from mapek_domains.mesh.babel.protocol import INFINITY, BabelState, parse_change

DUMP = """\
add interface to-n2 up true ipv6 fe80::14eb:beff:fe05:dd0 ipv4 10.1.0.1
add neighbour 564057075e60 address fe80::1c15:ddff:fed7:c303 if to-n2 reach fff0 ureach 0000 \
rxcost 96 txcost 97 cost 98
add xroute 10.255.0.1/32-0.0.0.0/0 prefix 10.255.0.1/32 from 0.0.0.0/0 metric 0
add route 564057076790 prefix 10.255.0.2/32 from 0.0.0.0/0 installed yes \
id f8:64:d7:ae:2a:dd:8c:98 metric 96 refmetric 0 via fe80::1c15:ddff:fed7:c303 if to-n2
add route 561cb89ef7d0 prefix 10.255.0.3/32 from 0.0.0.0/0 installed no \
id 7c:43:91:ec:53:32:59:d2 metric 96 refmetric 0 via fe80::804a:faff:fee8:1fb9 if to-n2
""".splitlines()


@pytest.fixture
def state() -> BabelState:
    state = BabelState()
    state.feed(DUMP)
    return state


def test_a_dump_fills_the_tables(state: BabelState) -> None:
    neighbour = state.neighbour_on("to-n2")

    assert state.refused == 0
    assert state.interfaces["to-n2"].up
    assert neighbour is not None
    assert (neighbour.reach, neighbour.rxcost, neighbour.txcost, neighbour.cost) == (0xFFF0, 96, 97, 98)
    assert state.own_prefixes() == ("10.255.0.1/32",)


def test_only_an_installed_route_is_in_force(state: BabelState) -> None:
    assert list(state.installed()) == ["10.255.0.2/32"]
    assert len(state.routes()) == 2


def test_a_route_of_infinite_metric_is_not_in_force(state: BabelState) -> None:
    state.feed([DUMP[3].replace("add", "change").replace("metric 96", f"metric {INFINITY}")])

    assert state.installed() == {}


def test_an_interface_that_is_flushed_is_gone_whatever_is_said_of_it(state: BabelState) -> None:
    state.feed(["flush interface to-n2 up false"])

    assert state.interfaces == {}


def test_a_neighbour_that_lingers_does_not_hide_the_new_one(state: BabelState) -> None:
    # After a flush and an add the old one stays for seconds, and its hellos still change it away.
    old = DUMP[1]
    new = old.replace("564057075e60", "564057999999").replace("cost 98", "cost 96")
    state.feed([new, "flush neighbour 564057075e60 address x if to-n2 reach 0 rxcost 0 txcost 0 cost 65535"])

    neighbour = state.neighbour_on("to-n2")

    assert neighbour is not None
    assert (neighbour.handle, neighbour.cost) == ("564057999999", 96)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ok",
        "add",
        "add interface",
        "add interface to-n2 up",
        "add interface to-n2 up true ipv6",
        "remove interface to-n2 up true",
        "add tunnel to-n2 up true",
        "add interface to-n2 " + "k v " * 1000,
    ],
)
def test_a_line_outside_the_grammar_is_no_change(line: str) -> None:
    assert parse_change(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "add interface to-n2 ipv4 10.1.0.1",
        "add neighbour 1 address a if b reach zz rxcost 1 txcost 1 cost 1",
        "add neighbour 1 address a",
        "add route 1 prefix p from q installed yes metric one refmetric 0 via a if b",
        "add xroute 1 from x",
    ],
)
def test_a_change_that_lacks_what_it_must_say_is_counted(line: str) -> None:
    state = BabelState()

    state.feed([line])

    assert state.refused == 1
