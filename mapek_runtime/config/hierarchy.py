"""Settings of hierarchical control: a slow loop over the fast ones."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["HierarchySettings"]


class HierarchySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slow loop over the fast ones of all nodes: it looks at what they have been through and sets goals
    for them. Goals reach the nodes of other processes by the crdt domain."""

    enabled: bool = False
    """Whether this process runs it; of several processes it should be one, unless `leader_only`."""
    leader_only: bool = False
    """Run it only while a node of this process leads, as the consensus of the run (raft) says. Every process
    has it enabled then, and a slow loop that is lost is followed by another."""
    nodes: tuple[str, ...] = ()
    """The nodes whose incidents and facts it gets to know, such as those of a region; empty: all."""
    node: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "region"
    """What the slow loop is called on its spans; not the name of a node."""
    interval: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds from one of its cycles to the next; the rest is as `[loop]` says."""
    plugins: tuple[str, ...] = ("mesh_region",)
    """Its plugins: names of installed ones, or MODULE:NAME."""
