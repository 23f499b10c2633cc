"""The mesh as the page shows it: nodes, links, and what was measured of the faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from mapek_runtime.loop import FaultInjector, RuntimeStatistics, Topology
from mapek_runtime.web.state import LinkShown, Mesh, NodeShown, RepairTimes, Report

from .summary import percentile

__all__ = ["alike", "show_links", "show_nodes", "show_report"]


def show_nodes(
    own: Sequence[str],
    topologies: Sequence[Topology],
    counts: Mapping[str, RuntimeStatistics],
    leader: str = "",
) -> tuple[NodeShown, ...]:
    """Every node of this process and those that its domains know of, in order."""
    alive = dict.fromkeys(own, True)
    for topology in topologies:
        alive.update(topology.alive())
    shown: list[NodeShown] = []
    for node in sorted(alive, key=_natural):
        count = counts.get(node)
        if count is None:
            shown.append(NodeShown(id=node, alive=alive[node], leads=node == leader))
            continue
        shown.append(
            NodeShown(
                id=node,
                alive=alive[node],
                leads=node == leader,
                cycles=count.cycles,
                failed=count.failed,
                actions=count.actions,
                refused=count.rejected,
            )
        )
    return tuple(shown)


def show_links(topologies: Sequence[Topology]) -> tuple[LinkShown, ...]:
    """Every link; loss and round trip rounded, so that what only trembles looks the same."""
    return tuple(
        LinkShown(
            a=link.a,
            b=link.b,
            state=link.state,
            loss=round(link.loss, 3),
            rtt=round(link.rtt, 6),
            fault=link.fault,
        )
        for topology in topologies
        for link in topology.links()
    )


def show_report(injectors: Sequence[FaultInjector]) -> Report | None:
    """What became of the faults so far; None where no domain can make any."""
    if not injectors:
        return None
    reports = [injector.report() for injector in injectors]
    repairs = [seconds * 1000 for report in reports for seconds in report.repair_seconds]
    p95 = percentile(repairs, 0.95)
    return Report(
        injected=sum(report.injected for report in reports),
        healed=sum(report.healed for report in reports),
        wrong_actions=sum(report.wrong_actions for report in reports),
        repair_ms=None if p95 is None else RepairTimes(median=round(median(repairs), 1), p95=round(p95, 1)),
        sent=sum(report.sent for report in reports),
        delivered=sum(report.delivered for report in reports),
    )


def alike(before: Mesh, after: Mesh) -> bool:
    """Whether only counts of cycles and round trips are different, which nobody waits for."""
    return (
        before.halted == after.halted
        and before.faults == after.faults
        and [_node(node) for node in before.nodes] == [_node(node) for node in after.nodes]
        and [_link(link) for link in before.links] == [_link(link) for link in after.links]
    )


def _node(node: NodeShown) -> tuple[object, ...]:
    return node.id, node.alive, node.leads, node.actions, node.failed


def _link(link: LinkShown) -> tuple[object, ...]:
    return link.a, link.b, link.state, link.fault, round(link.loss, 1)


def _natural(name: str) -> tuple[str, int, str]:
    """node-2 before node-10."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits) if digits and len(digits) < 19 else 0, name
