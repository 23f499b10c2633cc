"""The link-state protocol alone: what runs when nobody heals."""

from __future__ import annotations

from mapek_domains.mesh.udp.emulator import ring_with_chords
from mapek_domains.mesh.udp.linkstate import DEAD_AFTER, LinkStateNode, Send
from mapek_domains.mesh.udp.wire import Hello, Lsa, LsaAck, LsaLink

NODES = ("n1", "n2", "n3", "n4", "n5")
STEP = 0.05


class Mesh:
    """Link-state nodes joined by wires that the test can cut."""

    def __init__(self, nodes: tuple[str, ...] = NODES) -> None:
        self.now = 0.0
        self.pairs = ring_with_chords(nodes)
        self.nodes = {name: self.fresh(name) for name in nodes}
        self.cut: set[tuple[str, str]] = set()
        self.down: set[str] = set()
        self.sent = 0

    def fresh(self, name: str) -> LinkStateNode:
        peers = [b if a == name else a for a, b in self.pairs if name in (a, b)]
        return LinkStateNode(name, dict.fromkeys(peers, 1), self.now)

    def carry(self, sender: str, frames: Send) -> None:
        waiting = [(sender, peer, frame) for peer, frame in frames]
        while waiting:
            source, target, frame = waiting.pop(0)
            self.sent += 1
            if (source, target) in self.cut or {source, target} & self.down:
                continue
            node = self.nodes[target]
            replies: Send = []
            match frame:
                case Hello():
                    replies = node.hello(source, frame, self.now)
                case Lsa():
                    replies = node.lsa(source, frame, self.now)
                case LsaAck():
                    node.ack(source, frame)
            waiting += [(target, peer, reply) for peer, reply in replies]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            for name, node in self.nodes.items():
                if name not in self.down:
                    self.carry(name, node.tick(self.now))

    def edges(self) -> set[tuple[tuple[str, str, int], ...]]:
        return {node.edges() for name, node in self.nodes.items() if name not in self.down}


def full(mesh: Mesh) -> tuple[tuple[str, str, int], ...]:
    return tuple(sorted((min(a, b), max(a, b), 1) for a, b in mesh.pairs))


def test_all_nodes_soon_know_all_links() -> None:
    mesh = Mesh()
    mesh.run(1.5)

    assert mesh.edges() == {full(mesh)}


def test_a_one_way_link_is_not_used_after_the_dead_time() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    mesh.cut.add(("n1", "n2"))
    mesh.run(DEAD_AFTER - 1.5)
    before = mesh.edges()
    mesh.run(3.0)

    assert before == {full(mesh)}
    assert mesh.edges() == {tuple(edge for edge in full(mesh) if edge[:2] != ("n1", "n2"))}


def test_either_end_drains_the_link_for_all_at_once() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    mesh.carry("n2", mesh.nodes["n2"].set_drained("n1", True, mesh.now))

    assert all(("n1", "n2", 1) not in edges for edges in mesh.edges())
    assert mesh.nodes["n1"].drained("n2")
    assert not mesh.nodes["n1"].drained_here("n2")


def test_a_drain_reaches_the_others_when_most_frames_are_lost_at_first() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    mesh.cut = {(a, b) for a in NODES for b in NODES}
    mesh.carry("n1", mesh.nodes["n1"].set_drained("n2", True, mesh.now))
    unheard = len(mesh.edges())
    mesh.cut = set()
    mesh.run(0.5)

    assert unheard == 2
    assert len(mesh.edges()) == 1


def test_a_restarted_node_is_believed_though_it_counts_from_one_again() -> None:
    mesh = Mesh()
    mesh.run(30.0)
    mesh.down.add("n3")
    mesh.run(6.0)
    without = mesh.edges()
    mesh.nodes["n3"] = mesh.fresh("n3")
    mesh.down.clear()
    mesh.run(1.5)

    assert without == {tuple(edge for edge in full(mesh) if "n3" not in edge)}
    assert mesh.edges() == {full(mesh)}


def test_others_tell_whether_a_silent_node_is_heard_elsewhere() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    for name, node in mesh.nodes.items():
        if name != "n2":
            peers = {b if a == name else a for a, b in mesh.pairs if name in (a, b)}
            mesh.carry(name, node.set_silent({peer: peer == "n1" for peer in peers}, mesh.now))
        else:
            mesh.carry(name, node.set_silent({"n1": False}, mesh.now))
    heard = mesh.nodes["n3"].heard()
    mesh.carry("n2", mesh.nodes["n2"].set_silent({"n1": True}, mesh.now))

    assert heard == set(mesh.nodes)
    assert mesh.nodes["n3"].heard() == set(mesh.nodes) - {"n1"}
    assert mesh.nodes["n3"].missed(mesh.nodes["n3"].heard()) == {"n1"}


def test_two_that_die_at_once_do_not_vouch_for_one_another() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    for name, node in mesh.nodes.items():
        peers = {b if a == name else a for a, b in mesh.pairs if name in (a, b)}
        mesh.carry(name, node.set_silent(dict.fromkeys(peers, False), mesh.now))
    for name, node in mesh.nodes.items():
        if name not in ("n1", "n2"):
            peers = {b if a == name else a for a, b in mesh.pairs if name in (a, b)}
            mesh.carry(name, node.set_silent({peer: peer in ("n1", "n2") for peer in peers}, mesh.now))

    for name in set(mesh.nodes) - {"n1", "n2"}:
        assert mesh.nodes[name].heard() == set(mesh.nodes) - {"n1", "n2"}
        assert mesh.nodes[name].missed(mesh.nodes[name].heard()) == {"n1", "n2"}


def test_a_quiet_mesh_sends_hellos_and_little_else() -> None:
    mesh = Mesh()
    mesh.run(3.0)
    mesh.sent = 0
    mesh.run(10.0)

    assert mesh.sent <= 2 * len(mesh.pairs) * 11


def test_frames_from_strangers_change_nothing() -> None:
    mesh = Mesh()
    mesh.run(2.0)
    node = mesh.nodes["n1"]
    version = node.version
    lie = Lsa(origin="n2", seq=99, links=[LsaLink(peer="n9")])

    assert node.lsa("n9", lie, mesh.now) == []
    assert node.hello("n9", Hello(node="n9", heard=["n1"], digest=[]), mesh.now) == []
    assert node.version == version
