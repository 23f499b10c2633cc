"""The lab as values: nodes, links, addresses. Nothing here touches the system."""

from __future__ import annotations

from dataclasses import dataclass

from mapek_domains.mesh.engine import link_id

__all__ = ["SIX_NODES", "LinkPlan", "Topology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """One veth pair: `a` and `b` are its ends, `number` gives its /30."""

    number: int
    a: str
    b: str

    @property
    def link(self) -> str:
        """The name of the link, the same from both ends."""
        return link_id(self.a, self.b)

    def interface(self, node: str) -> str:
        """The interface at that end; named after the peer, since each node has its own namespace."""
        return f"to-{self.peer(node)}"

    def address(self, node: str) -> str:
        """The address at that end."""
        return f"10.1.{self.number}.{1 if node == self.a else 2}"

    def peer(self, node: str) -> str:
        """The node at the other end."""
        if node not in (self.a, self.b):
            raise ValueError(f"{node!r} is no end of {self.link!r}; its ends are {self.a!r} and {self.b!r}")
        return self.b if node == self.a else self.a


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes in order, and pairs of them that are linked."""

    nodes: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]

    @property
    def links(self) -> tuple[LinkPlan, ...]:
        """Every link, numbered from 1."""
        return tuple(LinkPlan(number=n, a=a, b=b) for n, (a, b) in enumerate(self.pairs, 1))

    def identity(self, node: str) -> str:
        """The address a node is known by, whichever links it has."""
        return f"10.255.0.{self.nodes.index(node) + 1}"

    def identity6(self, node: str) -> str:
        """The same in IPv6."""
        return f"fd00::{self.nodes.index(node) + 1:x}"

    def node_of(self, prefix: str) -> str | None:
        """The node whose identity that prefix is; None for all else."""
        host, _, length = prefix.partition("/")
        start = "10.255.0."
        if length != "32" or not host.startswith(start) or not host[len(start) :].isdecimal():
            return None
        number = int(host[len(start) :])
        return self.nodes[number - 1] if 1 <= number <= len(self.nodes) else None

    def of(self, node: str) -> tuple[LinkPlan, ...]:
        """The links of one node."""
        return tuple(link for link in self.links if node in (link.a, link.b))

    def link(self, name: str) -> LinkPlan:
        """The link called `name`; raises ValueError with the names there are."""
        for link in self.links:
            if link.link == name:
                return link
        raise ValueError(f"no link {name!r}; there are {', '.join(link.link for link in self.links)}")


SIX_NODES = Topology(
    nodes=("n1", "n2", "n3", "n4", "n5", "n6"),
    pairs=(
        ("n1", "n2"),
        ("n1", "n3"),
        ("n2", "n4"),
        ("n2", "n5"),
        ("n3", "n5"),
        ("n4", "n6"),
        ("n5", "n6"),
    ),
)
"""Seven links; three paths of three hops from n1 to n6, two of them through n2."""
