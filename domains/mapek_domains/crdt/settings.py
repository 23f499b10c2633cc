"""The section of the configuration for shared knowledge."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from mapek_runtime.errors import ConfigError

from .document import Limits

__all__ = ["CrdtSettings", "check_nodes", "is_loopback", "limits_of", "split_address"]

_LISTEN = r"^$|^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):[0-9]{1,5}$"
_PEER = r"^wss?://[^/\s?#]+\S*$"


class CrdtSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knowledge that the nodes share without a master: incidents, outcomes, learned thresholds and goals."""

    interval: Annotated[float, msgspec.Meta(ge=0.05, le=3600.0)] = 2.0
    """Seconds after which a node compares what it knows with another one, drawn anew each time."""
    incidents: Annotated[int, msgspec.Meta(ge=64, le=100_000)] = 1000
    """Incidents that are kept, of all nodes together; the oldest are deleted, some 64 at a time."""
    facts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """Facts that are kept, of all nodes together."""
    update_bytes: Annotated[int, msgspec.Meta(ge=65_536, le=1 << 28)] = 2 << 20
    """Bytes that one update may have; a larger one is refused."""
    document_bytes: Annotated[int, msgspec.Meta(ge=262_144, le=1 << 30)] = 8 << 20
    """Bytes that all of it may have; an update that would make it larger is refused."""
    listen: Annotated[
        str,
        msgspec.Meta(pattern=_LISTEN, extra={"words": "HOST:PORT, such as 127.0.0.1:8390 or [::1]:8390"}),
    ] = ""
    """The address to serve Yjs' WebSocket protocol on, as HOST:PORT; unset: it is not served. The path is the
    name of a node, or `knowledge` for the first one."""
    peers: tuple[
        Annotated[
            str,
            msgspec.Meta(
                pattern=_PEER, extra={"address": True, "words": "an address such as ws://10.0.0.2:8390"}
            ),
        ],
        ...,
    ] = ()
    """Servers of Yjs' WebSocket protocol to share with as well; without a path it is `knowledge`."""
    token: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^$|^[!-~]{16,}$",
            extra={"secret": True, "words": "at least 16 visible ASCII characters, without a space"},
        ),
    ] = ""
    """What is sent to `peers`, and what a client must send, as `Authorization: Bearer TOKEN` or, from a
    browser, as `?token=TOKEN`. Unset: nothing, which is only possible on loopback."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    """WebSocket clients at once; a further one is answered 503."""

    def __post_init__(self) -> None:
        if self.listen and int(self.listen.rpartition(":")[2]) > 65_535:
            raise ValueError(f"listen is {self.listen!r}; its port must be from 0 to 65535")
        if self.listen and not self.token and not is_loopback(split_address(self.listen)[0]):
            raise ValueError(
                f"listen is {self.listen!r}, which others can reach, and token is unset; set token, or "
                "listen on 127.0.0.1"
            )


def limits_of(settings: CrdtSettings) -> Limits:
    """How large things may become under these settings."""
    return Limits(
        incidents=settings.incidents,
        facts=settings.facts,
        update=settings.update_bytes,
        document=settings.document_bytes,
    )


def check_nodes(nodes: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a node whose name the others would not take."""
    for node in nodes:
        if not 0 < len(node) <= 64:
            raise ConfigError(
                f"[crdt] the node {node!r} has a name of {len(node)} characters; 1 to 64 can be"
            )


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of an address to listen on, the host without the brackets of IPv6."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; no name is looked up."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
