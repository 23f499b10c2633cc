"""Questions and answers between nodes: only an answer to a question of ours, asked late enough, counts."""

from __future__ import annotations

import struct

from mapek_domains.mesh.echo import Echo


class Pair:
    """Two nodes whose messages are held until the test lets them through."""

    def __init__(self) -> None:
        self.way: list[tuple[str, str, bytes]] = []
        self.nodes = {
            "a": Echo(lambda node, body: self.way.append(("a", node, body))),
            "b": Echo(lambda node, body: self.way.append(("b", node, body))),
        }

    def deliver(self) -> None:
        while self.way:
            source, destination, body = self.way.pop(0)
            self.nodes[destination].heard(source, body)


def test_an_answer_counts_from_when_its_question_was_asked() -> None:
    pair = Pair()

    pair.nodes["a"].ask("b", 10.0)
    before = pair.nodes["a"].answered("b", 10.0)
    pair.deliver()

    assert not before
    assert pair.nodes["a"].answered("b", 10.0)
    assert not pair.nodes["a"].answered("b", 10.1)


def test_a_late_answer_does_not_take_back_a_newer_one() -> None:
    pair = Pair()

    pair.nodes["a"].ask("b", 10.0)
    held = list(pair.way)
    pair.way.clear()
    pair.nodes["a"].ask("b", 11.0)
    pair.deliver()
    pair.way += held
    pair.deliver()

    assert pair.nodes["a"].answered("b", 11.0)


def test_an_answer_to_another_node_or_to_nobody_proves_nothing() -> None:
    pair = Pair()

    pair.nodes["a"].ask("c", 10.0)
    pair.nodes["a"].heard("b", struct.pack("!BQ", 2, 1))
    pair.nodes["a"].heard("b", struct.pack("!BQ", 2, 99))
    pair.nodes["a"].heard("b", b"nonsense")

    assert not pair.nodes["a"].answered("b", 0.0)


def test_a_new_life_forgets_what_was_answered() -> None:
    pair = Pair()
    pair.nodes["a"].ask("b", 10.0)
    pair.deliver()

    pair.nodes["a"].forget()

    assert not pair.nodes["a"].answered("b", 0.0)
