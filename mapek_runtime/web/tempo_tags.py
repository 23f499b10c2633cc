"""Tempo's tags and their values, which Grafana offers while a query is being written."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from aiohttp.web_app import Application

from mapek_runtime.errors import QueryError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import Value
from mapek_runtime.store.query.syntax import All, AllSpans, Condition, Field, Filter, Query, Scope
from mapek_runtime.store.query.traceql import parse_field, parse_traceql

from .answering import Failure, add_routes, json_of, query_of
from .parameters import SECOND, Parameters

__all__ = ["add_tempo_tags", "field_of", "what_is_complete"]

_SCOPES = ("resource", "span", "event", "link", "instrumentation", "intrinsic")
_LIMIT = 1_000
_MOST = 10_000
_KEYWORDS = frozenset({"status", "kind"})
_EVERY = frozenset({"none", ""})
"""What Grafana gives as the scope where it means every one."""


def add_tempo_tags(app: Application, store: TraceStore, failure: Failure) -> None:
    """Add the routes of both versions; what they differ in is the shape of the answer."""
    tags = _Tags(store)
    handlers = {
        "/api/search/tags": tags.names,
        "/api/v2/search/tags": tags.scopes,
        r"/api/search/tag/{tag:[\s\S]*}/values": tags.texts,
        r"/api/v2/search/tag/{tag:[\s\S]*}/values": tags.values,
    }
    add_routes(app, failure, handlers)


class _Tags:
    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def names(self, request: web.Request) -> web.Response:
        found = await self._found(request)
        if not Parameters(request.query).text("scope"):
            found.pop("intrinsic", None)
        return json_of({"tagNames": sorted({tag for tags in found.values() for tag in tags}), "metrics": {}})

    async def scopes(self, request: web.Request) -> web.Response:
        found = await self._found(request)
        scopes = [{"name": scope, "tags": found[scope]} for scope in _SCOPES if found.get(scope)]
        return json_of({"scopes": scopes, "metrics": {}})

    async def texts(self, request: web.Request) -> web.Response:
        found = await self._values(request)
        return json_of({"tagValues": sorted({value.text for value in found}), "metrics": {}})

    async def values(self, request: web.Request) -> web.Response:
        found = await self._values(request)
        written = [
            {"type": "keyword" if value.kind in _KEYWORDS else value.kind, "value": value.text}
            for value in found
        ]
        return json_of({"tagValues": written, "metrics": {}})

    async def _found(self, request: web.Request) -> dict[str, tuple[str, ...]]:
        asked = Parameters(request.query)
        start, end = asked.span(("start",), ("end",), SECOND)
        scope = asked.text("scope")
        if scope not in _SCOPES and scope not in _EVERY:
            raise QueryError(f"invalid scope: {scope[:64]!r}; write one of {', '.join(_SCOPES)}")
        return await self._store.tags(
            scope=scope if scope in _SCOPES else None,
            start=start or None,
            end=end or None,
            limit=asked.limit("limit", default=_LIMIT, most=_MOST),
        )

    async def _values(self, request: web.Request) -> tuple[Value, ...]:
        asked = Parameters(request.query)
        start, end = asked.span(("start",), ("end",), SECOND)
        return await self._store.tag_values(
            field_of(request.match_info["tag"]),
            query=await query_of(asked.text("q"), what_is_complete),
            start=start or None,
            end=end or None,
            limit=asked.limit("limit", default=_LIMIT, most=_MOST),
        )


def field_of(tag: str) -> Field:
    """A tag as a query writes it, such as `resource.service.name` or `status`; else any attribute so called.

    The second is how the first version of this API writes tags: without a scope.
    """
    try:
        return parse_field(tag)
    except QueryError:
        pass
    if not tag:
        raise QueryError("the tag is empty; write one such as resource.service.name")
    return Field(Scope.EITHER, tag.removeprefix("."))


def what_is_complete(text: str) -> Query:
    """The query, or of one that is still being written (`{ span.a = 1 && span.b = }`) what is complete.

    Only of comparisons that must all hold can some be left out; anything else chooses every span.
    """
    if not text.strip():
        return Query(AllSpans())
    try:
        return parse_traceql(text)
    except QueryError:
        pass
    conditions = []
    for piece in _comparisons(text):
        try:
            found = _condition(f"{{ {piece} }}")
        except QueryError:
            continue
        if found is not None:
            conditions.append(found)
    if not conditions:
        return Query(AllSpans())
    return Query(Filter(conditions[0] if len(conditions) == 1 else All(tuple(conditions))))


def _condition(text: str) -> Condition | None:
    query = parse_traceql(text)
    if isinstance(query.spansets, Filter) and not query.stages:
        return query.spansets.condition
    return None


def _comparisons(text: str) -> Iterator[str]:
    """What stands between `&&` in the first braces; nothing where there is a `||`, `!` or parenthesis."""
    opened = text.strip().removeprefix("{")
    pieces, quoted, at = [""], "", 0
    while at < len(opened):
        sign = opened[at]
        if quoted:
            if sign == "\\" and quoted == '"':
                pieces[-1] += opened[at : at + 2]
                at += 2
                continue
            quoted = "" if sign == quoted else quoted
        elif sign in '"`':
            quoted = sign
        elif sign == "}":
            break
        elif opened.startswith("&&", at):
            pieces.append("")
            at += 2
            continue
        elif sign in "(|" or (sign == "!" and opened[at + 1 : at + 2] not in ("=", "~")):
            return
        pieces[-1] += sign
        at += 1
    yield from pieces
