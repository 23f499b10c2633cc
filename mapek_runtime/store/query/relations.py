"""How spans of one trace stand to one another: pure, on what a trace's filters chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .syntax import AllSpans, Filter, Relation, Spansets

__all__ = ["Chosen", "Link", "filters", "related"]


class Link(NamedTuple):
    """A chosen span: its row, its parent, and when it began."""

    row: int
    parent: bytes | None
    start: int


Chosen = Mapping[bytes, Link]
"""Chosen spans of a trace by their id."""
_NONE: Chosen = {}


def filters(spansets: Spansets) -> Iterator[AllSpans | Filter]:
    """Every filter of an expression, from the left."""
    if isinstance(spansets, Relation):
        yield from filters(spansets.left)
        yield from filters(spansets.right)
    else:
        yield spansets


def related(
    spansets: Spansets,
    chosen: Callable[[AllSpans | Filter], Chosen],
    parents: Callable[[], Mapping[bytes, bytes | None]],
) -> Chosen:
    """The spans of a trace that an expression chooses.

    `chosen` gives those of a filter, `parents` the parent of each span of the trace.
    """
    if not isinstance(spansets, Relation):
        return chosen(spansets)
    op = spansets.op
    left = related(spansets.left, chosen, parents)
    if not left and op != "||":
        return _NONE
    right = related(spansets.right, chosen, parents)
    if op == "||":
        return {**left, **right}
    if not right:
        return _NONE
    if op == "&&":
        return {**left, **right}
    stands = _STANDS[op](left, right, parents)
    return {span: link for span, link in right.items() if stands(span, link)}


_Stands = Callable[[bytes, Link], bool]
_Parents = Callable[[], Mapping[bytes, bytes | None]]


def _child(left: Chosen, right: Chosen, parents: _Parents) -> _Stands:
    return lambda span, link: link.parent in left


def _parent(left: Chosen, right: Chosen, parents: _Parents) -> _Stands:
    wanted = {link.parent for link in left.values()}
    return lambda span, link: span in wanted


def _descendant(left: Chosen, right: Chosen, parents: _Parents) -> _Stands:
    above = parents()
    known: dict[bytes, bool] = {}

    def below(span: bytes, link: Link) -> bool:
        # Parents are what others sent: they may go round in a circle.
        way: list[bytes] = []
        walked: set[bytes] = set()
        at, found = link.parent, False
        while at is not None and at not in walked:
            if at in left or known.get(at):
                found = True
                break
            if at in known:
                break
            way.append(at)
            walked.add(at)
            at = above.get(at)
        known.update(dict.fromkeys(way, found))
        return found

    return below


def _ancestor(left: Chosen, right: Chosen, parents: _Parents) -> _Stands:
    above = parents()
    wanted: set[bytes] = set()
    for link in left.values():
        at = link.parent
        while at is not None and at not in wanted:
            wanted.add(at)
            at = above.get(at)
    return lambda span, link: span in wanted


def _sibling(left: Chosen, right: Chosen, parents: _Parents) -> _Stands:
    families = Counter(link.parent for link in left.values() if link.parent is not None)

    def beside(span: bytes, link: Link) -> bool:
        itself = span in left and left[span].parent == link.parent
        return link.parent is not None and families[link.parent] > itself

    return beside


_STANDS = {">": _child, "<": _parent, ">>": _descendant, "<<": _ancestor, "~": _sibling}
