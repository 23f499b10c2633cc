"""Network namespaces: made and removed by `ip`, entered for the length of one synchronous block."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mapek_runtime.errors import EngineUnavailable

__all__ = ["NETNS", "command", "inside", "ip_batch", "link_socket", "node_socket"]

NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def command(*arguments: str, stdin: str | None = None, limit: float = 10.0) -> str:
    """Run a program to its end and give back what it wrote; raises `EngineUnavailable` with its text.

    Blocks for some milliseconds: call it in a thread.
    """
    try:
        done = subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, timeout=limit, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"babel: {' '.join(arguments)!r}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or "no message"
        raise EngineUnavailable(f"babel: {' '.join(arguments)!r}: exit {done.returncode}: {said}")
    return done.stdout


def ip_batch(lines: Iterable[str], namespace: str | None = None) -> None:
    """Give `ip` many commands at once."""
    where = ("-n", namespace) if namespace else ()
    command("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in `namespace` until the block is left. No `await` may stand in the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home, (NETNS / namespace).open("rb") as away:
        if libc.setns(away.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise EngineUnavailable(
                f"babel: cannot enter {namespace!r}: {os.strerror(number)}; needs CAP_SYS_ADMIN"
            )
        try:
            yield
        finally:
            if libc.setns(home.fileno(), _CLONE_NEWNET) != 0:
                # Going on would put every later socket of this process into the lab.
                raise SystemError(f"cannot leave {namespace!r}: {os.strerror(ctypes.get_errno())}")


def link_socket(namespace: str, interface: str, address: str, port: int) -> socket.socket:
    """A datagram socket in `namespace` that speaks over `interface` only.

    It keeps its namespace; the process stays where it is.
    """
    return _socket(namespace, address, port, interface)


def node_socket(namespace: str, address: str, port: int) -> socket.socket:
    """A datagram socket in `namespace` that speaks over whatever route is in force there."""
    return _socket(namespace, address, port, "")


def _socket(namespace: str, address: str, port: int, interface: str) -> socket.socket:
    with inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if interface:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            made.bind((address, port))
        except OSError as error:
            made.close()
            on = f"on {interface!r} of {namespace!r}" if interface else f"in {namespace!r}"
            raise EngineUnavailable(f"babel: no socket {on} at {address}:{port}: {error}") from error
    return made
