"""Faults of links, made in the emulator: what each kind does to the datagrams of a link.

Parameters of a fault: `loss` (share), `delay` and `jitter` (seconds in each direction that is slow),
`reverse` (from the second node to the first, where only one direction is bad), `one_way`.
"""

from __future__ import annotations

from collections.abc import Callable

from mapek_domains.mesh.schedule import SLOW, SLOW_BY
from mapek_runtime.loop.domain import Fault

from .emulator import Conditions, Emulator

__all__ = ["set_fault"]


def set_fault(
    emulator: Emulator, fault: Fault, *, present: bool, usual: Callable[[str, str], Conditions]
) -> None:
    """Make a fault of a link, or take it away: then the link is again as is `usual` in each direction."""
    a, _, b = fault.target.partition("~")
    if fault.parameters.get("reverse"):
        a, b = b, a
    if fault.kind == "link.down":
        emulator.set_down(a, b, present)
        return
    if fault.kind == "link.blackhole":
        emulator.change(a, b, blackhole=present)
        return
    ways = ((a, b),) if fault.parameters.get("one_way") else ((a, b), (b, a))
    for sender, receiver in ways:
        before = usual(sender, receiver)
        if fault.kind == SLOW:
            delay = fault.parameters.get("delay", SLOW_BY) if present else 0.0
            jitter = fault.parameters.get("jitter", 0.0) if present else 0.0
            emulator.change(sender, receiver, delay=before.delay + delay, jitter=before.jitter + jitter)
        else:
            loss = fault.parameters.get("loss", 0.6) if present else before.loss
            emulator.change(sender, receiver, loss=loss)
