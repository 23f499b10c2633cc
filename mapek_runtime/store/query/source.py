"""The text of a query: its limits, and errors that point into it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from mapek_runtime.errors import QueryError

__all__ = ["MAX_LENGTH", "MAX_NESTING", "Source", "did_you_mean", "shown"]

MAX_LENGTH = 16_384
"""Characters of a query."""
MAX_NESTING = 64
"""How deep parentheses, negations and groups may stand in one another, and how many spansets a query may
join. Whoever walks a query may recurse: this keeps them far from the interpreter's limit."""

_SHOWN = 40


class Source:
    """A text that is being read. Raises `QueryError` when it is too long or no text of Unicode."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise QueryError(f"the query has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.error(error.start, f"{text[error.start]!r} is half a character") from None

    def error(self, at: int, message: str) -> QueryError:
        """A fault at the index `at`."""
        return QueryError(message, text=self.text, column=at + 1)

    def too_deep(self, at: int) -> QueryError:
        """Nesting went past its limit at the index `at`."""
        return self.error(
            at,
            f"nested deeper than {MAX_NESTING}; write fewer parentheses and negations in one another"
            " (in TraceQL also each change between && and || nests, because both have one precedence)",
        )


def shown(text: str) -> str:
    """What was written, as it stands in a message: quoted, and cut when it is long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no known word is near."""
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word[:_SHOWN].lower(), by_lower, n=1, cutoff=0.65)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
