"""Where OTLP/HTTP requests go: an address, a Unix socket or a proxy, from arguments and environment.

`http://host:port/path`, `https://...`, or `unix:///run/collector.sock`, a socket on this machine, spelt
as for gRPC; requests over it go to `/v1/traces`. Proxies come from `HTTP_PROXY`, `HTTPS_PROXY` and
`NO_PROXY`, as elsewhere; `~/.netrc` is not read, because nobody would expect a collector to be given
what lies there. Knows nothing of connections.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from mapek_runtime.errors import ConfigError
from mapek_runtime.export.environment import read_text

from .options import without_secrets

__all__ = ["HttpAddress", "read_address"]

logger = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "http://localhost:4318/v1/traces"
PATH = "/v1/traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAddress:
    """Where to send, and on which way."""

    url: URL = field(repr=False)
    """What the request names, without user and password; its query may hold a secret."""
    where: str
    """The address for people, without secrets."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    socket: str | None = None
    """The path of a Unix socket."""
    proxy: URL | None = field(default=None, repr=False)
    """The proxy on the way; its address may hold a user and a password."""


def read_address(given: str | None) -> HttpAddress:
    """The address that the argument gives, else `..._TRACES_ENDPOINT`, else `..._ENDPOINT` + `/v1/traces`.

    The address for traces is used as it is; an empty path is `/`.
    """
    text = given or read_text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    general = read_text("OTEL_EXPORTER_OTLP_ENDPOINT") if text is None else None
    text = text or general or DEFAULT_ENDPOINT
    try:
        url = URL(text)
        if url.scheme == "unix" and not url.raw_host and url.path.startswith("/") and url.path != "/":
            return HttpAddress(
                url=URL.build(scheme="http", host="localhost", path=PATH),
                where=f"unix://{url.path}",
                socket=url.path,
            )
        if url.scheme not in {"http", "https"} or not url.host or url.port is None:
            raise ValueError("neither of the forms")
    except ValueError:
        # The text itself may hold a password.
        raise ConfigError(
            "the OTLP endpoint cannot be read; it must look like http://host:4318/v1/traces, "
            "https://host/path or unix:///run/collector.sock"
        ) from None
    path = url.raw_path if general is None else url.raw_path.rstrip("/") + PATH
    plain = url.with_user(None).with_path(path, encoded=True).with_query(url.query_string or None)
    return HttpAddress(
        url=plain,
        where=without_secrets(str(plain)),
        user=url.user,
        password=url.password,
        proxy=_proxy(plain),
    )


def _proxy(url: URL) -> URL | None:
    text = getproxies().get(url.scheme)
    if not text or not url.host or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        if proxy.scheme in {"http", "https"} and proxy.host:
            return proxy
    except ValueError:
        pass
    # The text itself may hold a password.
    logger.warning("%s_PROXY must look like http://host:port; ignored", url.scheme.upper())
    return None
