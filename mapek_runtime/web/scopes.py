"""What a request is for: each route belongs to one scope, and a scope says what must be shown for it.

Decided by method and by the route's own pattern (`/page/trace/{id}`), never by the path as it was sent:
that can be written in many ways.
"""

from __future__ import annotations

from enum import Enum

from aiohttp import web

__all__ = ["PAGE", "STREAMS", "TRACES", "Scope", "is_file", "pattern_of", "scope_of"]

PAGE = "/"
TRACES = "/v1/traces"
STREAMS = frozenset({"/page/live", "/page/trace/{id}/otlp"})
"""Answers without an end, or of any length; whoever serves them bounds how many there are."""
_FILES = ("/static", "/favicon.ico")
_OPEN = frozenset({"/livez", "/readyz", "/health"})
_READING = frozenset({"GET", "HEAD"})


class Scope(Enum):
    """What a request is for."""

    OPEN = "open"
    """Whether this is alive, and the page's own files, which are the same everywhere. Needs no token."""
    READ = "read"
    """What was stored and what goes on."""
    WRITE = "write"
    """Spans of others."""
    CONTROL = "control"
    """What changes the system that is watched."""


def pattern_of(request: web.Request) -> str:
    """The pattern of the route that serves it; empty where none does."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def is_file(pattern: str) -> bool:
    """Whether it is the page, or one of the page's files."""
    return pattern == PAGE or pattern in _FILES or pattern.startswith("/static/")


def scope_of(method: str, pattern: str) -> Scope:
    """The scope of a route; what is not known here reads, so that it needs the token."""
    if method in _READING and (pattern in _OPEN or is_file(pattern)):
        return Scope.OPEN
    if pattern == TRACES:
        return Scope.WRITE
    if pattern.startswith("/page/") and method not in _READING:
        return Scope.CONTROL
    return Scope.READ
