"""The document of one node: what is merged, counted, refused and cleared away."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from pycrdt import Doc, Map

from mapek_domains.crdt.document import Batch, Document, Limits, merged
from mapek_domains.crdt.entries import incident_id
from mapek_domains.crdt.update import Refused, read_state
from mapek_runtime.loop.knowledge import Goal
from tests.unit.crdt.net import incident, leaves


def take(document: Document, update: bytes) -> dict[Any, Any]:
    return dict(document.merge(document.examine(update)))


def learned(document: Document, **batch: Any) -> bytes:
    update, _ = document.commit(Batch(**batch))
    return update


def pair(**limits: int) -> tuple[Document, Document]:
    return Document("node-1", limits=Limits(**limits)), Document("node-2", limits=Limits(**limits))


def stranger() -> tuple[Doc[Map[Any]], dict[str, Map[Any]]]:
    """An ordinary Yjs program."""
    doc: Doc[Map[Any]] = Doc()
    return doc, {kind: doc.get(kind, type=Map) for kind in ("incidents", "outcomes", "facts", "goals")}


def test_what_one_has_learned_the_other_has_after_a_merge() -> None:
    one, two = pair()
    update = learned(
        one,
        closed=[incident(1), incident(2, success=False, repair_seconds=None)],
        facts={"a": True, "b": 1, "c": 1.0, "d": "x"},
        goals={"loss": Goal(name="loss", value=0.5)},
    )

    changes = take(two, update)

    assert len(changes) == 2 + 1 + 4 + 1
    assert two.incidents() == {
        incident_id("node-1", each): each
        for each in (
            incident(1, node="node-1"),
            incident(2, success=False, repair_seconds=None, node="node-1"),
        )
    }
    assert two.outcomes() == {("node-1", "drain", "node-1~node-2"): (1, 1)}
    facts = two.facts()
    assert facts == {("node-1", "a"): True, ("node-1", "b"): 1, ("node-1", "c"): 1.0, ("node-1", "d"): "x"}
    assert [type(facts["node-1", key]) for key in "abcd"] == [bool, int, float, str]
    assert two.goals()["loss"] == Goal(name="loss", value=0.5, author="node-1", number=1)
    assert one.digest() == two.digest()
    assert leaves(one) == leaves(two)


def test_changes_are_the_values_that_are_others_now() -> None:
    one, two = pair()
    take(two, learned(one, facts={"a": 1, "b": 1}, closed=[incident(1)]))

    assert take(two, learned(one, facts={"a": 2, "b": 1})) == {("facts", "node-1", "a"): 2}
    assert learned(one, facts={"a": 2}) == b""
    assert list(take(two, learned(one, facts={"a": 2.0}))) == [("facts", "node-1", "a")]
    assert learned(one, closed=[incident(1)]) == b""


def test_an_incident_of_an_earlier_life_is_there_once_and_not_counted() -> None:
    one, two = pair()

    take(two, learned(one, earlier=[incident(1)]))

    assert not learned(one, earlier=[incident(1)], closed=[incident(1)])
    assert len(two.incidents()) == 1
    assert two.outcomes() == {}


def test_what_cannot_be_written_is_left_out_and_the_rest_is_not() -> None:
    one, two = pair()
    update = learned(
        one,
        closed=[
            incident(1),
            incident(2, target="x" * 500),
            incident(3, opened=-5.0),
            incident(4, action="a|b"),
        ],
        facts={"nan": float("nan"), "huge": 2**70, "long": "x" * 5000, "fine": 1, "": 2},
    )

    take(two, update)

    assert two.facts() == {("node-1", "fine"): 1}
    assert len(two.incidents()) == 2
    assert len(two.outcomes()) == 1
    assert one._author.left_out == {"incidents": 2, "facts": 4, "outcomes": 1}
    assert not two.view.ignored


HOSTILE: dict[str, Callable[[dict[str, Map[Any]]], None]] = {
    "no shelf": lambda roots: roots["facts"].update({"x": "1"}),
    "no map": lambda roots: roots["facts"].update({"1/ab/0/node-9": "1"}),
    "version": lambda roots: roots["facts"].update({"2/ab/0/node-9": Map({"a": "[1,1]"})}),
    "no node": lambda roots: roots["facts"].update({"1/ab/0/": Map({"a": "[1,1]"})}),
    "number": lambda roots: roots["facts"].update({"1/ab/-1/n": Map({"a": "[1,1]"})}),
    "two names": lambda roots: roots["facts"].update({"1/ab/00/n": Map({"a": "[1,1]"})}),
    "not json": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": "x"})}),
    "not text": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": [1, 1]})}),
    "nested": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": Map({"b": "c"})})}),
    "a list": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": "[1,[2]]"})}),
    "zero": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": "[0,1]"})}),
    "too many": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": "[1,1,1]"})}),
    "infinite": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a": "[1,1e999]"})}),
    "long key": lambda roots: roots["facts"].update({"1/ab/0/n": Map({"a" * 500: "[1,1]"})}),
    "negative": lambda roots: roots["outcomes"].update({"1/ab/0/n": Map({"a|b": "[-1,1]"})}),
    "no bar": lambda roots: roots["outcomes"].update({"1/ab/0/n": Map({"ab": "[1,1]"})}),
    "wrong hash": lambda roots: roots["incidents"].update(
        {"1/ab/0/n": Map({"0" * 16: json.dumps(["t", "p", 1.0, "a", 2.0, 1.0, True, ""])})}
    ),
    "traceparent": lambda roots: roots["goals"].update({"1/ab/0/n": Map({"g": '[1,1,"x"]'})}),
}


@pytest.mark.parametrize("write", HOSTILE.values(), ids=HOSTILE)
def test_values_that_do_not_fit_are_passed_over_and_counted(
    write: Callable[[dict[str, Map[Any]]], None],
) -> None:
    one, two = pair()
    learned(one, facts={"a": 1})
    doc, roots = stranger()
    doc.apply_update(one.whole())
    write(roots)

    changes = take(one, doc.get_update(one.state()))

    assert changes == {}
    assert one.view.ignored.total() >= 1
    take(two, one.whole())
    assert two.facts() == {("node-1", "a"): 1}
    assert one.digest() == two.digest()


def test_an_ordinary_yjs_program_can_write_a_goal() -> None:
    (one, two), (doc, roots) = pair(), stranger()
    learned(two, goals={"loss": Goal(name="loss", value=1)})
    take(one, two.whole())
    doc.apply_update(one.whole())
    roots["goals"]["1/operator/0/ada"] = Map({"loss": "[2,0.25]"})

    take(one, doc.get_update(one.state()))

    assert one.goals()["loss"] == Goal(name="loss", value=0.25, author="ada", number=2)


def test_an_update_that_builds_on_what_is_not_there_is_early() -> None:
    one, two = pair()
    first, second = learned(one, facts={"a": 1}), learned(one, facts={"a": 2})

    with pytest.raises(Refused, match="early"):
        two.examine(second)
    assert two.refused == {"early": 1}
    take(two, first)
    take(two, second)
    assert two.facts() == {("node-1", "a"): 2}


def test_a_deletion_of_what_is_not_there_is_early() -> None:
    one, two = pair()
    learned(one, facts={"a": 1})
    doc, roots = stranger()
    doc.apply_update(one.whole())
    said: list[bytes] = []
    doc.observe(lambda event: said.append(event.update))
    (name,) = roots["facts"].keys()
    del roots["facts"][name]

    with pytest.raises(Refused, match="early"):
        two.examine(said[-1])
    assert take(one, said[-1]) == {("facts", "node-1", "a"): None}


def test_changes_in_the_name_of_this_life_are_forged() -> None:
    one, _ = pair()
    learned(one, facts={"a": 1})
    doc: Doc[Map[Any]] = Doc(client_id=one.client)
    doc.apply_update(one.whole())
    doc.get("facts", type=Map)["1/ab/0/node-9"] = Map({"a": "[1,1]"})

    with pytest.raises(Refused, match="forged"):
        one.examine(doc.get_update())


def test_what_would_make_the_document_too_large_is_refused() -> None:
    one = Document("node-1", limits=Limits(document=10_000, update=9000))
    doc, roots = stranger()
    for number in range(4):
        roots["facts"][f"1/ab/{number}/n"] = Map({"a": "x" * 4000})
        update = doc.get_update(one.state())
        if number < 2:
            take(one, update)
        else:
            with pytest.raises(Refused, match="full"):
                one.examine(update)
    with pytest.raises(Refused, match="too_large"):
        one.examine(doc.get_update())
    assert one.size < 10_000
    assert learned(one, facts={"a": 1})


def test_maps_within_maps_are_bounded() -> None:
    one, _ = pair()
    doc, roots = stranger()
    inner: Map[Any] = roots["facts"]
    for _ in range(1200):
        inner["x"] = Map({})
        inner = inner["x"]

    with pytest.raises(Refused, match="nested"):
        one.examine(doc.get_update())


def test_of_what_the_engine_cannot_take_nothing_is_left() -> None:
    one, _ = pair()
    learned(one, facts={"a": 1})
    doc, roots = stranger()
    roots["facts"]["1/ab/0/n"] = Map({"a": "[1,1]"})
    update = doc.get_update()
    before = one.whole(), one.digest(), dict(one.view.values)
    contents = one.examine(update)
    with mock.patch.object(Doc, "get_state", return_value=b"\x00"), pytest.raises(Refused, match="unplaced"):
        one.merge(contents)

    assert (one.whole(), one.digest(), dict(one.view.values)) == before
    assert one.refused == {"unplaced": 1}
    take(one, update)
    assert one.facts() == {("node-1", "a"): 1, ("n", "a"): 1}


def test_what_is_missing_is_told_by_the_state() -> None:
    one, two = pair()
    learned(one, facts={"a": 1})
    take(two, one.whole())
    learned(one, facts={"b": 1})

    missing = one.missing(two.state())

    assert len(missing) < len(one.whole())
    take(two, missing)
    assert one.digest() == two.digest()
    assert one.missing(two.state()) in {b"\x00\x00", one.missing(one.state())}
    with pytest.raises(Refused, match="malformed"):
        one.missing(b"\xff\xff")


def test_updates_are_merged_into_one() -> None:
    one, two = pair()
    both = merged([learned(one, facts={"a": 1}), learned(one, facts={"b": 1})])

    assert len(take(two, both)) == 2
    assert one.digest() == two.digest()


def test_a_life_has_a_client_of_its_own_and_the_state_says_how_far_it_is() -> None:
    documents = [Document("node-1") for _ in range(50)]
    assert len({document.client for document in documents}) == 50
    one = documents[0]
    learned(one, facts={"a": 1})

    assert read_state(one.state()) == {one.client: 2}
    assert one.life == f"{one.client:x}"


def test_a_document_that_is_gone_takes_the_engines_with_it() -> None:
    one, _ = pair()
    learned(one, facts={"a": 1})
    engine = weakref.ref(one._engine._doc)

    del one
    gc.collect()

    assert engine() is None


def test_what_is_known_is_not_read_again_whatever_it_says_now() -> None:
    """One client that says two things: of the second only what follows the first is taken."""
    one, two = pair()
    for name, entries in (("ada", {"a": "[1,1]"}), ("eve", {"a": "[1,2]", "b": "[1,3]"})):
        doc: Doc[Map[Any]] = Doc(client_id=5)
        doc.get("facts", type=Map)[f"1/op/0/{name}"] = Map(entries)
        take(one, doc.get_update())

    assert one.facts()["ada", "a"] in {1, 2}
    assert {node for node, _ in one.facts()} == {"ada"}
    assert read_state(one.state()) == {5: 3}
    take(two, one.whole())
    assert two.digest() == one.digest()
    assert leaves(two) == leaves(one)
