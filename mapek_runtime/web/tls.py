"""TLS for the server: its certificate, and the authorities of which its clients must have one."""

from __future__ import annotations

import ssl
from typing import NoReturn

from mapek_runtime.errors import ConfigError

__all__ = ["make_tls"]


class _Encrypted(Exception):
    """A key asks for a password."""


def make_tls(certificate: str, key: str = "", client_ca: str = "") -> ssl.SSLContext:
    """What a server needs to speak TLS 1.2 and later, from paths of PEM files.

    Without `key` it is in the file of the certificate. With `client_ca` only clients with a certificate of
    such an authority are spoken to. Reads files, so not on a running loop. Raises `ConfigError` for what
    cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key or None, password=_no_password)
    except _Encrypted:
        raise ConfigError(
            f"web.key {key or certificate!r} is encrypted; it must be a key without a password"
        ) from None
    except (OSError, ValueError) as error:
        _refuse(
            f"web.certificate {certificate!r}" + (f" with web.key {key!r}" if key else ""),
            error,
            "they must be PEM files of a certificate and of its key" if key else
            "it must be a PEM file with a certificate and its key, or web.key must name the key",
        )  # fmt: skip
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=client_ca)
        except (OSError, ValueError) as error:
            _refuse(f"web.client_ca {client_ca!r}", error, "it must be a PEM file of certificates")
    return context


def _no_password() -> str:
    # Without this OpenSSL would ask whoever sits at the terminal.
    raise _Encrypted


def _refuse(what: str, error: Exception, right: str) -> NoReturn:
    # OpenSSL's own words name a line of its source; only the reason is for people.
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    raise ConfigError(f"{what} cannot be used: {reason}; {right}") from None
