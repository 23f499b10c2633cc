"""Where OTLP over gRPC goes: endpoints read by the letter of the specification.

`http://` is an insecure connection and `https://` a secure one, whatever else is configured; every other
form is passed to gRPC as it is (`host:port`, `dns:///name:port`, `unix:///path`), and there `insecure`
decides. Knows no gRPC and opens nothing; what an address keeps secret is in no message.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

from mapek_runtime.errors import ConfigError

from .options import read_option

__all__ = ["DEFAULT_ENDPOINT", "Target", "read_target"]

logger = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "http://localhost:4317"
DEFAULT_PORT = 4317
"""The port of OTLP/gRPC. gRPC itself would take 443 for an address without a port."""

EXAMPLES = "http://host:4317, https://host:4317, host:4317 or unix:///path"


@dataclass(frozen=True, slots=True)
class Target:
    """An address for gRPC's own resolver, and whether the connection to it is secured by TLS."""

    address: str
    secure: bool
    shown: str
    """The endpoint as it may stand in a log line: without user, password, path and query."""


def read_target(endpoint: str | None, insecure: bool | None) -> Target:
    """The target that the arguments name, else `..._ENDPOINT` and `..._INSECURE`."""
    text = (endpoint or read_option("ENDPOINT") or DEFAULT_ENDPOINT).strip()
    scheme = text.partition("://")[0].lower()
    if scheme in {"http", "https"}:
        return _from_url(text, secure=scheme == "https")
    address = text.rpartition("@")[2] if "://" not in text else text
    if not address or any(letter.isspace() for letter in address):
        raise _unreadable()
    if address != text:
        _warn_ignored(address)
    return Target(address, secure=not _is_insecure(insecure, address), shown=address)


def _from_url(text: str, *, secure: bool) -> Target:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or any(letter.isspace() for letter in text):
        raise _unreadable()
    name = f"[{host}]" if ":" in host else host
    address = f"{name}:{DEFAULT_PORT if port is None else port}"
    shown = f"{'https' if secure else 'http'}://{address}"
    if "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        _warn_ignored(shown)
    return Target(address, secure=secure, shown=shown)


def _is_insecure(given: bool | None, address: str) -> bool:
    if given is not None:
        return given
    found = read_option("INSECURE")
    if found is not None:
        if found.lower() in {"true", "false"}:
            return found.lower() == "true"
        logger.warning("OTEL_EXPORTER_OTLP_INSECURE is %r; it must be 'true' or 'false'; ignored", found)
    # The specification's default is a secure connection. What passes through a Unix socket never
    # leaves the machine, and nobody who serves OTLP there speaks TLS unless both sides were told to.
    return address.startswith(("unix:", "unix-abstract:"))


def _warn_ignored(shown: str) -> None:
    logger.warning(
        "the OTLP/gRPC endpoint %s was given with a user, a password, a path or a query; gRPC has no place "
        "for them and they are ignored (a token goes into the headers)",
        shown,
    )


def _unreadable() -> ConfigError:
    # The text itself may hold a password.
    return ConfigError(f"the OTLP/gRPC endpoint cannot be read; it must look like {EXAMPLES}")
