"""One babeld in one namespace: started, asked whether it is ready, stopped, killed.

The daemon has a session of its own and is known by its pid file, so that `mapek lab up` can leave it
running and a later `down` can end it. A pid is trusted only while the command line of that process
names our pid file.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from mapek_domains.mesh.babel.control import ControlConnection
from mapek_runtime.errors import ConfigError, EngineUnavailable

__all__ = ["BabelSettings", "Daemon"]

_SOCKET_PATH_MAX = 107


@dataclass(frozen=True, slots=True, kw_only=True)
class BabelSettings:
    """How babeld is tuned; intervals and half-life in seconds.

    `hello` and `update` are Babel's own; `link_detect` watches the carrier; `smoothing` is the
    half-life of metric smoothing (babeld's own default is 4; 0 takes a better route back at once,
    which is what a mesh with a loop wants, because the loop has its own hysteresis).
    """

    hello: float = 1.0
    update: float = 4.0
    link_detect: bool = False
    smoothing: int = 0

    def __post_init__(self) -> None:
        for name, value in (("hello", self.hello), ("update", self.update)):
            if not 0.02 <= value <= 600:
                raise ConfigError(f"lab: {name} is {value!r} s; it must lie in 0.02..600")
        if not 0 <= self.smoothing <= 600:
            raise ConfigError(f"lab: smoothing is {self.smoothing!r} s; it must lie in 0..600")

    @property
    def notices_after(self) -> float:
        """Seconds of silence after which babeld gives a link up, about: medians were 4.2 hellos."""
        return 4.0 * self.hello

    @property
    def interface_parameters(self) -> str:
        """What an `interface` statement says of these settings."""
        return f"hello-interval {self.hello:g} update-interval {self.update:g}"


class Daemon:
    """The babeld of one namespace."""

    def __init__(
        self, namespace: str, folder: Path, node: str, interfaces: tuple[str, ...], settings: BabelSettings
    ) -> None:
        self.namespace = namespace
        self.node = node
        self.interfaces = interfaces
        self.settings = settings
        self.socket = folder / f"{node}.sock"
        self._pid_file = folder / f"{node}.pid"
        self._state = folder / f"{node}.state"
        self._log = folder / f"{node}.log"
        self._child: int | None = None
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MAX:
            raise ConfigError(
                f"lab: the path {str(self.socket)!r} of a control socket is longer than "
                f"{_SOCKET_PATH_MAX} bytes; choose a shorter state folder (--state)"
            )

    def command_line(self) -> tuple[str, ...]:
        """What is run."""
        s = self.settings
        statements = (
            f"link-detect {'true' if s.link_detect else 'false'}",
            # A restarted daemon with its old identity and a new sequence number would be held
            # infeasible by the others for up to two minutes.
            "random-id true",
            f"smoothing-half-life {s.smoothing}",
            f"default {s.interface_parameters}",
            "redistribute local ip 10.255.0.0/16 allow",
            "redistribute local ip fd00::/64 allow",
            "redistribute local deny",
        )
        files = ("-I", str(self._pid_file), "-S", str(self._state), "-L", str(self._log))
        given = tuple(word for statement in statements for word in ("-C", statement))
        # An empty configuration: the machine's own /etc/babeld.conf is not the lab's.
        return ("babeld", *files, "-G", str(self.socket), "-c", "/dev/null", *given, *self.interfaces)

    async def start(self, limit: float = 5.0) -> None:
        """Start it and wait until its control socket answers; raises `EngineUnavailable`."""
        if self.pid() is not None:
            return
        for stale in (self._pid_file, self.socket):
            stale.unlink(missing_ok=True)
        self._reap()
        self._spawn()
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        connection = await ControlConnection.open(self.socket, limit=limit)
                    except EngineUnavailable:
                        if self._reap():
                            raise EngineUnavailable(
                                f"babel: babeld of {self.node!r} ended at once; "
                                f"it wrote: {self._last_words()}"
                            ) from None
                        await asyncio.sleep(0.01)
                    else:
                        await connection.aclose()
                        return
        except TimeoutError:
            raise EngineUnavailable(
                f"babel: babeld of {self.node!r} did not answer within {limit:g} s; "
                f"it wrote: {self._last_words()}"
            ) from None

    def pid(self) -> int | None:
        """Its process, or None when it does not run."""
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # Its own command line names our pid file: no process that took over its number does.
        ours = arguments[0].endswith(b"babeld") and os.fsencode(self._pid_file) in arguments
        return pid if ours else None

    async def stop(self, *, kill: bool = False, limit: float = 2.0) -> bool:
        """End it: SIGTERM, then SIGKILL after `limit` seconds; `kill` starts with the latter.

        Returns whether it ran.
        """
        # A child that was started a moment ago has not written its file yet.
        pid = self.pid() or self._child
        if pid is None:
            return False
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if pid not in (self.pid(), self._child):
                # It ended, and its number was given away, between the two looks.
                return False
            for number in (signal.SIGKILL,) if kill else (signal.SIGTERM, signal.SIGKILL):
                try:
                    signal.pidfd_send_signal(handle, number)
                except ProcessLookupError:
                    return True
                if await asyncio.to_thread(_ended, handle, limit):
                    return True
        finally:
            os.close(handle)
            self._reap()
        return True

    def _spawn(self) -> None:
        program = shutil.which("ip") or "ip"
        null, write = os.open(os.devnull, os.O_RDWR), os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            # Not subprocess: that wants to see the end of its children, and this one may outlive us.
            self._child = os.posix_spawn(
                program,
                ("ip", "netns", "exec", self.namespace, *self.command_line()),
                os.environ,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_OPEN, 2, str(self._log), write, 0o600),
                ),
                setsid=True,
            )
        except OSError as error:
            raise EngineUnavailable(f"babel: {program!r} cannot be started: {error}") from error
        finally:
            os.close(null)

    def _reap(self) -> bool:
        """Take note of the end of our own child; True when it has ended."""
        if self._child is None:
            return False
        try:
            ended, _ = os.waitpid(self._child, os.WNOHANG)
        except ChildProcessError:
            ended = self._child
        if ended:
            self._child = None
        return bool(ended)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return "nothing"
        return " | ".join(lines[-3:]) or "nothing"


def _ended(handle: int, limit: float) -> bool:
    readable, _, _ = select.select([handle], [], [], limit)
    return bool(readable)
