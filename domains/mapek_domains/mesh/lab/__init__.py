"""The Babel lab: network namespaces joined by veth links, with one babeld in each.

It makes and removes systems to manage, and breaks them on purpose. It knows nothing of probes,
health or the loop.
"""

from .daemon import BabelSettings, Daemon
from .lab import Lab, sweep
from .rights import enter_user_namespace, require
from .topology import SIX_NODES, LinkPlan, Topology

__all__ = [
    "SIX_NODES",
    "BabelSettings",
    "Daemon",
    "Lab",
    "LinkPlan",
    "Topology",
    "enter_user_namespace",
    "require",
    "sweep",
]
