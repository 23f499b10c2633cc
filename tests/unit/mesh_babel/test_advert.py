"""What the nodes of a Babel mesh learn from one another."""

from __future__ import annotations

from mapek_domains.mesh.babel.advert import LIFETIME, Advert, Adverts


def advert(
    origin: str,
    seq: int = 1,
    *,
    peers: tuple[str, ...] = (),
    drained: tuple[str, ...] = (),
    next_hops: dict[str, str] | None = None,
) -> Advert:
    return Advert(origin=origin, seq=seq, hops=8, peers=peers, drained=drained, next_hops=next_hops or {})


def test_an_older_advert_is_not_taken() -> None:
    table = Adverts("n1")
    table.take(advert("n2", 5), 0.0)

    assert not table.take(advert("n2", 5), 0.1)
    assert not table.take(advert("n2", 4), 0.1)
    assert table.take(advert("n2", 6), 0.1)


def test_a_node_whose_clock_was_set_back_is_believed_once_it_was_silent() -> None:
    table = Adverts("n1")
    table.take(advert("n2", 1000), 0.0)

    assert table.take(advert("n2", 3), LIFETIME)


def test_ones_own_advert_coming_back_is_not_taken() -> None:
    assert not Adverts("n1").take(advert("n1"), 0.0)


def test_a_wish_to_drain_counts_while_its_node_speaks() -> None:
    table = Adverts("n1")
    table.take(advert("n2", drained=("n1",)), 0.0)

    assert table.wants_drained("n2", LIFETIME / 2)
    assert not table.wants_drained("n2", LIFETIME)
    assert not table.wants_drained("n3", 0.0)


def test_a_wish_to_drain_ends_with_the_next_advert() -> None:
    table = Adverts("n1")
    table.take(advert("n2", 1, drained=("n1",)), 0.0)
    table.take(advert("n2", 2), 0.1)

    assert not table.wants_drained("n2", 0.1)


def test_edges_are_the_links_both_ends_use() -> None:
    table = Adverts("n1")
    table.take(advert("n2", peers=("n1", "n4")), 0.0)
    table.take(advert("n3", peers=("n1",)), 0.0)
    table.take(advert("n4", peers=()), 0.0)

    assert table.edges(["n2"], 0.0) == (("n1", "n2"),)
    assert table.edges(["n2"], LIFETIME) == ()


def test_a_route_is_followed_over_what_the_nodes_on_it_say() -> None:
    table = Adverts("n1")
    table.take(advert("n2", next_hops={"n6": "n4"}), 0.0)
    table.take(advert("n4", next_hops={"n6": "n6"}), 0.0)

    assert table.route({"n6": "n2"}, "n6") == ("n1", "n2", "n4", "n6")
    assert table.route({"n6": "n2"}, "n1") == ("n1",)
    assert table.route({}, "n6") == ()


def test_a_route_that_goes_round_is_no_route() -> None:
    table = Adverts("n1")
    table.take(advert("n2", next_hops={"n6": "n1"}), 0.0)

    assert table.route({"n6": "n2"}, "n6") == ()


def test_an_advert_that_has_travelled_far_enough_is_not_handed_on() -> None:
    last = Advert(origin="n2", seq=1, hops=0, peers=(), drained=(), next_hops={})

    assert last.handed_on() is None
    further = advert("n2").handed_on()
    assert further is not None
    assert further.hops == 7
