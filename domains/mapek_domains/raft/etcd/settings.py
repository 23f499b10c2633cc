"""The etcd engine's part of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mapek_runtime.errors import ConfigError

__all__ = ["EtcdEngine", "check_etcd"]

_Endpoint = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):[0-9]{1,5}$",
        extra={"words": "HOST:PORT, such as 127.0.0.1:2379"},
    ),
]
_Prefix = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(/[A-Za-z0-9._-]+)+$",
        max_length=200,
        extra={"words": "a path such as /mapek: a slash, then letters, digits, '.', '_' or '-'"},
    ),
]
_Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=60.0)]
_Target = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class EtcdEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The etcd cluster that keeps the log, where the engine is etcd (3.4 or later)."""

    endpoints: Annotated[tuple[_Endpoint, ...], msgspec.Meta(min_length=1, max_length=16)] = (
        "127.0.0.1:2379",
    )
    """HOST:PORT of each etcd server. One is asked at a time, and the next when it does not answer."""
    prefix: _Prefix = "/mapek"
    """What all keys begin with, so that several fleets can share a cluster."""
    lease: Annotated[int, msgspec.Meta(ge=1, le=60)] = 2
    """Seconds of silence after which a node loses the leadership and what it manages. etcd grants no less
    than one and a half of its election timeouts, rounded up: 2 where that is a second."""
    answer: _Seconds = 0.5
    """Seconds that one server has for an answer, before the next one is asked."""
    dial: _Seconds = 5.0
    """Seconds that the cluster has for its first answer, at the start."""
    user: str = ""
    """The user to authenticate as; unset: none."""
    password: Annotated[str, msgspec.Meta(extra={"secret": True})] = ""
    """The user's password; without tls it crosses the network in clear text."""
    tls: bool = False
    """Whether to speak TLS with the servers."""
    ca: str = ""
    """A PEM file with the authorities of the servers' certificates. Unset: those that gRPC brings along."""
    certificate: str = ""
    """A PEM file with this client's certificate, where the servers ask for one."""
    key: str = ""
    """A PEM file with the certificate's key, not encrypted."""
    fleet: Annotated[tuple[_Target, ...], msgspec.Meta(max_length=10_000)] = ()
    """What many runtimes manage together, each target by one of them: names of managed nodes, the same list
    at each runtime. Unset: nothing is shared out."""


def check_etcd(settings: EtcdEngine) -> None:
    """Raises `ConfigError` for settings that contradict one another."""
    for name in ("endpoints", "fleet"):
        listed: tuple[str, ...] = getattr(settings, name)
        if len(set(listed)) < len(listed):
            raise ConfigError(
                f"[raft.etcd] {name} is {list(listed)!r}, which names one twice; name each once"
            )
    for endpoint in settings.endpoints:
        if int(endpoint.rpartition(":")[2]) not in range(1, 65_536):
            raise ConfigError(f"[raft.etcd] endpoints: {endpoint!r} has no port of 1 to 65535")
    if bool(settings.user) != bool(settings.password):
        given, missing = ("user", "password") if settings.user else ("password", "user")
        raise ConfigError(f"[raft.etcd] {given} is set and {missing} is not; etcd wants both or neither")
    if bool(settings.certificate) != bool(settings.key):
        given, missing = ("certificate", "key") if settings.certificate else ("key", "certificate")
        raise ConfigError(f"[raft.etcd] {given} is set and {missing} is not; TLS wants both or neither")
    for name in ("ca", "certificate"):
        if getattr(settings, name) and not settings.tls:
            raise ConfigError(
                f"[raft.etcd] {name} is set and tls is false; set tls = true, or leave {name} out"
            )
