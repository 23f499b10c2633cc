"""Real etcd servers for a test: on free ports of loopback, in a temporary folder, ended with the test.

They are known by their handles, and ready when they answer a request for which they need a majority.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mapek_runtime.errors import EngineUnavailable

__all__ = ["EtcdCluster", "EtcdServer", "etcdctl", "free_ports", "put", "require_etcd"]

_LIMIT = 30.0


def require_etcd() -> str:
    """The path of etcd; raises `EngineUnavailable` when it or its client is not installed."""
    program, client = shutil.which("etcd"), shutil.which("etcdctl")
    if program is None or client is None:
        raise EngineUnavailable(
            f"raft: engine 'etcd': the program {'etcdctl' if program else 'etcd'} is not installed; on "
            "Debian, apt-get install etcd-server etcd-client; 'embedded' is the default"
        )
    return program


class EtcdServer:
    """One server; `more` are further arguments of etcd."""

    def __init__(self, folder: Path, name: str, ports: tuple[int, int], more: Sequence[str] = ()) -> None:
        self.name = name
        self.client_port, self.peer_port = ports
        self.folder = folder / name
        self.log = folder / f"{name}.log"
        self.more = tuple(more)
        self._tls: ssl.SSLContext | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """What a client connects to."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer(self) -> str:
        """What the others know it by."""
        return f"{self.name}=http://127.0.0.1:{self.peer_port}"

    def start(self, members: str) -> None:
        """Start it, on the data it has."""
        assert self.process is None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        client = f"{self._scheme}://{self.endpoint}"
        peer = self.peer.partition("=")[2]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    require_etcd(), "--name", self.name, "--data-dir", str(self.folder),
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", members, "--initial-cluster-state", "new", *self.more,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD")},
            )  # fmt: skip

    def use_tls(self, authority: str, certificate: str, key: str) -> None:
        """Ask it over TLS, with this client's certificate, whether it is ready."""
        self._tls = ssl.create_default_context(cafile=authority)
        self._tls.load_cert_chain(certificate, key)

    def kill(self) -> None:
        """End it at once; its data stays."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Let it hang: connections stay, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def healthy(self) -> bool:
        """Whether it answers for a majority."""
        try:
            address = f"{self._scheme}://{self.endpoint}/health"
            with urllib.request.urlopen(address, timeout=1.0, context=self._tls) as answer:
                return bool(json.load(answer)["health"] == "true")
        except (OSError, ValueError, urllib.error.URLError):
            return False

    @property
    def _scheme(self) -> str:
        return "http" if self._tls is None else "https"

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "nothing"


class EtcdCluster:
    """So many servers, ready; with the timings of a network at hand."""

    def __init__(
        self,
        folder: Path,
        size: int = 3,
        *,
        heartbeat_ms: int = 100,
        election_ms: int = 1000,
        more: Sequence[str] = (),
    ) -> None:
        require_etcd()
        timing = ("--heartbeat-interval", str(heartbeat_ms), "--election-timeout", str(election_ms))
        ports = free_ports(2 * size)
        self.servers = tuple(
            EtcdServer(folder, f"e{index}", (ports[2 * index], ports[2 * index + 1]), (*timing, *more))
            for index in range(size)
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What clients connect to."""
        return tuple(server.endpoint for server in self.servers)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                self.start(server)
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End them all."""
        for server in self.servers:
            server.kill()

    def start(self, server: EtcdServer) -> None:
        """Start a server, or start it again."""
        server.start(",".join(each.peer for each in self.servers))

    def wait(self) -> None:
        """Wait until all that were started answer for a majority."""
        deadline = time.monotonic() + _LIMIT
        for server in self.servers:
            while server.process is not None and not server.healthy():
                assert server.process.poll() is None, server.last_words()
                assert time.monotonic() < deadline, server.last_words()
                time.sleep(0.05)

    def restore(self) -> None:
        """Have all of them run again, whatever a test did to them."""
        for server in self.servers:
            if server.process is None:
                self.start(server)
            else:
                server.resume()
        self.wait()

    def leader(self) -> EtcdServer:
        """The server that leads the others, as they say themselves."""
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            for server in self.servers:
                if server.process is not None:
                    status = etcdctl(server, "endpoint", "status")[0]["Status"]
                    if status["leader"] == status["header"]["member_id"]:
                        return server
            time.sleep(0.05)
        raise AssertionError("no server leads")


def etcdctl(server: EtcdServer, *arguments: str, given: str | None = None) -> Any:
    """What etcd's own client prints, decoded from JSON where it is; `given` is what it reads."""
    done = subprocess.run(
        ["etcdctl", "--endpoints", server.endpoint, "--write-out", "json", *arguments],
        capture_output=True, text=True, timeout=20.0, input=given,
        env={**os.environ, "ETCDCTL_API": "3"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    try:
        return json.loads(done.stdout)
    except ValueError:
        return done.stdout


def put(server: EtcdServer, key: str, value: str) -> None:
    """Write a key as somebody else does; again where the servers are between two leaders."""
    deadline = time.monotonic() + _LIMIT
    while True:
        try:
            etcdctl(server, "put", key, given=value)
        except AssertionError:
            assert time.monotonic() < deadline
        else:
            return


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
