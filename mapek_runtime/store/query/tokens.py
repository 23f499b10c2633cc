"""What the text of a query is made of, and a place in the row of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mapek_runtime.errors import QueryError

from .source import Source, shown
from .syntax import Field, Literal

__all__ = ["Cursor", "Token", "TokenKind"]


class TokenKind(StrEnum):
    """What a token is."""

    SYMBOL = "symbol"
    """An operator, a bracket, or in the seed's syntax AND, OR, NOT."""
    FIELD = "field"
    LITERAL = "value"
    WORD = "word"
    """A name that is neither a field nor a value: a function, or a mistake."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text that means one thing."""

    kind: TokenKind
    text: str
    """As it was written; a symbol in its one spelling."""
    at: int
    """Index of its first character."""
    field: Field | None = None
    literal: Literal | None = None
    pattern: str | None = None
    """The regular expression of a string with `*` or `?`, in the seed's syntax."""
    escaped_star: bool = False
    """Whether the string has `\\*` or `\\?`, which mean something only where it can be a glob."""


class Cursor:
    """A place in a row of tokens, the last of which is the end."""

    __slots__ = ("_place", "_tokens", "source")

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        self.source = source
        self._tokens = tokens
        self._place = 0

    def peek(self) -> Token:
        """The token that is read next."""
        return self._tokens[self._place]

    def take(self) -> Token:
        """The next token, and one further; the end stays."""
        token = self._tokens[self._place]
        if token.kind is not TokenKind.END:
            self._place += 1
        return token

    def at(self, *symbols: str) -> bool:
        """Whether one of the symbols comes next."""
        token = self._tokens[self._place]
        return token.kind is TokenKind.SYMBOL and token.text in symbols

    def accept(self, *symbols: str) -> Token | None:
        """One of the symbols, if it comes next."""
        return self.take() if self.at(*symbols) else None

    def expect(self, symbol: str, *, after: str) -> Token:
        """The symbol that must come next."""
        found = self.accept(symbol)
        if found is None:
            raise self.unexpected(f"{symbol!r} {after}")
        return found

    def unexpected(self, wanted: str) -> QueryError:
        """The next token is not what would be right."""
        return self.error(f"{self.found()}; expected {wanted}")

    def found(self) -> str:
        """What comes next, as it stands in a message."""
        token = self.peek()
        return "the query ends here" if token.kind is TokenKind.END else f"found {shown(token.text)}"

    def error(self, message: str, token: Token | None = None) -> QueryError:
        """A fault at the token, or at the one that comes next."""
        return self.source.error((token or self.peek()).at, message)
