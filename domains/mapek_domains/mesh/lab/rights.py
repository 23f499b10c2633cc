"""What the lab needs of the machine, tried out once by doing the cheapest real thing.

The ladder: as root; else the same inside a user namespace with a private /run, into which the
process executes itself anew; else `EngineUnavailable`, and the UDP mesh is the default.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence

from mapek_runtime.errors import EngineUnavailable

__all__ = ["PROGRAMS", "enter_user_namespace", "in_user_namespace", "missing_programs", "require"]

PROGRAMS = {"babeld": "babeld", "ip": "iproute2", "nft": "nftables", "ping": "iputils-ping"}
"""Program → the Debian package it comes in."""

# The daemons live in /usr/sbin, which is not on the path of an ordinary user.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_INSIDE = "MAPEK_LAB_USER_NAMESPACE"
_PRIVATE_RUN = 'mount -t tmpfs tmpfs /run && mkdir /run/netns && exec "$@"'
_DEFAULT = "the embedded default is the UDP mesh, which needs none of this: engine = 'udp' in [mesh]"


def missing_programs() -> tuple[str, ...]:
    """The programs that are not installed."""
    _widen_path()
    return tuple(name for name in PROGRAMS if shutil.which(name) is None)


def require() -> None:
    """Make and remove one network namespace; raises `EngineUnavailable` with all that is missing."""
    error = _missing()
    if error is not None:
        raise EngineUnavailable(error)


def in_user_namespace() -> bool:
    """Whether this process was executed anew by `enter_user_namespace`: its /run is private."""
    return _INSIDE in os.environ


def enter_user_namespace(arguments: Sequence[str] | None = None) -> None:
    """Return when the lab can run in this process; else run this program anew where it can.

    `arguments` are those of the interpreter, the running program's by default. Raises
    `EngineUnavailable` when a user namespace does not help either.
    """
    error = _missing()
    if error is None:
        return
    if missing_programs() or in_user_namespace():
        raise EngineUnavailable(error)
    inside = ["unshare", "-Urnm", "sh", "-c", _PRIVATE_RUN, "sh"]
    tried = _try([*inside, "ip", "netns", "add", "mapek-probe"])
    if tried is not None:
        raise EngineUnavailable(f"{error}; a user namespace does not help: {tried}")
    os.environ[_INSIDE] = "1"
    command = sys.orig_argv[1:] if arguments is None else list(arguments)
    sys.stdout.flush()
    os.execvp("unshare", [*inside, sys.executable, *command])


def _missing() -> str | None:
    programs = missing_programs()
    if programs:
        return (
            f"babel: not installed: {', '.join(programs)}; "
            f"apt-get install {' '.join(PROGRAMS[name] for name in programs)}; {_DEFAULT}"
        )
    name = f"mapek-probe-{secrets.token_hex(3)}"
    failed = _try(["ip", "netns", "add", name])
    if failed is None:
        failed = _try(["ip", "netns", "del", name])
    if failed is None:
        return None
    return (
        f"babel: network namespaces cannot be made here ({failed}); needs root (CAP_NET_ADMIN and "
        f"CAP_SYS_ADMIN) or unprivileged user namespaces: unshare -Urnm sh -c "
        f"'mount -t tmpfs tmpfs /run && mkdir /run/netns && exec COMMAND'; {_DEFAULT}"
    )


def _try(command: Sequence[str]) -> str | None:
    """None when it went well, else what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"{command[0]}: {said[-1] if said else 'no message'}, exit {done.returncode}"


def _widen_path() -> None:
    path = os.environ.get("PATH", "").split(os.pathsep)
    extra = [folder for folder in _SBIN if folder not in path]
    if extra:
        os.environ["PATH"] = os.pathsep.join([*path, *extra])
