"""The spans of a trace as a tree, in the order in which they are drawn, and what its duration hung on.

Pure, and not recursive: a trace may be as deep as it likes, and its parents may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.decode import UNKNOWN_SERVICE
from mapek_runtime.store.model import STATUSES

__all__ = ["Branch", "Event", "Link", "TraceTree", "grow"]


_MOST_GUIDES = 32


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened while a span was open; `time` in nanoseconds since 1970."""

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """Another span that belongs to a span."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A span where it stands in the tree; times in nanoseconds."""

    span_id: str
    parent_id: str
    service: str
    name: str
    status: str
    message: str
    start: int
    duration: int
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    depth: int = 0
    """0 for a root."""
    guides: tuple[bool, ...] = ()
    """For each level from the first below the root on, 32 at most: whether more siblings follow there."""
    orphan: bool = False
    """Its parent is not in the trace, or not yet."""
    critical: bool = False
    """The trace would have been shorter without it."""

    @property
    def end(self) -> int:
        """When it ended."""
        return self.start + self.duration


@dataclass(frozen=True, slots=True)
class TraceTree:
    """The branches of a trace in drawing order: each below its parent, siblings by their start."""

    branches: tuple[Branch, ...]

    @property
    def start(self) -> int:
        """The earliest start; 0 of an empty tree."""
        return min((branch.start for branch in self.branches), default=0)

    @property
    def end(self) -> int:
        """The latest end."""
        return max((branch.end for branch in self.branches), default=0)

    @property
    def depth(self) -> int:
        """How many levels there are."""
        return max((branch.depth + 1 for branch in self.branches), default=0)


def grow(data: bytes) -> TraceTree:
    """The tree of `opentelemetry.proto.trace.v1.TracesData` bytes."""
    return _arrange(list(_branches(data)))


def _branches(data: bytes) -> Iterable[Branch]:
    for group in TracesData.FromString(data).resource_spans:
        service = str(as_dict(group.resource.attributes).get("service.name") or UNKNOWN_SERVICE)
        for within in group.scope_spans:
            for span in within.spans:
                yield _branch(span, service)


def _branch(span: Span, service: str) -> Branch:
    start = span.start_time_unix_nano
    return Branch(
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        status=STATUSES[span.status.code] if span.status.code < len(STATUSES) else STATUSES[0],
        message=span.status.message,
        start=start,
        # A clock that was set back is not to turn a bar around.
        duration=max(0, span.end_time_unix_nano - start) if span.end_time_unix_nano else 0,
        attributes=as_dict(span.attributes),
        events=tuple(Event(each.name, each.time_unix_nano, as_dict(each.attributes)) for each in span.events),
        links=tuple(
            Link(each.trace_id.hex(), each.span_id.hex(), as_dict(each.attributes)) for each in span.links
        ),
    )


def _arrange(branches: list[Branch]) -> TraceTree:
    by_start = sorted(branches, key=_when)
    known = {branch.span_id for branch in branches}
    children: dict[str, list[Branch]] = {}
    tops: list[Branch] = []
    for branch in by_start:
        # A span that is its own parent has none.
        if branch.parent_id in known and branch.parent_id != branch.span_id:
            children.setdefault(branch.parent_id, []).append(branch)
        else:
            tops.append(branch)
    order: list[_Placed] = []
    placed: set[int] = set()
    roots: list[Branch] = []
    # Parents in a ring are below no root: the first of them to begin is taken for one.
    for top in (*tops, *by_start):
        if id(top) not in placed:
            roots.append(top)
            _place(top, children, order, placed)
    critical = _critical(roots, children)
    return TraceTree(
        tuple(
            replace(
                branch,
                depth=depth,
                guides=guides,
                orphan=bool(branch.parent_id) and branch.parent_id not in known,
                critical=id(branch) in critical,
            )
            for branch, depth, guides in order
        )
    )


_Placed = tuple[Branch, int, tuple[bool, ...]]


def _place(
    top: Branch,
    children: Mapping[str, Sequence[Branch]],
    order: list[_Placed],
    placed: set[int],
) -> None:
    """Put a branch and all below it into the order."""
    waiting: list[_Placed] = [(top, 0, ())]
    placed.add(id(top))
    while waiting:
        branch, depth, guides = waiting.pop()
        order.append((branch, depth, guides))
        below = [child for child in children.get(branch.span_id, ()) if id(child) not in placed]
        placed.update(map(id, below))
        last = len(below) - 1
        for index in range(last, -1, -1):
            # A chain of thousands would have guides by the million.
            own = (*guides, index < last) if depth < _MOST_GUIDES else guides
            waiting.append((below[index], depth + 1, own))


def _critical(roots: Sequence[Branch], children: Mapping[str, Sequence[Branch]]) -> set[int]:
    """The branches on the critical path: from the end of the longest root back, whoever ended last before.

    What runs beside a longer sibling is not on it.
    """
    if not roots:
        return set()
    found: set[int] = set()
    waiting = [max(roots, key=lambda root: root.duration)]
    while waiting:
        branch = waiting.pop()
        if id(branch) in found:
            continue
        found.add(id(branch))
        moment = branch.end
        for child in sorted(children.get(branch.span_id, ()), key=_ended, reverse=True):
            if child.end <= moment and child.start >= branch.start:
                waiting.append(child)
                moment = child.start
    return found


def _when(branch: Branch) -> tuple[int, int]:
    # Of two that began together the longer one is likely around the other.
    return branch.start, -branch.duration


def _ended(branch: Branch) -> int:
    return branch.end
