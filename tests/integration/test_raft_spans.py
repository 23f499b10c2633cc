"""What the embedded engine's spans say, compared with witnesses that know nothing of them.

These are the bytes on the links, the files of the journals, and PySyncObj's own status.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from mapek_domains.raft.embedded.records import scan
from mapek_domains.raft.embedded.wire import Append, Ask, Frame, Progress
from mapek_runtime.testing import Recorder
from tests.raft_embedded import entries_of, meshed
from tests.raft_group import NODES, until


async def test_a_claim_is_one_trace_from_who_asks_over_the_leader_to_what_is_final(tmp_path: Path) -> None:
    with Recorder() as recorder:
        async with meshed(tmp_path) as made:
            while True:
                leader, term = made.leader, made.session.engine.standing(made.leader).term
                node = next(node for node in NODES if node != leader)
                recorder.clear()
                made.tap.sent.clear()
                with recorder.provider.get_tracer("test").start_as_current_span("execute") as execute:
                    grant = await made.session.claim(node, "drain node-1~node-2", hold=30.0)
                await until(made.agreed, "all know of it")
                status = made.replica(made.leader).getStatus()
                if status["raft_term"] == term:
                    break
            sent = list(made.tap.sent)
            spans = list(recorder.spans)
        log = entries_of(tmp_path, leader)

    mine = [span for span in spans if trace_of(span) == execute.get_span_context().trace_id]
    replicated = [span for span in mine if span.name == "raft.log_replicate"]
    (commit,) = (span for span in mine if span.name == "raft.commit")
    # The witnesses: frames with entries on the links, the leader's status, its journal's file.
    appended = [
        (to, len(frame.body.entries))
        for source, to, frame in sent
        if source == leader and isinstance(frame.body, Append) and frame.body.entries
    ]
    assert sorted(attributes(span, "follower_id", "entries") for span in replicated) == sorted(appended)
    assert {to for to, _ in appended} == {other for other in NODES if other != leader}
    assert attributes(commit, "entries", "commit_index") == (1, status["commit_idx"])
    assert [(index, term) for _, index, term in log][-1] == (grant.fence, grant.term)
    assert (grant.fence, grant.term) == (status["commit_idx"], status["raft_term"])
    # Between the question and what came of it lie the hops of the message to the leader.
    by_id = {identity_of(span): span for span in mine}
    for span in (*replicated, commit):
        assert span.parent is not None
        hop = by_id[span.parent.span_id]
        assert hop.name == "mesh.message_forward"
        assert attributes(hop, "destination") == (leader,)


@pytest.mark.slow
async def test_signs_of_life_cost_no_span(tmp_path: Path) -> None:
    with Recorder() as recorder:
        async with meshed(tmp_path) as made:
            calm = 0
            while calm < 2:
                # What was under way when it became calm is over in the second round.
                recorder.clear()
                made.tap.sent.clear()
                await until(lambda: len(made.tap.sent) > 100, "a hundred frames")
                calm = calm + 1 if all(is_sign_of_life(frame) for _, _, frame in made.tap.sent) else 0

            assert [span.name for span in (*recorder.spans, *recorder.open)] == []


async def test_an_election_is_a_trace_of_its_own_with_its_true_term(tmp_path: Path) -> None:
    with Recorder() as recorder:
        async with meshed(tmp_path) as made:
            before = made.leader
            recorder.clear()
            made.tap.sent.clear()
            await made.mesh.crash(before)
            others = [node for node in NODES if node != before]
            await until(
                lambda: {made.session.leader(node) for node in others} <= set(others), "another leads", 20.0
            )
            await until(
                lambda: any(span.attributes["won"] for span in elections(recorder)),  # type: ignore[index]
                "its election is over",
            )
            leader = made.leader
            term = made.replica(leader).getStatus()["raft_term"]
            asked = {
                (source, frame.term)
                for source, _, frame in made.tap.sent
                if isinstance(frame.body, Ask) and not frame.body.straw
            }
            events = [event for event in made.events if event[1].get("term") == term]
            spans, held = elections(recorder), list(recorder.spans)
            journals = {
                node: scan(next((tmp_path / "raft" / node).glob("*.journal")).read_bytes()) for node in others
            }

    (won,) = (span for span in spans if attributes(span, "won") == (True,))
    assert attributes(won, "term", "candidate_id") == (term, leader)
    assert won.parent is None
    # The witnesses: who asked for votes on the links, and whom the voters wrote down.
    assert {attributes(span, "candidate_id", "term") for span in spans} == asked
    voters = [node for node, read in journals.items() if (read.term, read.voted_for) == (term, leader)]
    assert len(voters) >= 3
    assert leader in voters
    in_it = [span for span in held if trace_of(span) == trace_of(won)]
    answering = {attributes(span, "source_node")[0] for span in in_it if span.name == "mesh.message_forward"}
    assert answering >= set(voters)
    assert events == [("leader.elected", {"node": leader, "term": term})]


def is_sign_of_life(frame: Frame) -> bool:
    return isinstance(frame.body, Progress) or (isinstance(frame.body, Append) and not frame.body.entries)


def elections(recorder: Recorder) -> list[ReadableSpan]:
    return list(recorder.named("raft.leader_election"))


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def identity_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def attributes(span: ReadableSpan, *keys: str) -> tuple[Any, ...]:
    assert span.attributes is not None
    return tuple(span.attributes[key] for key in keys)
