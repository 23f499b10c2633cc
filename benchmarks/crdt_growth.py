"""How large does a shared document become, with what is written over and closed swept away, and without?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from mapek_domains.crdt import shelves
from mapek_domains.crdt.document import Batch, Document, Limits
from mapek_runtime.loop.knowledge import Incident

from .measure import clock

__all__ = ["batch", "grown", "incident", "lives", "without_compaction"]

_NEVER = 1 << 40


def incident(number: int) -> Incident:
    """One of many."""
    return Incident(
        target=f"node-{number % 5}~node-{number % 7}",
        problem="link.dead",
        opened=1.7e9 + number,
        action="drain",
        closed=1.7e9 + number + 2.25,
        repair_seconds=2.25,
        success=bool(number % 10),
        trace_id=f"{number + 1:032x}",
    )


def batch(number: int) -> Batch:
    """What a cycle has learned."""
    return Batch(closed=[incident(number)], facts={"mesh.normal.a": number, "mesh.normal.b": number / 2})


@contextmanager
def without_compaction() -> Iterator[int]:
    """A block in which nothing is swept away; the number is of incidents to keep."""
    with mock.patch.object(shelves, "_WORTH_SWEEPING", _NEVER):
        yield _NEVER


def grown(incidents: int, kept: int, *, steps: int = 10) -> list[dict[str, float]]:
    """What is left after each of so many steps to so many incidents, of which `kept` are."""
    limits = Limits(incidents=kept, document=_NEVER)
    writer, reader = (Document(node, limits=limits) for node in ("node-1", "node-2"))
    rows = []
    spent, sent, longest = 0, 0, 0
    for number in range(1, incidents + 1):
        update, _ = writer.commit(batch(number))
        sent += len(update)
        longest = max(longest, len(update))
        began = clock()
        reader.merge(reader.examine(update))
        spent += clock() - began
        if number % max(1, incidents // steps) == 0:
            rows.append(_measured(number, writer, sent, longest, spent))
    assert writer.digest() == reader.digest(), "the two are the same"
    return rows


def _measured(number: int, writer: Document, sent: int, longest: int, spent: int) -> dict[str, float]:
    whole = writer.whole()
    newcomer = Document("node-3", limits=Limits(update=_NEVER, document=_NEVER))
    began = time.thread_time_ns()
    newcomer.merge(newcomer.examine(whole))
    joined = time.thread_time_ns() - began
    began = time.thread_time_ns()
    newcomer.digest()
    return {
        "incidents": number,
        "kept": len(writer.incidents()),
        "whole_bytes": len(whole),
        "state_bytes": len(writer.state()),
        "bytes_per_update": round(sent / number, 1),
        "longest_update": longest,
        "merges_per_second": round(number / spent * 1e9),
        "join_ms": round(joined / 1e6, 2),
        "digest_ms": round((time.thread_time_ns() - began) / 1e6, 2),
    }


def lives(count: int) -> dict[str, float]:
    """What so many lives of one node, each with an incident and two facts, leave behind."""
    archive = Document("archive")
    for number in range(count):
        life = Document("node-1")
        if archive.size > 2:
            whole = archive.whole()
            life.merge(life.examine(whole))
        update, _ = life.commit(batch(number), adopt=True)
        archive.merge(archive.examine(update))
    return {"lives": count, "whole_bytes": len(archive.whole()), "state_bytes": len(archive.state())}
