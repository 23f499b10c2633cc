"""From the text of the seed's syntax to tokens, in one pass."""

from __future__ import annotations

import re

from .literals import read_glob, read_number
from .source import Source, shown
from .spelling import SCOPES, SERVICE_NAME, scoped_intrinsic, unknown_field
from .syntax import Field, Kind, Literal, Scope
from .tokens import Token, TokenKind

__all__ = ["tokens"]

_SPACE = re.compile(r"\s*+")
_NUMBER = re.compile(r"-?+\.?+[0-9]")
_KEY = re.compile(r"\.?+[^\W\d][\w.\-/:]*+")
_SYMBOL = re.compile(r"&&|\|\||!=|!~|=~|==|<>|>=|<=|[{}()=<>!|&,]")
_QUOTES = "`\u2018\u2019\u201c\u201d"
_KEYWORDS = {"AND", "OR", "NOT"}
_LITERALS = {
    "TRUE": Literal(Kind.BOOL, True),
    "FALSE": Literal(Kind.BOOL, False),
    "NIL": Literal(Kind.NIL, None),
}
_FIELDS = {
    "service": SERVICE_NAME,
    "service.name": SERVICE_NAME,
    "name": Field(Scope.INTRINSIC, "span:name"),
    "duration": Field(Scope.INTRINSIC, "span:duration"),
    "status": Field(Scope.INTRINSIC, "span:status"),
    "span.kind": Field(Scope.INTRINSIC, "span:kind"),
}


def tokens(source: Source) -> list[Token]:
    """Every token of the text, and the end. Raises `QueryError` for what is none."""
    text, place = source.text, 0
    found: list[Token] = []
    while True:
        space = _SPACE.match(text, place)
        place = space.end() if space else place
        if place == len(text):
            found.append(Token(TokenKind.END, "", place))
            return found
        token, place = _token(source, place)
        found.append(token)


def _token(source: Source, at: int) -> tuple[Token, int]:
    text = source.text
    if text[at] in "\"'":
        value, pattern, end = read_glob(source, at)
        literal = Literal(Kind.STRING, value)
        starred = "\\*" in text[at:end] or "\\?" in text[at:end]
        written = text[at:end]
        return Token(
            TokenKind.LITERAL, written, at, literal=literal, pattern=pattern, escaped_star=starred
        ), end
    if _NUMBER.match(text, at):
        literal, end = read_number(source, at)
        return Token(TokenKind.LITERAL, text[at:end], at, literal=literal), end
    if key := _KEY.match(text, at):
        return _word(source, at, key[0]), key.end()
    symbol = _SYMBOL.match(text, at)
    if symbol is None:
        hint = "; strings stand in \"…\" or '…'" if text[at] in _QUOTES else ""
        raise source.error(at, f"found {shown(text[at])}, which means nothing in a query{hint}")
    return Token(TokenKind.SYMBOL, symbol[0], at), symbol.end()


def _word(source: Source, at: int, word: str) -> Token:
    upper = word.upper()
    if upper in _KEYWORDS:
        return Token(TokenKind.SYMBOL, upper, at)
    if upper in _LITERALS:
        return Token(TokenKind.LITERAL, word, at, literal=_LITERALS[upper])
    return Token(TokenKind.FIELD, word, at, field=_field(source, at, word))


def _field(source: Source, at: int, word: str) -> Field:
    if word in _FIELDS:
        return _FIELDS[word]
    scope, dot, name = word.partition(".")
    if dot and not scope:
        return Field(Scope.EITHER, name)
    if dot and scope in SCOPES:
        if not name:
            raise source.error(at, f"{shown(word)} wants the name of an attribute after the dot")
        return Field(SCOPES[scope], name)
    if field := scoped_intrinsic(word):
        return field
    if word.partition(":")[0] in {"trace", *SCOPES} and ":" in word:
        raise source.error(at, f"no field is called {shown(word)}{unknown_field(word)}")
    return Field(Scope.SPAN, word)
