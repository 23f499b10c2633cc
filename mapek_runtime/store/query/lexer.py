"""From the text of TraceQL to tokens, in one pass.

As in Tempo's lexer an attribute's name goes on until a space, a bracket or an operator: in `span.a+1` it is
`a+1`. Comments are Go's: `// …` and `/* … */`.
"""

from __future__ import annotations

import re

from .literals import read_number, read_string
from .source import Source, shown
from .spelling import KINDS, SCOPES, STATUSES, intrinsic, scoped_intrinsic, unknown_field
from .syntax import Field, Kind, Literal, Scope
from .tokens import Token, TokenKind

__all__ = ["SPACE", "tokens"]

# No possessive group within a group: Python 3.11.2, which Debian 12 has, reads those wrongly.
SPACE = re.compile(r"(?:\s+|//[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*")
"""What means nothing: white space and comments."""

_SYMBOL = re.compile(
    r"!>>|!<<|&>>|&<<|&&|\|\||!=|!~|!>|!<|=~|==|>=|<=|>>|<<|&>|&<|&~|\*\*|[{}(),=<>!~|+*/%^&\-]"
)
_QUOTES = "'\u2018\u2019\u201c\u201d"
_WORD = re.compile(r"[^\W\d]\w*+")
_NUMBER = re.compile(r"-?+\.?+[0-9]")
_NAME = re.compile(r"[^\s{}()=~!<>&|^,\"]++")
_QUOTED = re.compile(r'"((?:[^"\\]++|\\["\\])*+)"')
_UNQUOTE = re.compile(r"\\(.)", re.DOTALL)
_LITERALS = {
    "true": Literal(Kind.BOOL, True),
    "false": Literal(Kind.BOOL, False),
    "nil": Literal(Kind.NIL, None),
    **{word: Literal(Kind.STATUS, word) for word in STATUSES},
    **{word: Literal(Kind.SPAN_KIND, word) for word in KINDS},
}


def tokens(source: Source) -> list[Token]:
    """Every token of the text, and the end. Raises `QueryError` for what is none."""
    text, place = source.text, 0
    found: list[Token] = []
    while True:
        space = SPACE.match(text, place)
        place = space.end() if space else place
        if place == len(text):
            found.append(Token(TokenKind.END, "", place))
            return found
        token, place = _token(source, place)
        found.append(token)


def _token(source: Source, at: int) -> tuple[Token, int]:
    text = source.text
    if _NUMBER.match(text, at):
        literal, end = read_number(source, at)
        return Token(TokenKind.LITERAL, text[at:end], at, literal=literal), end
    character = text[at]
    if character in '"`':
        value, end = read_string(source, at)
        return Token(TokenKind.LITERAL, text[at:end], at, literal=Literal(Kind.STRING, value)), end
    if character == ".":
        return _attribute(source, at, Scope.EITHER, at + 1)
    if word := _WORD.match(text, at):
        return _named(source, at, word[0])
    if text.startswith("/*", at):
        raise source.error(at, "this comment has no end; it wants a closing */")
    symbol = _SYMBOL.match(text, at)
    if symbol is None:
        hint = '; strings stand in double quotes, "…"' if character in _QUOTES else ""
        raise source.error(at, f"found {shown(character)}, which means nothing in TraceQL{hint}")
    return Token(TokenKind.SYMBOL, symbol[0], at), symbol.end()


def _named(source: Source, at: int, word: str) -> tuple[Token, int]:
    """An attribute, an intrinsic, a word that is a value, or any other word."""
    text, end = source.text, at + len(word)
    mark = text[end : end + 1]
    if mark == "." and word in SCOPES:
        return _attribute(source, at, SCOPES[word], end + 1)
    if mark == ":":
        last = _WORD.match(text, end + 1)
        whole = word + mark + (last[0] if last else "")
        field = scoped_intrinsic(whole)
        if field is None:
            raise source.error(at, f"no field is called {shown(whole)}{unknown_field(whole)}")
        return Token(TokenKind.FIELD, whole, at, field=field), at + len(whole)
    if mark == ".":
        rest = _NAME.match(text, end)
        whole = word + (rest[0] if rest else "")
        if word == "parent":
            raise source.error(
                at,
                "fields of the parent are not known here; write { … } > { … }: the left side is the parent's",
            )
        raise source.error(at, f"no field is called {shown(whole)}{unknown_field(whole)}")
    if field := intrinsic(word):
        return Token(TokenKind.FIELD, word, at, field=field), end
    if word in _LITERALS:
        return Token(TokenKind.LITERAL, word, at, literal=_LITERALS[word]), end
    return Token(TokenKind.WORD, word, at), end


def _attribute(source: Source, at: int, scope: Scope, place: int) -> tuple[Token, int]:
    """The attribute whose name begins at `place`; parts of it may be quoted."""
    text = source.text
    parts: list[str] = []
    while True:
        if plain := _NAME.match(text, place):
            parts.append(plain[0])
            place = plain.end()
        elif quoted := _QUOTED.match(text, place):
            parts.append(_UNQUOTE.sub(r"\1", quoted[1]))
            place = quoted.end()
        elif text.startswith('"', place):
            raise source.error(place, 'this quoted name has no end, or an escape other than \\" and \\\\')
        else:
            break
    name = "".join(parts)
    if not name:
        raise source.error(at, f"{shown(text[at:place])} wants the name of an attribute after the dot")
    return Token(TokenKind.FIELD, text[at:place], at, field=Field(scope, name)), place
