"""The time until a fault is noticed, from the events of a run and the findings of its cycles."""

from __future__ import annotations

from typing import Any

import pytest

from mapek_runtime import Finding
from mapek_runtime.service.detection import Detection


class Stage:
    """A detection with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.detection = Detection(lambda: self.now)

    def injected(self, number: int, target: str) -> None:
        self.detection.event("fault.injected", {"number": number, "kind": "link.down", "target": target})

    def cleared(self, number: int, target: str) -> None:
        self.detection.event("fault.cleared", {"number": number, "kind": "link.down", "target": target})

    def found(self, after: float, target: str, **fields: Any) -> list[dict[str, Any]]:
        self.now += after
        found = self.detection.found([Finding(target=target, problem="link.dead", **fields)])
        return [dict(each) for each in found]


@pytest.mark.parametrize(
    ("fault", "finding"),
    [("node-1~node-2", "node-1~node-2"), ("node-4", "node-4"), ("node-4", "node-3~node-4")],
)
def test_the_first_finding_about_its_target_counts(fault: str, finding: str) -> None:
    stage = Stage()
    stage.injected(1, fault)

    told = stage.found(0.25, finding)
    told += stage.found(1.0, finding)
    stage.cleared(1, fault)

    assert told == [{"number": 1, "kind": "link.down", "target": fault, "detection_ms": pytest.approx(250.0)}]
    assert stage.detection.seconds == pytest.approx([0.25])
    assert stage.detection.missed == 0


@pytest.mark.parametrize(("target", "fields"), [("node-2~node-3", {}), ("node-1~node-2", {"anomaly": False})])
def test_what_is_about_something_else_does_not(target: str, fields: dict[str, Any]) -> None:
    stage = Stage()
    stage.injected(1, "node-1~node-2")

    stage.found(0.25, target, **fields)
    stage.cleared(1, "node-1~node-2")

    assert stage.detection.seconds == ()
    assert stage.detection.missed == 1


def test_each_fault_is_noticed_by_itself() -> None:
    stage = Stage()
    stage.injected(1, "node-1~node-2")
    stage.now += 1.0
    stage.injected(2, "node-2~node-3")

    stage.found(0.5, "node-2~node-3")
    stage.found(0.5, "node-1~node-2")

    assert stage.detection.seconds == pytest.approx([0.5, 2.0])


def test_an_event_without_what_it_needs_is_passed_over() -> None:
    stage = Stage()

    stage.detection.event("fault.injected", {})
    stage.detection.event("cycle", {"node": "node-1"})
    stage.detection.event("fault.cleared", {"number": 9, "target": "nowhere"})

    assert stage.detection.missed == 0
