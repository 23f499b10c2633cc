"""What is cleared away, taken over, and mended."""

from __future__ import annotations

import pytest
from pycrdt import Map

from mapek_domains.crdt import authoring, shelves
from mapek_domains.crdt.document import Batch, Document, Limits
from mapek_runtime.loop.knowledge import Goal
from tests.unit.crdt.net import incident
from tests.unit.crdt.test_document import learned, pair, stranger, take


def test_incidents_beyond_the_cap_are_deleted_oldest_first_by_anybody() -> None:
    one, two = pair(incidents=100)
    for number in range(150):
        take(two, learned(one, closed=[incident(number)]))
    for number in range(150, 300):
        take(one, learned(two, closed=[incident(number)]))
    third = Document("node-3", limits=Limits(incidents=100))
    take(third, one.whole())
    take(one, learned(third, facts={"x": 1}))

    kept = sorted(each.opened - 1.7e9 for each in one.incidents().values())
    assert 100 <= len(kept) < 100 + 2 * shelves.SEGMENT
    assert kept == [float(number) for number in range(300 - len(kept), 300)]
    assert one.outcomes()["node-1", "drain", "node-1~node-2"] == (150, 0)


def test_two_that_trim_at_the_same_time_do_the_same() -> None:
    one, two = pair(incidents=64)
    for number in range(100):
        take(two, learned(one, closed=[incident(number)]))
        take(one, learned(two, closed=[incident(1000 + number)]))
    a, b = learned(one, facts={"x": 1}), learned(two, facts={"x": 1})

    take(one, b)
    take(two, a)

    assert one.digest() == two.digest()
    assert not learned(one)
    assert not learned(two)


def test_facts_beyond_the_cap_are_neither_written_nor_kept() -> None:
    one, two = pair(facts=50)
    learned(one, facts={f"a{number:02}": number for number in range(60)})
    learned(two, facts={f"b{number:02}": number for number in range(60)})
    take(one, two.whole())
    take(two, one.missing(two.state()))

    update = learned(one)
    take(two, update)

    assert one.digest() == two.digest()
    assert len(two.facts()) == 50
    assert {key for _, key in two.facts()} == {f"a{number:02}" for number in range(50)}
    assert not learned(two)


def test_old_values_are_swept_away() -> None:
    one, two = pair()
    sizes = []
    for number in range(4500):
        take(two, learned(one, facts={"a": number, "b": number / 2}))
        if number % 500 == 0:
            sizes.append(len(one.whole()))

    assert max(sizes) < 90_000
    assert len(one.whole()) == len(two.whole()) < 90_000
    assert two.facts() == {("node-1", "a"): 4499, ("node-1", "b"): 4499 / 2}
    assert one.digest() == two.digest()


def test_shelves_of_many_earlier_lives_are_adopted() -> None:
    archive = Document("archive")
    for life in range(7):
        one = Document("node-1")
        take(one, archive.whole())
        update, _ = one.commit(
            Batch(
                closed=[incident(life)],
                facts={"latest": life, f"only-{life}": life},
                goals={"g": Goal(name="g", value=life)},
            ),
            adopt=True,
        )
        take(archive, update)

    lives = {standing.shelf.life for standing in archive.view.shelves("facts")}
    assert len(lives) <= authoring._MOST_LIVES + 1
    assert archive.outcomes() == {("node-1", "drain", "node-1~node-2"): (7, 0)}
    assert archive.facts() == {
        ("node-1", "latest"): 6,
        **{("node-1", f"only-{life}"): life for life in range(7)},
    }
    assert archive.goals()["g"].value == 6
    assert len(archive.incidents()) == 7


def test_a_life_that_hears_late_of_an_earlier_one_has_the_last_word() -> None:
    first = Document("node-1")
    for number in range(5):
        learned(first, facts={"a": number, "b": "first"})
    second, other = Document("node-1"), Document("node-2")
    take(other, first.whole())
    learned(second, facts={"a": "second"})
    take(other, second.whole())
    assert other.facts()["node-1", "a"] == 4

    take(second, other.whole())
    take(other, learned(second))

    assert other.facts() == {("node-1", "a"): "second", ("node-1", "b"): "first"}
    assert other.digest() == second.digest()
    assert not second.is_restless


def test_two_processes_with_one_name_do_not_fight_for_ever() -> None:
    one, two = Document("node-1"), Document("node-1")
    said = 0
    for number in range(20):
        learned(one, facts={"a": f"one {number}"})
        learned(two, facts={"a": f"two {number}"})
        take(one, two.missing(one.state()))
        take(two, one.missing(two.state()))
    for _ in range(20):
        for document, other in ((one, two), (two, one)):
            said += bool(learned(document))
            take(other, document.missing(other.state()))

    assert said <= 2
    assert one.twins == two.twins == 1
    assert one.digest() == two.digest()


@pytest.mark.parametrize("what", ["written over", "added", "shelf deleted", "shelf replaced"])
def test_what_others_have_done_to_the_shelves_of_this_life_is_mended(what: str) -> None:
    one, two = pair()
    take(two, learned(one, facts={"a": 1, "b": 2}, closed=[incident(1)]))
    doc, roots = stranger()
    doc.apply_update(one.whole())
    (name,) = roots["facts"].keys()
    match what:
        case "written over":
            roots["facts"][name]["a"] = "[9,9]"
        case "added":
            roots["facts"][name]["c"] = "[9,9]"
        case "shelf deleted":
            del roots["facts"][name]
            (outcomes,) = roots["outcomes"].keys()
            del roots["outcomes"][outcomes]
            (log,) = roots["incidents"].keys()
            del roots["incidents"][log]
        case "shelf replaced":
            roots["facts"][name] = Map({"a": "[9,9]"})
    take(one, doc.get_update(one.state()))

    was_restless = one.is_restless
    learned(one)
    take(two, one.whole())

    assert (was_restless, one.is_restless) == (True, False)
    assert two.facts() == {("node-1", "a"): 1, ("node-1", "b"): 2}
    assert two.outcomes() == {("node-1", "drain", "node-1~node-2"): (1, 0)}
    assert len(two.incidents()) == 1
    assert one.digest() == two.digest()
    take(two, learned(one, facts={"a": 3}))
    assert two.facts()["node-1", "a"] == 3
