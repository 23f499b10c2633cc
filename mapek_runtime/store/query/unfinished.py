"""A query that somebody is still writing: what of it can be read already.

Grafana asks for the values of a tag with the query as it stands, `{ span.a = "x" && resource.b = }`. What
cannot be read narrows nothing.
"""

from __future__ import annotations

from itertools import pairwise

from mapek_runtime.errors import QueryError

from .lexer import tokens
from .parse import parse
from .source import Source
from .syntax import All, AllSpans, Condition, Filter, Query
from .tokens import Token
from .traceql import parse_traceql

__all__ = ["parse_unfinished"]


def parse_unfinished(text: str) -> Query:
    """The query, else the comparisons of its one spanset that stand complete; every span without any.

    Never raises for what was written.
    """
    try:
        return parse(text)
    except QueryError:
        pass
    try:
        return _complete(text)
    except QueryError:
        return Query(AllSpans())


def _complete(text: str) -> Query:
    row = tokens(Source(text))
    # Only what stands in && alone is true of every span of the query: the rest cannot be taken apart.
    if any(token.text in {"||", "!", "(", "|"} for token in row):
        return Query(AllSpans())
    found: list[Condition] = []
    for part in _parts(text, row):
        try:
            spansets = parse_traceql(f"{{ {part} }}").spansets
        except QueryError:
            continue
        if isinstance(spansets, Filter):
            condition = spansets.condition
            found.extend(condition.conditions if isinstance(condition, All) else (condition,))
    if not found:
        return Query(AllSpans())
    return Query(Filter(found[0] if len(found) == 1 else All(tuple(found))))


def _parts(text: str, row: list[Token]) -> list[str]:
    """What stands between the brace, each `&&` and the end of the first spanset."""
    cuts: list[tuple[int, int]] = []
    for token in row:
        if token.text in {"{", "&&", "}", ""}:
            cuts.append((token.at, token.at + len(token.text)))
        if token.text in {"}", ""}:
            break
    return [text[end:start] for (_, end), (start, _) in pairwise(cuts)]
