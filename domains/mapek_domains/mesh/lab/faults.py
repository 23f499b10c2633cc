"""Faults in the lab without netem: nft on the receiver's ingress, link down, and a killed daemon.

Each fault lives in a table of its own in a namespace of the lab, so that healing one takes away
nothing else. The functions block for some milliseconds: call them in a thread.
"""

from __future__ import annotations

from mapek_runtime.errors import ConfigError

from .namespace import command

__all__ = ["FAULT_TABLE", "drop_ingress", "forget_routes", "heal_ingress", "set_link"]

FAULT_TABLE = "mapek_fault"
_BABEL = "42"


def drop_ingress(namespace: str, interface: str, share: float) -> None:
    """Drop a share (0..1] of what arrives on `interface`: 1 is a one-way blackhole with carrier."""
    if not 0 < share <= 1:
        raise ConfigError(f"the loss on {interface!r} is {share!r}; it must lie above 0 and at most at 1")
    table = _table(interface)
    chance = "" if share == 1 else f"numgen random mod 1000 < {round(share * 1000)} "
    heal_ingress(namespace, interface)
    _nft(
        namespace,
        f"add table netdev {table}",
        f'add chain netdev {table} i {{ type filter hook ingress device "{interface}" priority 0 ; }}',
        f"add rule netdev {table} i {chance}counter drop",
    )


def heal_ingress(namespace: str, interface: str) -> None:
    """Take the drop away; not an error when there is none."""
    table = _table(interface)
    # Adding first makes the deletion safe; both are one transaction.
    _nft(namespace, f"add table netdev {table}", f"delete table netdev {table}")


def set_link(namespace: str, interface: str, *, up: bool) -> None:
    """Set one end of a link up or down; the other end sees its carrier go."""
    command("ip", "-n", namespace, "link", "set", interface, "up" if up else "down")


def forget_routes(namespace: str) -> None:
    """Take away the routes that a killed babeld left in the kernel."""
    for family in ("-4", "-6"):
        command("ip", "-n", namespace, family, "route", "flush", "proto", _BABEL)


def _table(interface: str) -> str:
    return f"{FAULT_TABLE}_{interface.replace('-', '_')}"


def _nft(namespace: str, *lines: str) -> None:
    command("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin="\n".join(lines) + "\n")
