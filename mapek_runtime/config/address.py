"""Addresses as settings hold them: of a collector to send to, and of this process to listen on.

An address to send to may carry a user, a password and a key in its query. None of these may reach a log
line, an error or a screen.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["ADDRESS", "LISTEN", "is_everywhere", "is_loopback", "split_listen", "without_secrets"]

ADDRESS = r"^(https?://[^/\s?#]+|unix:/*[^/\s])\S*$"
"""What an address looks like: `http://host:port/path`, `https://…`, or a Unix socket, `unix:///path`."""
LISTEN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):[0-9]{1,5}$"
"""What an address to listen on looks like: `127.0.0.1:8080`, `[::1]:8080`, `localhost:0`."""

_HIDDEN = "..."


def without_secrets(address: str) -> str:
    """The address without user, password, query and fragment; of text that is none, as little."""
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "", address
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after:
        # A password that was not escaped may hold any of the three signs, so all of it may be one.
        return f"{scheme}{found}{_HIDDEN}"
    path = re.split(r"[?#]", after, maxsplit=1)[0]
    return f"{scheme}{found}{authority.rpartition('@')[2]}{path}"


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of an address to listen on, the host without the brackets of IPv6."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name that is not `localhost` counts as no.

    No name is looked up: what a resolver says today it may not say when the address is bound.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        # RFC 6761, section 6.3: these are loopback for every resolver.
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_everywhere(host: str) -> bool:
    """Whether `host` stands for every address of this machine, as `0.0.0.0` and `::` do."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
