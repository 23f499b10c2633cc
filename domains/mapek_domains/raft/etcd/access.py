"""Who asks the servers, and over which kind of connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from mapek_runtime.errors import ConfigError

from .settings import EtcdEngine

__all__ = ["Access", "read_access"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """What all servers are asked with: who asks, and over which kind of connection."""

    user: str = ""
    password: str = ""
    credentials: Any = None
    """gRPC's, for TLS; None for a plain connection."""


def read_access(settings: EtcdEngine) -> Access:
    """Read the TLS files; raises `ConfigError` for one that cannot be read. Blocks."""
    credentials = None
    if settings.tls:
        credentials = grpc.ssl_channel_credentials(
            _read("ca", settings.ca), _read("key", settings.key), _read("certificate", settings.certificate)
        )
    return Access(user=settings.user, password=settings.password, credentials=credentials)


def _read(name: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        pem = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"[raft.etcd] {name} is {path!r}: {error.strerror or error}") from None
    if b"-----BEGIN " not in pem:
        raise ConfigError(f"[raft.etcd] {name} is {path!r}, which is no PEM file")
    return pem
