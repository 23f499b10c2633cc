"""What the loop of a node does where a model of what is normal speaks, and the thresholds do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mapek_domains.mesh.detect import LinkState
from mapek_domains.mesh.features import DELAY, LOSS
from mapek_domains.mesh.watch import MeshWatcher
from mapek_domains.mesh.window import MOST_RTTS, MOST_VERDICTS, Window
from mapek_runtime import Cycle
from mapek_runtime.loop.domain import Judgement
from tests.unit.mesh.test_decisions import TRIANGLE, Engine, Loop, chosen, refused

ALL = (1 << MOST_VERDICTS) - 1


def losing(every: int) -> int:
    return ALL & ~sum(1 << place for place in range(0, MOST_VERDICTS, every))


class Model:
    def judge(self, _node_id: str, _kind: str, features: Sequence[float]) -> Judgement | None:
        worst = max(*features[LOSS], *features[DELAY])
        return Judgement(score=min(worst / 4.0, 1.0), threshold=0.3, version=7)

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        pass


class Mesh:
    """A node whose links have windows, beside a model; ten turns a second."""

    def __init__(
        self, node_id: str = "n1", edges: Sequence[tuple[str, str]] = TRIANGLE, *, model: bool = True
    ) -> None:
        self.engine = Engine(node_id, edges)
        self.loop = Loop(self.engine)
        if model:
            self.loop.watcher = MeshWatcher(self.engine, Model)
            self.loop.healer = type(self.loop.healer)(self.loop.watcher)
        self.seen = 0
        self.came = dict.fromkeys(self.engine.readings, ALL)
        self.rtt = dict.fromkeys(self.engine.readings, 0.001)

    async def turn(self, seconds: float = 0.1) -> Cycle:
        for _ in range(round(seconds * 10)):
            self.seen += 2
            for link in self.engine.readings:
                rtts = (self.rtt[link],) * min(self.seen, MOST_RTTS)
                window = Window(self.came[link], self.seen, ALL, self.seen, rtts, self.seen)
                self.engine.set(link, window=window)
            cycle = await self.loop.turn()
        return cycle


async def test_a_mild_loss_is_found_by_the_model_and_drained_with_its_evidence() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.came["n1~n2"] = losing(8)
    cycle = await mesh.turn(0.5)
    (finding,) = cycle.findings
    score, *rest = finding.evidence

    assert (finding.target, finding.problem) == ("n1~n2", "link.lossy")
    assert (score.metric, score.threshold, score.rule) == ("fl.score", 0.3, "model of round 7")
    assert score.value >= score.threshold
    assert rest[-1].metric == "link.loss"
    assert rest[-1].value == pytest.approx(0.125)
    assert {evidence.metric for evidence in rest[:-1]} <= {
        f"fl.worse_loss_{n}" for n in (16, 32, 64, 128)
    } | {"fl.worse_runs_128"}
    assert chosen(cycle) == [("drain", "n1~n2")]
    assert {"wait", "restart"} == {action for action, _ in refused(cycle)}


async def test_a_slow_link_is_found_by_the_model_and_drained() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.rtt["n1~n2"] = 0.03
    cycle = await mesh.turn(0.5)
    (finding,) = cycle.findings

    assert finding.problem == "link.slow"
    assert finding.evidence[-1].metric == "link.rtt"
    assert finding.evidence[-1].value == pytest.approx(0.03)
    assert finding.evidence[-1].threshold == pytest.approx(0.001)
    assert chosen(cycle) == [("drain", "n1~n2")]


async def test_without_a_model_a_mild_fault_is_as_unseen_as_ever() -> None:
    mesh = Mesh(model=False)
    await mesh.turn(15.0)
    mesh.came["n1~n2"], mesh.rtt["n1~n3"] = losing(8), 0.03
    cycle = await mesh.turn(3.0)

    assert (cycle.findings, cycle.actions, cycle.rejections) == ((), (), ())


async def test_the_thresholds_are_heard_first() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.came["n1~n2"] = losing(8)
    await mesh.turn(0.5)
    mesh.engine.set("n1~n2", missed_out=6, good=0)
    cycle = await mesh.turn()

    assert [finding.problem for finding in cycle.findings] == ["link.dead"]


async def test_a_slow_link_is_kept_where_two_others_together_are_no_faster() -> None:
    mesh = Mesh()
    mesh.rtt = dict.fromkeys(mesh.rtt, 0.02)
    await mesh.turn(15.0)
    mesh.rtt["n1~n2"] = 0.035
    cycle = await mesh.turn(0.5)

    assert [finding.problem for finding in cycle.findings] == ["link.slow"]
    assert refused(cycle) == {("drain", "no better way")}


async def test_a_lossy_link_is_kept_where_the_others_lose_about_as_much() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.came.update({"n1~n2": losing(6), "n1~n3": losing(20)})
    cycle = await mesh.turn(0.5)

    assert [finding.target for finding in cycle.findings] == ["n1~n2"]
    assert refused(cycle) == {("drain", "no better way")}


async def test_the_last_way_out_is_kept_however_slow() -> None:
    mesh = Mesh(edges=(("n1", "n2"), ("n1", "n3")))
    await mesh.turn(15.0)
    mesh.rtt["n1~n2"] = 0.05
    cycle = await mesh.turn(0.5)

    assert refused(cycle) == {("drain", "last way out")}


async def test_a_link_that_the_model_still_calls_bad_is_not_used_again() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.rtt["n1~n2"] = 0.03
    await mesh.turn(0.5)
    mesh.engine.set("n1~n2", drained=True, drained_here=True)
    while_slow = [await mesh.turn(1.0) for _ in range(12)]
    mesh.rtt["n1~n2"] = 0.001
    after = [await mesh.turn(0.1) for _ in range(5)]

    assert all(chosen(cycle) == [] for cycle in while_slow)
    assert any(chosen(cycle) == [("undrain", "n1~n2")] for cycle in after)
    assert mesh.engine.readings["n1~n2"].good >= LinkState.GOOD_PROBES


async def test_an_undrain_of_a_link_that_the_model_calls_bad_again_has_failed() -> None:
    mesh = Mesh()
    await mesh.turn(15.0)
    mesh.engine.set("n1~n2", drained=True, drained_here=True)
    await mesh.turn(0.2)
    cycle = await mesh.turn(6.0)
    undrain = next(action for action in cycle.actions if action.name == "undrain")
    mesh.engine.set("n1~n2", drained=False, drained_here=False)
    mesh.rtt["n1~n2"] = 0.03
    later = await mesh.turn(1.5)

    assert await mesh.loop.healer.verify(later, undrain) is False


async def test_a_node_that_distrusts_itself_teaches_nothing_of_its_links() -> None:
    taught: list[bool | None] = []

    class Pupil(Model):
        def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
            taught.append(normal)

    mesh = Mesh()
    pupil = Pupil()
    mesh.loop.watcher = MeshWatcher(mesh.engine, lambda: pupil)
    await mesh.turn(15.0)
    taught.clear()
    for link in mesh.engine.readings:
        mesh.engine.readings[link] = replace(mesh.engine.readings[link], missed_in=9, good=0)
    await mesh.turn(5.0)

    assert set(taught) == {None}
