"""The summary of a run."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.export import Statistics
from mapek_runtime.loop import FaultReport, RuntimeStatistics
from mapek_runtime.service.summary import Summary, percentile


def summary(*reports: FaultReport) -> Summary:
    counts = RuntimeStatistics(
        cycles=10,
        failed=1,
        cancelled=0,
        ticks_skipped=2,
        coalesced=0,
        actions=3,
        actions_failed=1,
        rejected=4,
    )
    return Summary(
        seconds=1.5,
        nodes={"node-1": counts, "node-2": counts},
        reports=reports,
        spans=Statistics(10, 0, 6, {"queue_full": 1}, 0, 2, 1, 0, {}),
        loop_lag_ms={"median": 0.1, "p99": 0.2, "max": 0.3},
    )


REPORT = FaultReport(
    injected=4, healed=3, repair_seconds=(0.3, 0.1, 0.2), wrong_actions=1, sent=200, delivered=150
)


def test_counts_are_summed_over_nodes_and_domains() -> None:
    facts = summary(REPORT, REPORT).as_dict()

    assert facts["cycles"] == 20
    assert facts["faults_injected"] == 8
    assert facts["faults_healed"] == 6
    assert facts["wrong_actions"] == 2
    assert facts["repair_ms"] == {"median": 200.0, "p95": 300.0}
    assert facts["delivery_ratio"] == 0.75
    assert facts["spans"] == {
        "ended": 10, "recovered": 0, "exported": 6, "dropped": {"queue_full": 1}, "held": 0, "queued": 2,
        "in_flight": 1, "spooled": 0,
    }  # fmt: skip
    assert json.loads(json.dumps(facts)) == facts


def test_what_was_not_measured_is_null() -> None:
    facts = summary().as_dict()

    assert facts["delivery_ratio"] is None
    assert facts["repair_ms"] == {"median": None, "p95": None}


def test_people_read_the_same() -> None:
    text = "\n".join(summary(REPORT).lines())

    assert "20 cycles on 2 nodes in 1.5 s (2 failed)" in text
    assert "4 faults injected, 3 healed, time to repair 200 ms median, 300 ms p95; 1 wrong actions" in text
    assert "150 of 200 messages delivered (75.00%)" in text
    assert "10 spans ended: 6 exported, 1 dropped, 3 waiting" in text


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
