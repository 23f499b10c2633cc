"""Why a cycle decided as it did, from a cycle that the runtime itself ran."""

from __future__ import annotations

from mapek_runtime.export import encode_spans
from mapek_runtime.loop import Action, Cycle, Evidence, Finding, Observation, Outcome, Rejection
from mapek_runtime.service.trace_tree import grow
from mapek_runtime.service.why import why
from mapek_runtime.testing import Recorder, run_cycle


class Doctor:
    async def monitor(self, cycle: Cycle) -> list[Observation]:
        return [Observation(name="degrees", value=40.5, unit="Cel", target="patient")]

    async def analyze(self, cycle: Cycle) -> list[Finding]:
        evidence = Evidence(metric="degrees", value=40.5, threshold=38.0, unit="Cel")
        return [
            Finding(problem="fever", target="patient", confidence=0.9, anomaly=True, evidence=(evidence,))
        ]

    async def plan(self, cycle: Cycle) -> list[Action | Rejection]:
        (finding,) = cycle.findings
        cool = Action(name="cool", target="patient", reason="it is hot", finding=finding)
        return [
            cool,
            Rejection(action=Action(name="wait", target="patient"), rule="urgent", reason="too hot"),
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=True, changed="now at 37")


async def test_a_cycle_tells_what_was_found_chosen_rejected_and_done(recorder: Recorder) -> None:
    await run_cycle(Doctor())
    lines = list(why(grow(encode_spans(recorder.spans))))
    kinds = [kind for kind, _ in lines]
    assert kinds == ["found", "chosen", "rejected", "action"]
    found, chosen, rejected, action = (text for _, text in lines)
    assert found == "fever patient (degrees 40.5 against 38 Cel), confidence 0.9"
    assert chosen == "cool patient: it is hot"
    assert rejected == "wait patient by urgent: too hot"
    assert action == "cool patient: done; now at 37"
