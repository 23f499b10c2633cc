"""Settings of the HTTP server of `mapek run`: where it listens, and whom it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from .address import LISTEN

__all__ = ["WebSettings"]


class WebSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `mapek run` serves over HTTP: the page, the query APIs, `POST /v1/traces`, `/metrics`, `/health`,
    `/livez` and `/readyz`. On an address that others can reach it must be protected: by a token, or by
    client certificates."""

    enabled: bool = True
    """Whether anything is served."""
    listen: Annotated[
        str,
        msgspec.Meta(
            pattern=f"^$|{LISTEN}",
            extra={"words": "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"},
        ),
    ] = ""
    """The address to serve on, as HOST:PORT; port 0 is any that is free. Unset: 127.0.0.1:8380, or any free
    port when that one is taken."""
    token: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^$|^[!-~]{16,}$",
            extra={"secret": True, "words": "at least 16 visible ASCII characters, without a space"},
        ),
    ] = ""
    """What a client must send as `Authorization: Bearer TOKEN`, but for the page's own files, `/livez`,
    `/readyz` and `/health`. Unset: nothing, which is only possible on loopback or with client_ca."""
    token_file: str = ""
    """A file that holds the token in place of `token`."""
    hosts: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^\s/:@\[\]]+$|^\[[0-9A-Fa-f:.]+\]$")], ...] = ()
    """Names in a request's Host header that are answered besides the address itself and loopback's, without
    a port: those under which a proxy or a DNS server makes this known."""
    certificate: str = ""
    """A PEM file with the certificate, and the chain after it, to speak TLS with. Unset: plain HTTP."""
    key: str = ""
    """A PEM file with the certificate's key, not encrypted; unset: it is in the same file."""
    client_ca: str = ""
    """A PEM file with the authorities of which a client must have a certificate. Unset: it needs none."""
    control: bool = True
    """Whether the page may inject and clear faults, and halt and resume the loops."""
    jaeger: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^$|^https?://[^/\s?#]+[^\s?#]*$",
            extra={"address": True, "words": "an address such as http://localhost:16686"},
        ),
    ] = ""
    """The address of a Jaeger UI, in which the page opens a trace; unset: it does not."""
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Connections at once; a further one is answered 503 and closed."""
    max_body: Annotated[int, msgspec.Meta(ge=1024)] = 16_777_216
    """Bytes of a body that is sent to `/v1/traces`, as it comes; unpacked it may have four times as many."""

    def __post_init__(self) -> None:
        if self.listen and int(self.listen.rpartition(":")[2]) > 65_535:
            raise ValueError(f"listen is {self.listen!r}; its port must be from 0 to 65535")
        if self.token and self.token_file:
            raise ValueError("both token and token_file are set; it must be one of them")
        for name in ("key", "client_ca"):
            if getattr(self, name) and not self.certificate:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and certificate is unset; TLS needs it")
