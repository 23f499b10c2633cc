"""What the loop of a node decides, on an engine that only answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mapek_domains.mesh.detect import Normal
from mapek_domains.mesh.engine import LinkReading
from mapek_domains.mesh.heal import MeshHealer
from mapek_domains.mesh.watch import MeshWatcher
from mapek_runtime import Action, Cycle, Knowledge, Rejection
from mapek_runtime.errors import EngineUnavailable

GOOD = LinkReading(
    link="",
    peer="",
    loss_in=0.0,
    loss_out=0.0,
    rtt=0.001,
    silence=0.02,
    missed_in=0,
    missed_out=0,
    score_in=0.0,
    score_out=0.0,
    baseline_loss=0.002,
    probes=1000,
    good=500,
    drained=False,
    drained_here=False,
    peer_alive=True,
)
TRIANGLE = (("n1", "n2"), ("n1", "n3"), ("n2", "n3"))


class Engine:
    """An engine in memory: its readings are what the test says, its actions are written down."""

    notices_after = 2.5

    def __init__(self, node_id: str = "n1", edges: Sequence[tuple[str, str]] = TRIANGLE) -> None:
        self.node_id = node_id
        self.all_edges = list(edges)
        self.readings = {
            f"{a}~{b}": replace(GOOD, link=f"{a}~{b}", peer=b if a == node_id else a)
            for a, b in edges
            if node_id in (a, b)
        }
        self.done: list[tuple[str, str]] = []
        self.refuses_restart = False

    def links(self) -> Sequence[LinkReading]:
        return tuple(self.readings.values())

    def nodes(self) -> Mapping[str, bool]:
        return {node: True for edge in self.all_edges for node in edge}

    def edges(self) -> Sequence[tuple[str, str]]:
        return tuple(self.all_edges)

    def route(self, destination: str) -> Sequence[str]:
        return (self.node_id, destination)

    def stalled(self) -> float:
        return 0.0

    async def drain(self, link: str) -> str:
        self.done.append(("drain", link))
        return "drained"

    async def undrain(self, link: str) -> str:
        self.done.append(("undrain", link))
        return "undrained"

    async def restart(self, node_id: str) -> str:
        if self.refuses_restart:
            raise EngineUnavailable("it runs elsewhere")
        self.done.append(("restart", node_id))
        return "restarted"

    def set(self, link: str, **changes: object) -> None:
        self.readings[link] = replace(self.readings[link], **changes)  # type: ignore[arg-type]


class Loop:
    """Turns the phases by hand, a tenth of a second apart."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.watcher = MeshWatcher(engine)
        self.healer = MeshHealer(self.watcher)
        self.knowledge = Knowledge()
        self.now = 100.0
        self.number = 0

    async def turn(self, *, execute: bool = False) -> Cycle:
        self.now += 0.1
        self.number += 1
        cycle = Cycle(
            node_id=self.engine.node_id,
            number=self.number,
            triggers=(),
            started=self.now,
            knowledge=self.knowledge,
        )
        cycle.observations = tuple(await self.watcher.monitor(cycle))
        cycle.findings = tuple(await self.watcher.analyze(cycle))
        options = list(await self.healer.plan(cycle))
        cycle.actions = tuple(option for option in options if isinstance(option, Action))
        cycle.rejections = tuple(option for option in options if isinstance(option, Rejection))
        if execute:
            cycle.outcomes = tuple([await self.healer.execute(cycle, action) for action in cycle.actions])
        cycle.insights = tuple(await self.watcher.learn(cycle))
        return cycle


def chosen(cycle: Cycle) -> list[tuple[str, str]]:
    return [(action.name, action.target) for action in cycle.actions]


def refused(cycle: Cycle) -> set[tuple[str, str]]:
    return {(rejection.action.name, rejection.rule) for rejection in cycle.rejections}


async def test_a_healthy_mesh_is_left_alone() -> None:
    cycle = await Loop(Engine()).turn()

    assert cycle.findings == ()
    assert cycle.actions == ()


async def test_the_owner_drains_a_dead_link_at_once_with_evidence_and_threshold() -> None:
    engine = Engine()
    engine.set("n1~n2", missed_out=6, good=0)
    cycle = await Loop(engine).turn()

    assert chosen(cycle) == [("drain", "n1~n2")]
    (evidence,) = cycle.findings[0].evidence
    assert (evidence.metric, evidence.value, evidence.threshold) == ("link.missed_out", 6, 4)
    assert refused(cycle) == {("wait", "too slow"), ("restart", "too much")}


async def test_the_other_end_waits_a_cycle_for_the_owner() -> None:
    engine = Engine("n2")
    engine.set("n1~n2", missed_in=6, good=0)
    loop = Loop(engine)
    first, second = await loop.turn(), await loop.turn()

    assert first.actions == ()
    assert ("drain", "other end is the owner") in refused(first)
    assert chosen(second) == [("drain", "n1~n2")]


async def test_a_cycle_that_was_triggered_a_moment_later_is_no_reason_to_forestall_the_owner() -> None:
    engine = Engine("n2")
    engine.set("n1~n2", missed_in=6, good=0)
    loop = Loop(engine)
    await loop.turn()
    loop.now -= 0.09
    second = await loop.turn()

    assert second.actions == ()


async def test_a_drain_is_verified_by_an_answer_where_the_engine_can_ask() -> None:
    class Asking(Engine):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []
            self.hears = False

        def route(self, destination: str) -> Sequence[str]:
            return (self.node_id, "n3", destination)

        def ask(self, node_id: str) -> None:
            self.asked.append(node_id)

        def answered(self, node_id: str, since: float) -> bool:
            return self.hears

    engine = Asking()
    engine.set("n1~n2", missed_out=6, good=0)
    loop = Loop(engine)
    cycle = await loop.turn(execute=True)
    unanswered = await loop.healer.verify(cycle, cycle.actions[0])
    engine.hears = True
    answered = await loop.healer.verify(cycle, cycle.actions[0])

    assert (unanswered, answered) == (None, True)
    # Once by the drain itself, so that the next cycle knows, and once by the verification.
    assert engine.asked == ["n2", "n2"]


async def test_what_the_mesh_alone_would_need_is_the_engines_own_figure() -> None:
    engine = Engine()
    engine.notices_after = 0.8
    engine.set("n1~n2", missed_out=6, good=0)
    cycle = await Loop(engine).turn()

    waiting = [rejection.reason for rejection in cycle.rejections if rejection.action.name == "wait"]
    assert waiting == ["the mesh's own protocol needs 0.8 s of silence, and one way still works"]


async def test_a_lossy_link_is_named_so() -> None:
    engine = Engine()
    engine.set("n1~n2", score_in=19.0, loss_in=0.6, good=0)
    cycle = await Loop(engine).turn()

    assert [finding.problem for finding in cycle.findings] == ["link.lossy"]
    assert chosen(cycle) == [("drain", "n1~n2")]


async def test_nothing_is_drained_where_every_other_link_is_as_bad() -> None:
    engine = Engine()
    for link in engine.readings:
        engine.set(link, score_in=19.0, loss_in=0.6, good=0)
    cycle = await Loop(engine).turn()

    assert cycle.actions == ()
    assert ("drain", "no better way") in refused(cycle)


async def test_a_drained_link_is_not_drained_again() -> None:
    engine = Engine()
    engine.set("n1~n2", missed_in=50, good=0, drained=True)
    cycle = await Loop(engine).turn()

    assert cycle.actions == ()
    assert [r.reason for r in cycle.rejections] == ["already drained by n2"]


async def test_the_last_way_to_a_live_node_is_not_drained() -> None:
    engine = Engine(edges=(("n1", "n2"), ("n1", "n3")))
    engine.set("n1~n2", missed_in=6, good=0)
    loop = Loop(engine)
    cycle = await loop.turn()
    action = cycle.rejections[0].action

    assert refused(cycle) == {("drain", "last way out")}
    assert loop.healer.guard(cycle, action) is not None
    assert not (await loop.healer.execute(cycle, action)).success
    assert engine.done == []


async def test_two_drains_of_one_cycle_do_not_cut_the_mesh_together() -> None:
    engine = Engine(edges=(*TRIANGLE, ("n1", "n4")))
    engine.set("n1~n2", missed_out=6, good=0)
    engine.set("n1~n3", missed_out=6, good=0)
    cycle = await Loop(engine).turn()

    assert chosen(cycle) == [("drain", "n1~n2")]
    assert ("drain", "last way out") in refused(cycle)


async def test_a_node_whose_links_all_die_suspects_itself() -> None:
    engine = Engine()
    engine.set("n1~n2", missed_in=5, good=0)
    engine.set("n1~n3", missed_in=2, good=0)
    loop = Loop(engine)
    cycle = await loop.turn()
    guarded = loop.healer.guard(cycle, Action(name="drain", target="n1~n2"))

    assert "node.isolated" in {finding.problem for finding in cycle.findings}
    assert cycle.actions == ()
    assert guarded is not None


async def test_a_dead_node_is_restarted_by_its_lowest_neighbour_only() -> None:
    for node, expected in (("n1", [("restart", "n3"), ("drain", "n1~n3")]), ("n2", [("drain", "n2~n3")])):
        engine = Engine(node)
        loop = Loop(engine)
        await loop.turn()
        engine.set(f"{node}~n3", missed_in=6, peer_alive=False, good=0)
        cycle = await loop.turn()

        assert chosen(cycle) == expected


async def test_an_engine_that_cannot_restart_is_not_asked_every_cycle() -> None:
    engine = Engine()
    engine.refuses_restart = True
    loop = Loop(engine)
    await loop.turn()
    engine.set("n1~n3", missed_in=6, peer_alive=False, good=0)
    first = await loop.turn(execute=True)
    second = await loop.turn()

    assert [outcome.error for outcome in first.outcomes if outcome.action.name == "restart"] == [
        "it runs elsewhere"
    ]
    assert ("restart", "cannot restart") in refused(second)


async def test_a_link_is_used_again_after_its_rest_and_only_by_who_drained_it() -> None:
    engine = Engine()
    loop = Loop(engine)
    engine.set("n1~n2", drained=True, drained_here=True)
    engine.set("n1~n3", drained=True, drained_here=False)
    early = await loop.turn()
    loop.now += 5.0
    late = await loop.turn()

    assert early.actions == ()
    assert chosen(late) == [("undrain", "n1~n2")]
    assert late.actions[0].restorative
    assert late.anomalies == 0


async def test_the_link_to_a_node_that_was_dead_does_not_rest() -> None:
    engine = Engine()
    loop = Loop(engine)
    await loop.turn()
    engine.set("n1~n3", missed_in=6, peer_alive=False, good=0, drained=True, drained_here=True)
    await loop.turn()
    engine.set("n1~n3", missed_in=0, peer_alive=True, good=12)
    cycle = await loop.turn()

    assert chosen(cycle) == [("undrain", "n1~n3")]


async def test_a_drain_that_a_death_was_the_reason_of_does_not_speak_against_the_link() -> None:
    engine = Engine()
    loop = Loop(engine)
    await loop.turn()
    engine.set("n1~n3", missed_in=6, good=0)
    await loop.turn(execute=True)
    blamed = loop.knowledge.fact("mesh.drained_at.n1~n3")
    engine.set("n1~n3", missed_in=6, peer_alive=False, good=0, drained=True, drained_here=True)
    await loop.turn()
    engine.set("n1~n3", missed_in=0, peer_alive=True, good=12)
    await loop.turn(execute=True)

    assert isinstance(blamed, float)
    assert blamed > 1e9
    assert engine.done == [("drain", "n1~n3"), ("undrain", "n1~n3")]
    assert loop.knowledge.fact("mesh.drained_at.n1~n3") == 0.0


async def test_a_link_does_not_rest_while_it_is_the_only_way() -> None:
    engine = Engine()
    loop = Loop(engine)
    await loop.turn()
    engine.set("n1~n2", drained=True, drained_here=True, good=2)
    engine.all_edges = [("n1", "n3"), ("n2", "n3")]
    resting = await loop.turn()
    engine.set("n1~n3", missed_in=40, peer_alive=False, good=0)
    unproven = await loop.turn()
    engine.set("n1~n2", good=3)
    needed = await loop.turn()

    assert ("undrain", "n1~n2") not in chosen(resting) + chosen(unproven)
    assert ("undrain", "n1~n2") in chosen(needed)
    assert "no other way" in next(a.reason for a in needed.actions if a.name == "undrain")


async def test_a_moved_threshold_is_an_insight() -> None:
    engine = Engine()
    loop = Loop(engine)
    await loop.turn()
    engine.set("n1~n2", baseline_loss=0.12)
    loop.now += 10.0
    cycle = await loop.turn()

    assert [(insight.name, insight.target, insight.value) for insight in cycle.insights] == [
        ("mesh.run_limit", "n1~n2", 10)
    ]


async def test_what_is_normal_outlives_the_process() -> None:
    class Learning(Engine):
        def __init__(self) -> None:
            super().__init__()
            self.known = {"n1~n2": (Normal(0.5, 600.0), Normal(60.0, 600.0))}
            self.restored: dict[str, tuple[Normal, Normal]] = {}

        def normals(self) -> dict[str, tuple[Normal, Normal]]:
            return self.known

        def restore(self, link: str, normal: tuple[Normal, Normal]) -> None:
            self.restored[link] = normal

    before, after = Learning(), Learning()
    first, second = Loop(before), Loop(after)
    await first.turn()
    assert not first.knowledge.facts("mesh.normal.")  # a life that has just begun has learned nothing
    first.now += 10.0
    await first.turn()
    second.knowledge = first.knowledge
    await second.turn()

    assert before.restored == {}
    assert after.restored == before.known
