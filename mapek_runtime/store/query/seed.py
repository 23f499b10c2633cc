"""The seed's syntax: comparisons joined by AND, OR, NOT and parentheses.

AND binds tighter than OR, NOT tighter than both, and keywords are read in any case. A bare key is an
attribute of the span; `service`, `name`, `duration`, `status` and `span.kind` are not. In a string behind
`=` or `!=` a `*` stands for any characters and a `?` for one.
"""

from __future__ import annotations

from .build import Node, compared, joined, negated
from .refused import COMPARISONS
from .seed_lexer import tokens
from .source import MAX_NESTING, Source, did_you_mean, shown
from .spelling import KINDS, SERVICE_NAME, STATUSES
from .syntax import All, AllSpans, Any, Field, Filter, Kind, Literal, Query, Scope
from .tokens import Cursor, Token, TokenKind

__all__ = ["parse_seed"]

_STATUS = Field(Scope.INTRINSIC, "span:status")
_KIND = Field(Scope.INTRINSIC, "span:kind")
_WORDS = {_STATUS: (Kind.STATUS, STATUSES), _KIND: (Kind.SPAN_KIND, KINDS)}
_PATTERN_OP = {"=": "=~", "!=": "!~"}
_WRONG = {
    "&&": "write AND, or TraceQL in braces, { … && … }",
    "||": "write OR, or TraceQL in braces, { … || … }",
    "&": "write AND",
    "|": "write OR; stages such as | count() > 2 stand behind TraceQL's braces, { … }",
    "!": "write NOT",
    "==": "write =",
    "<>": "write !=",
    ",": "write AND or OR",
    "{": 'a query in TraceQL begins with a brace; here write a comparison such as service="…"',
    "(": "functions belong to TraceQL and stand behind its braces, as in { … } | count() > 2",
    "}": "braces belong to TraceQL, where a query begins with {",
}


def parse_seed(text: str) -> Query:
    """What a query in the seed's syntax asks. Raises `QueryError`."""
    source = Source(text)
    cursor = Cursor(source, tokens(source))
    if cursor.peek().kind is TokenKind.END:
        return Query(AllSpans())
    node = _group(cursor, 0)
    if cursor.peek().kind is not TokenKind.END:
        raise _unexpected(cursor, "AND, OR or the end")
    return Query(Filter(node.condition))


def _group(cursor: Cursor, depth: int) -> Node:
    """Comparisons joined by AND and OR, up to a closing parenthesis or the end."""
    start = cursor.peek().at
    either: list[Node] = []
    every = [_operand(cursor, depth)]
    while (join := cursor.accept("AND", "OR")) is not None:
        if join.text == "OR":
            either.append(joined(cursor.source, start, All, every))
            every = []
        every.append(_operand(cursor, depth))
    either.append(joined(cursor.source, start, All, every))
    return joined(cursor.source, start, Any, either)


def _operand(cursor: Cursor, depth: int) -> Node:
    negations: list[Token] = []
    while (sign := cursor.accept("NOT")) is not None:
        negations.append(sign)
        if len(negations) > MAX_NESTING:
            raise cursor.source.too_deep(sign.at)
    opening = cursor.accept("(")
    if opening is None:
        node = _comparison(cursor)
    elif depth == MAX_NESTING:
        raise cursor.source.too_deep(opening.at)
    else:
        node = _group(cursor, depth + 1)
        if cursor.accept(")") is None:
            raise _unexpected(cursor, f"AND, OR, or ')' for the ( at column {opening.at + 1}")
    for sign in reversed(negations):
        node = negated(cursor.source, sign.at, node)
    return node


def _comparison(cursor: Cursor) -> Node:
    key = cursor.peek()
    if key.kind is not TokenKind.FIELD or key.field is None:
        raise _unexpected(cursor, 'a field and a comparison, such as name="mape_k.*"')
    cursor.take()
    operator = cursor.accept(*COMPARISONS)
    if operator is None:
        if cursor.peek().kind is TokenKind.END or cursor.at("AND", "OR", ")"):
            raise cursor.error(
                f"{shown(key.text)} alone says nothing; compare it, as in {key.text[:40]}=true", key
            )
        raise _unexpected(cursor, f"a comparison: {' '.join(COMPARISONS)}")
    value = cursor.take()
    field, op = key.field, operator.text
    if (
        field == SERVICE_NAME
        and value.literal is not None
        and value.literal.kind not in {Kind.STRING, Kind.NIL}
    ):
        raise cursor.error(f"a service has a name in quotes; found {shown(value.text)}", value)
    literal = _literal(cursor, field, value)
    if op in _PATTERN_OP and value.pattern is not None and literal.kind is Kind.STRING:
        op, literal = _PATTERN_OP[op], Literal(Kind.STRING, value.pattern)
    elif op not in _PATTERN_OP and value.escaped_star:
        raise cursor.error(f"behind {op} a backslash is written twice, as in \\\\*", value)
    return compared(cursor.source, operator.at, field, op, literal, value.at)


def _literal(cursor: Cursor, field: Field, value: Token) -> Literal:
    """What is compared with: status and kind are words, in quotes or not, in any case."""
    if field in _WORDS and (word := _word(value)):
        kind, words = _WORDS[field]
        if word.lower() in words:
            return Literal(kind, word.lower())
        near = did_you_mean(word, words) or f"; it is one of {', '.join(words)}"
        raise cursor.error(f"{shown(word)} is no {'status' if field == _STATUS else 'kind'}{near}", value)
    if value.literal is not None:
        return value.literal
    if value.kind is TokenKind.FIELD:
        raise cursor.error(f'found {shown(value.text)}; a text stands in quotes, "{value.text[:40]}"', value)
    raise cursor.source.error(
        value.at,
        ("the query ends here" if value.kind is TokenKind.END else f"found {shown(value.text)}")
        + "; expected a value: a text in quotes, a number, a duration such as 50ms, true or false",
    )


def _word(value: Token) -> str:
    if value.kind is TokenKind.FIELD:
        return value.text
    if value.literal is not None and value.literal.kind is Kind.STRING:
        return str(value.literal.value)
    return ""


def _unexpected(cursor: Cursor, wanted: str) -> Exception:
    token = cursor.peek()
    if token.kind is TokenKind.SYMBOL and token.text in _WRONG:
        return cursor.error(f"{cursor.found()}; {_WRONG[token.text]}")
    if token.kind is TokenKind.FIELD and (near := did_you_mean(token.text, ("AND", "OR", "NOT"))):
        return cursor.error(f"{cursor.found()}; expected {wanted}{near}")
    return cursor.unexpected(wanted)
