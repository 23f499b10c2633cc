"""What a run serves over HTTP: from settings to a server with its parts.

Everything of the web layer is imported here, in a thread and only where something is served: a run that
is not to be asked loads no web server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapek_runtime.config import Configuration, WebSettings, is_loopback, split_listen
from mapek_runtime.errors import ConfigError, StoreError

from .listening import Listening, listening
from .store_metrics import observe_receiver

if TYPE_CHECKING:
    import ssl

    from opentelemetry.metrics import Meter

    from mapek_runtime.store import TraceStore
    from mapek_runtime.web import Access, Part, WebServer
    from mapek_runtime.web.state import Controls, StateSource

__all__ = ["Shown", "check_serving", "serving", "store_obstacle"]

logger = logging.getLogger(__name__)

_LEAST_TOKEN = 16
_UNPACKED = 4
"""Times as many bytes as were sent that a body may have when it is unpacked."""
_STORE_LIMIT = 2.0
"""Seconds within which the store must answer, for `/readyz`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What of a run is served."""

    metrics: Callable[[str], tuple[bytes, str]]
    health: Callable[[], Mapping[str, Any]]
    obstacles: Callable[[], Awaitable[Mapping[str, str]]]
    store: TraceStore | None
    meter: Meter
    flush: Callable[[], Awaitable[object]]
    """Stores the spans that have ended."""
    source: StateSource
    controls: Controls


@asynccontextmanager
async def serving(where: Listening, settings: WebSettings, shown: Shown) -> AsyncIterator[WebServer]:
    """Serve inside the block. Raises `ConfigError` for what is not safe, or cannot be had."""
    server = await asyncio.to_thread(_server, where, settings, shown)
    async with server:
        yield server


def check_serving(configuration: Configuration, environ: Mapping[str, str]) -> None:
    """Raise the `ConfigError` that a run would, but for an address that is taken. Reads files."""
    where = listening(configuration.settings, environ)
    if where is not None:
        _protection(where, configuration.settings.web)


async def store_obstacle(store: TraceStore) -> str | None:
    """Why the store cannot be asked; None when it can."""
    try:
        async with asyncio.timeout(_STORE_LIMIT):
            await store.services()
    except TimeoutError:
        return f"{store.path} did not answer within {_STORE_LIMIT:g} s"
    except StoreError as error:
        return str(error)
    return None


def _server(where: Listening, settings: WebSettings, shown: Shown) -> WebServer:
    from mapek_runtime.web import Limits, WebServer

    access, tls = _protection(where, settings)
    if access.token and tls is None and not is_loopback(split_listen(where.address)[0]):
        logger.warning(
            "%s is %r and speaks plain HTTP: the token travels in the clear; set web.certificate and "
            "web.key, or have a proxy in front that speaks TLS",
            where.named,
            where.address,
        )
    return WebServer(
        where.address,
        metrics=shown.metrics,
        health=shown.health,
        obstacles=shown.obstacles,
        parts=_parts(settings, shown),
        access=access,
        limits=Limits(connections=settings.max_connections, body=settings.max_body),
        tls=tls,
        may_move=where.may_move,
        named=where.named,
    )


def _parts(settings: WebSettings, shown: Shown) -> Sequence[Part]:
    """The routes: of the page, and where there is a store of whoever asks it and sends to it."""
    from mapek_runtime.web.openapi import add_openapi
    from mapek_runtime.web.page import add_page

    parts: list[Part] = [
        partial(add_page, source=shown.source, controls=shown.controls, store=shown.store, flush=shown.flush)
    ]
    store = shown.store
    if store is not None:
        from mapek_runtime.web.jaeger_v1 import add_jaeger_v1
        from mapek_runtime.web.jaeger_v3 import add_jaeger_v3
        from mapek_runtime.web.otlp import Receiver
        from mapek_runtime.web.tempo import add_tempo

        parts += [partial(add, store=store) for add in (add_jaeger_v1, add_jaeger_v3, add_tempo)]
        most = settings.max_body
        receiver = Receiver(store, max_packed=most, max_bytes=_UNPACKED * most)
        observe_receiver(shown.meter, receiver.statistics)
        parts.append(receiver.add_to)
    return (*parts, add_openapi)


def _protection(where: Listening, settings: WebSettings) -> tuple[Access, ssl.SSLContext | None]:
    from mapek_runtime.web import Access, make_tls, require_protection

    token = _read_token(settings.token_file) if settings.token_file else settings.token
    require_protection(
        where.address, token=token, client_certificates=bool(settings.client_ca), named=where.named
    )
    tls = None
    if settings.certificate:
        tls = make_tls(settings.certificate, settings.key, settings.client_ca)
    access = Access.at(where.address, hosts=settings.hosts, token=token, control=settings.control)
    return access, tls


def _read_token(path: str) -> str:
    try:
        token = Path(path).expanduser().read_text("ascii").strip()
    except OSError as error:
        raise ConfigError(
            f"web.token_file {path!r} cannot be read: {error.strerror or error}; it must be a file with the "
            "token"
        ) from None
    except UnicodeDecodeError:
        token = ""
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        # What is in it is not told: it may be half a secret.
        raise ConfigError(
            f"web.token_file {path!r} holds no token; it must be at least {_LEAST_TOKEN} visible ASCII "
            "characters, without a space"
        )
    return token
