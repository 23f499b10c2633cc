"""A query in either syntax."""

from __future__ import annotations

import re

from .lexer import SPACE
from .seed import parse_seed
from .source import Source
from .syntax import AllSpans, Query
from .traceql import parse_traceql

__all__ = ["parse"]

_PARENTHESIS = re.compile(r"\(?+")


def parse(text: str) -> Query:
    """What a query asks: TraceQL when its first character but parentheses is `{`, else the seed's syntax.

    Empty text asks for every span. Raises `QueryError`.
    """
    text = Source(text).text
    place = -1
    following = 0
    while following > place:
        place = following
        for skipped in (SPACE, _PARENTHESIS):
            found = skipped.match(text, following)
            following = found.end() if found else following
    if place == len(text) and "(" not in text:
        return Query(AllSpans())
    return parse_traceql(text) if text.startswith("{", place) else parse_seed(text)
