"""Who is answered: the checks of host, origin and token that every request passes before its handler.

A browser on the same machine runs programs of strangers. What keeps them out is not the loopback address
but these: the Host header must name this server, or a stranger's name that was made to point here (DNS
rebinding) would be the same origin as the page; and a request that a page of another origin made is
refused, whatever it is for.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDictProxy

from mapek_runtime.config import is_everywhere, is_loopback, split_listen
from mapek_runtime.errors import ConfigError

from .refusing import refused
from .scopes import PAGE, Scope, pattern_of, scope_of

__all__ = ["Access", "Refusal", "checking", "refusal", "require_protection"]

HEADER = "X-Mapek"
"""A header that a form or an image of another page cannot send."""
_BEARER = "bearer"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whom a server answers."""

    names: frozenset[str] = frozenset()
    """What may stand in a Host header besides the names of loopback, in lower case and without a port."""
    any_number: bool = False
    """Whether any address in numbers may: nobody can make one point elsewhere."""
    token: str = field(default="", repr=False)
    """What must be sent as `Authorization: Bearer`; empty: nothing."""
    control: bool = True
    """Whether requests that change the system are answered."""

    @classmethod
    def at(cls, listen: str, *, hosts: Iterable[str] = (), token: str = "", control: bool = True) -> Access:
        """Whom a server on the address `listen` answers, with further names `hosts`."""
        host = split_listen(listen)[0]
        names = frozenset(name.strip("[]").lower().rstrip(".") for name in (host, *hosts))
        return cls(names=names, any_number=is_everywhere(host), token=token, control=control)


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    message: str
    headers: Mapping[str, str] = {}


def require_protection(listen: str, *, token: str, client_certificates: bool, named: str) -> None:
    """Raise `ConfigError` for an address that others can reach where nothing says who they are."""
    if token or client_certificates or is_loopback(split_listen(listen)[0]):
        return
    raise ConfigError(
        f"{named} is {listen!r}, which others can reach, and nothing says who they are; set web.token (or "
        "web.token_file), or web.certificate, web.key and web.client_ca, or listen on 127.0.0.1"
    )


def checking(access: Access) -> Middleware:
    """The middleware that lets only those requests through that `access` allows."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        why = refusal(access, request.method, pattern_of(request), request.headers)
        if why is None:
            return await handler(request)
        return refused(request, why.status, why.message, why.headers)

    return check


def refusal(access: Access, method: str, pattern: str, headers: CIMultiDictProxy[str]) -> Refusal | None:
    """Why a request is not answered, None when it is: the route's `pattern` says what it is for."""
    scope = scope_of(method, pattern)
    return (
        _of_host(access, headers)
        or _of_origin(method, pattern, headers)
        or _of_token(access, scope, headers)
        or _of_control(access, scope, headers)
    )


def _of_host(access: Access, headers: CIMultiDictProxy[str]) -> Refusal | None:
    hosts = headers.getall("Host", [])
    if len(hosts) != 1:
        return Refusal(400, f"the request has {len(hosts)} Host headers; it must have one")
    split = _authority(hosts[0])
    if split is None:
        return Refusal(400, f"the Host header is {hosts[0]!r}; it must be NAME or NAME:PORT")
    name = split[0]
    if name in access.names or is_loopback(name) or (access.any_number and _is_number(name)):
        return None
    return Refusal(
        421,
        f"the Host header is {hosts[0]!r}, which is none of this server's names; if it is one, add it to "
        f"web.hosts: MAPEK_WEB_HOSTS={name}",
    )


def _of_origin(method: str, pattern: str, headers: CIMultiDictProxy[str]) -> Refusal | None:
    """A page of another origin may link to the page here, and nothing else."""
    site = headers.get("Sec-Fetch-Site", "none").lower()
    followed_a_link = (
        pattern == PAGE
        and method == "GET"
        and headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
        and headers.get("Sec-Fetch-Dest", "").lower() == "document"
    )
    if site not in {"same-origin", "none"} and not followed_a_link:
        return Refusal(403, f"a page of another origin asked for this (Sec-Fetch-Site: {site!r})")
    for origin in headers.getall("Origin", []):
        if not _is_same(origin, headers["Host"]):
            return Refusal(
                403,
                f"a page of {origin!r} asked for this, and the Host header is {headers['Host']!r}; they must "
                "be the same (a proxy must pass the Host header on as it is)",
            )
    return None


def _of_token(access: Access, scope: Scope, headers: CIMultiDictProxy[str]) -> Refusal | None:
    if not access.token or scope is Scope.OPEN:
        return None
    sent = headers.getall("Authorization", [])
    kind, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    # What a client sends need not be text; bytes that are none are kept apart by aiohttp.
    given = token.strip().encode("utf-8", "surrogateescape")
    if kind.lower() == _BEARER and hmac.compare_digest(given, access.token.encode()):
        return None
    said = "the token is wrong" if sent else "a token is needed"
    challenge = 'Bearer realm="mapek", error="invalid_token"' if sent else 'Bearer realm="mapek"'
    return Refusal(
        401,
        f"{said}; send web.token as `Authorization: Bearer TOKEN`",
        {"WWW-Authenticate": challenge},
    )


def _of_control(access: Access, scope: Scope, headers: CIMultiDictProxy[str]) -> Refusal | None:
    if scope is not Scope.CONTROL:
        return None
    if not access.control:
        return Refusal(403, "this changes the system, and web.control is false")
    if headers.get(HEADER) != "1":
        return Refusal(403, f"this changes the system; send the header {HEADER}: 1")
    return None


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is that of a page which this server gave out under the name `host`.

    The scheme does not count: a proxy may speak TLS where this server does not.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    default = _PORTS.get(parts.scheme)
    theirs, ours = _authority(parts.netloc), _authority(host)
    if default is None or theirs is None or ours is None or parts.path or parts.query or parts.fragment:
        return False
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)


def _authority(text: str) -> tuple[str, int | None] | None:
    """Name, in lower case, and port of `NAME:PORT`; None for what is something else."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    else:
        name, _, port = text.partition(":")
    name = name.lower().rstrip(".")
    if not name or any(sign in name for sign in "@/\\?# \t[]") or not (port.isascii() or not port):
        return None
    if port and not (port.isdigit() and int(port[:6]) <= 65_535):
        return None
    return name, int(port) if port else None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
