"""What every OTLP exporter reads the same way, from its arguments and from `OTEL_EXPORTER_OTLP_*`.

An argument comes before `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, and that before
`OTEL_EXPORTER_OTLP_<NAME>`. A wrong argument is a ConfigError; a wrong variable warns and counts as
unset, except for TLS files: to send in another way than was asked for is no way out there. Nothing here
knows HTTP or gRPC, and no message holds a header's value or what an address keeps secret.
"""

from __future__ import annotations

import logging
import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from mapek_runtime.errors import ConfigError, TransportError, TransportRejected
from mapek_runtime.export.environment import is_header, read_headers, read_number, read_text
from mapek_runtime.export.notice import Notices

__all__ = [
    "MAX_REQUEST_BYTES",
    "check_size",
    "MAX_RESPONSE_BYTES",
    "Compression",
    "TlsFiles",
    "raise_partial_success",
    "read_compression",
    "read_extra_headers",
    "read_option",
    "read_timeout",
    "read_tls_files",
    "shorten",
    "user_agent",
    "without_secrets",
]

logger = logging.getLogger(__name__)
_notices = Notices(logger)

MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""A larger request is not sent (OTLP specification, limits of exporters)."""
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""A larger answer is a failure for good."""

DEFAULT_TIMEOUT_MS = 10_000
SHORT_TIMEOUT_MS = 100
MESSAGE_LIMIT = 200

Compression = Literal["gzip", "none"]

_warned: set[tuple[str, float]] = set()
"""The variables whose short timeout was told, with their values: once in a process is enough."""


def read_option(name: str) -> str | None:
    """The variable of that name for traces, else the one for all signals; None when neither is set."""
    return read_text(*_variables(name))


def read_timeout(given: float | None) -> float:
    """Seconds for one export with all its retries; 0 is no limit.

    The argument is in seconds, the variable in milliseconds, as specified.
    """
    if given is not None:
        if not 0 <= given < math.inf:
            raise ConfigError(f"timeout is {given!r}; it must be a number of seconds, or 0 for no limit")
        return given
    for variable in _variables("TIMEOUT"):
        milliseconds = read_number(variable, default=-1, least=0)
        if milliseconds >= 0:
            _warn_if_short(variable, milliseconds)
            return milliseconds / 1000
    return DEFAULT_TIMEOUT_MS / 1000


def read_compression(given: Any) -> Compression:  # a word, or a member of one of the SDK's enums
    """How requests are compressed: "gzip" or "none"."""
    word = getattr(given, "value", given)
    if word is not None:
        if word not in {"gzip", "none"}:
            raise ConfigError(f"compression is {word!r}; it must be 'gzip' or 'none'")
        return "gzip" if word == "gzip" else "none"
    for variable in _variables("COMPRESSION"):
        found = read_text(variable)
        if found is None:
            continue
        if found.lower() in {"gzip", "none"}:
            return "gzip" if found.lower() == "gzip" else "none"
        logger.warning("%s is %r; it must be 'gzip' or 'none'; ignored", variable, found)
    return "none"


def read_extra_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """The headers that the user adds to each request, with names in lower case."""
    if given is None:
        return read_headers(*_variables("HEADERS"))
    for key, value in given.items():
        if not is_header(key, value):
            raise ConfigError(f"the header {key!r} cannot be sent; name and value must be text on one line")
    return {key.lower(): value for key, value in given.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The PEM files of a TLS connection; None where there is none.

    `authority` replaces the system's authorities. `certificate` (with its chain) says who we are;
    its key is in `key`, or in the same file.
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __bool__(self) -> bool:
        return self.authority is not None or self.certificate is not None

    def context(self) -> ssl.SSLContext:
        """A client's TLS context that uses these files, or the system's authorities without any."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the authorities of the OTLP exporter, {self.authority!r}, cannot be used: {error}; "
                "it must be a file of certificates in PEM"
            ) from None
        if self.certificate is not None:
            try:
                # Without a password of our own, OpenSSL would ask for it at the terminal and wait.
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"the client certificate {self.certificate!r} with the key "
                    f"{self.key or self.certificate!r} cannot be used: {error}; both must be PEM and belong "
                    "together, and the key must not be encrypted"
                ) from None
        return context


def read_tls_files(
    authority: str | Path | None, certificate: str | Path | None, key: str | Path | None
) -> TlsFiles:
    """The files that the arguments name, else `..._CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`."""
    files = TlsFiles(
        authority=_path(authority, "CERTIFICATE"),
        certificate=_path(certificate, "CLIENT_CERTIFICATE"),
        key=_path(key, "CLIENT_KEY"),
    )
    if files.key is not None and files.certificate is None:
        raise ConfigError(
            f"the OTLP exporter has a client key, {files.key!r}, and no client certificate; give both "
            "(client_certificate_file or OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE), or none"
        )
    for path in (files.authority, files.certificate, files.key):
        if path is not None and not Path(path).is_file():
            raise ConfigError(
                f"the TLS file {path!r} of the OTLP exporter is not there; it must be a PEM file"
            )
    return files


def user_agent() -> str:
    """What we call ourselves: this product, then the name that the specification asks for."""
    try:
        ours = version("mapek-runtime")
    except PackageNotFoundError:  # a checkout that is not installed
        ours = "0"
    return f"mapek-runtime/{ours} OTel-OTLP-Exporter-Python/{version('opentelemetry-sdk')}"


def check_size(where: str, payload: bytes) -> None:
    """Raise TransportError for a request that is larger than the specification lets anybody send."""
    if len(payload) > MAX_REQUEST_BYTES:
        raise TransportError(
            f"{where}: a request of {len(payload)} bytes is over the limit of {MAX_REQUEST_BYTES}",
            error_type="request_too_large",
        )


def without_secrets(address: str) -> str:
    """The address without user, password, query and fragment."""
    plain = re.split(r"[?#]", address, maxsplit=1)[0]
    scheme, slashes, rest = plain.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def raise_partial_success(rejected: int, message: str) -> None:
    """Raise TransportRejected when an answer says that spans were refused; a mere message is logged."""
    if rejected > 0:
        raise TransportRejected(
            f"the collector refused {rejected} spans" + (f": {shorten(message)}" if message else ""),
            rejected_spans=rejected,
        )
    if message:
        _notices.warn(
            "partial success",
            "the collector took the spans and says: %s",
            shorten(message),
            level=logging.INFO,
        )


def shorten(message: str) -> str:
    """The beginning of what a collector said, quoted, so that it stays on one line."""
    return repr(message[:MESSAGE_LIMIT]) if message else ""


def _variables(name: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"


def _warn_if_short(variable: str, milliseconds: float) -> None:
    if 0 < milliseconds < SHORT_TIMEOUT_MS and (variable, milliseconds) not in _warned:
        _warned.add((variable, milliseconds))
        logger.warning(
            "%s is %g: the variable is in milliseconds, as specified, and not in seconds",
            variable,
            milliseconds,
        )


def _path(given: str | Path | None, name: str) -> str | None:
    return str(given) if given is not None else read_option(name)


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")
