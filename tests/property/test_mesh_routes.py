"""Routes: hop by hop they arrive, and the last way out is known."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.routes import RouteTable, cut_off, reachable

nodes = [f"n{number}" for number in range(8)]
pair = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)).filter(lambda ends: ends[0] < ends[1])
links = st.dictionaries(pair, st.integers(1, 5), max_size=20).map(
    lambda costs: tuple((a, b, cost) for (a, b), cost in sorted(costs.items()))
)


def pairs(edges: tuple[tuple[str, str, int], ...]) -> list[tuple[str, str]]:
    return [(a, b) for a, b, _ in edges]


@given(links)
def test_handing_on_from_hop_to_hop_follows_the_path_and_arrives(
    edges: tuple[tuple[str, str, int], ...],
) -> None:
    tables = {node: RouteTable(node, edges) for node in nodes}
    for source in nodes:
        for destination in nodes:
            walked = [source]
            while walked[-1] != destination and (hop := tables[walked[-1]].next_hop(destination)):
                walked.append(hop)
                assert len(walked) <= len(nodes)
            if destination in reachable(source, pairs(edges)):
                assert tuple(walked) == tables[source].path(destination)
            else:
                assert tables[source].path(destination) == ()


@given(links)
def test_a_path_costs_no_more_than_any_detour_over_one_neighbour(
    edges: tuple[tuple[str, str, int], ...],
) -> None:
    cost = {frozenset((a, b)): c for a, b, c in edges}

    def length(path: tuple[str, ...]) -> int:
        return sum(cost[frozenset(step)] for step in pairwise(path))

    table = RouteTable("n0", edges)
    for a, b, c in edges:
        for here, there in ((a, b), (b, a)):
            if table.path(here):
                assert length(table.path(there)) <= length(table.path(here)) + c


@given(links, st.data())
def test_cut_off_is_what_only_that_link_reaches(
    edges: tuple[tuple[str, str, int], ...], data: st.DataObject
) -> None:
    if not edges:
        return
    a, b, _ = data.draw(st.sampled_from(edges))
    left = [edge for edge in pairs(edges) if edge != (a, b)]
    lost = cut_off("n0", pairs(edges), (b, a))

    assert lost == reachable("n0", pairs(edges)) - reachable("n0", left)


@given(links, st.randoms(use_true_random=False))
def test_the_order_of_the_links_does_not_matter(edges: tuple[tuple[str, str, int], ...], rng: object) -> None:
    shuffled = list(edges)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]

    assert RouteTable("n0", edges).destinations == RouteTable("n0", tuple(shuffled)).destinations
