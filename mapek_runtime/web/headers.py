"""Headers that every answer has: what a browser may do with it, and how long it may keep it."""

from __future__ import annotations

from collections.abc import MutableMapping

from aiohttp import web

from .scopes import is_file, pattern_of

__all__ = ["API_POLICY", "PAGE_POLICY", "add_headers", "protect"]

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files and its own API; no script or style that stands in the text."""
API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""An answer that is no page, shown as one all the same, may do nothing."""
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not which versions of what are at work here.
    "Server": "mapek",
}


def protect(headers: MutableMapping[str, str], *, file: bool = False) -> None:
    """Add what every answer has; `file`: it is the page, or one of the page's files."""
    headers.update(_ALWAYS)
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if file else API_POLICY)
    # Files are asked for again by their ETag: their names stay the same when their contents change.
    headers.setdefault("Cache-Control", "no-cache" if file else "no-store")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The same, as aiohttp's signal `on_response_prepare`."""
    protect(response.headers, file=is_file(pattern_of(request)))
