"""Tools to test plugins with, shipped for their authors.

This layer may know the loop and the spans; nothing of the runtime knows it. pytest itself is
imported by `pytest_plugin` alone, so that the rest can be used without it.
"""

from __future__ import annotations

from .check import check_plugin
from .clock import AutojumpClock, unix_time_ns
from .harness import run_cycle
from .recorder import Recorder
from .tree import Node, Tree, tree

__all__ = [
    "AutojumpClock",
    "Node",
    "Recorder",
    "Tree",
    "check_plugin",
    "run_cycle",
    "tree",
    "unix_time_ns",
]
