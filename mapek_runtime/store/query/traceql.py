"""TraceQL, the part of it that this store answers (https://grafana.com/docs/tempo/latest/traceql/).

Spansets `{ … }` joined by `&& || > >> < << ~`, then stages: aggregates with a comparison, `select`, `by`.
As in Tempo's grammar the relations bind tighter than `&&` and `||`, which have one precedence, and all
group from the left. What it has more of is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable

from .build import TRUE, Node, depth_of, joined
from .expression import condition, field_here
from .lexer import tokens
from .refused import STAGES, refused_symbol, refused_word
from .source import MAX_NESTING, Source
from .stages import stage
from .syntax import All, AllSpans, Field, Filter, Query, Relation, Select, Spansets, Stage
from .tokens import Cursor, Token, TokenKind

__all__ = ["parse_field", "parse_traceql"]

_RELATIONS = (">", ">>", "<", "<<", "~")
_MOST_STAGES = 16
"""Each goes through all spans of a trace that were chosen."""


def parse_traceql(text: str) -> Query:
    """What a query in TraceQL asks. Raises `QueryError`."""
    source = Source(text)
    return _Parser(source).query()


def parse_field(text: str) -> Field:
    """A field alone, such as `duration`, `span.node_id` or `resource."a b"`. Raises `QueryError`."""
    source = Source(text)
    cursor = Cursor(source, tokens(source))
    field = field_here(cursor, what="this")
    if cursor.peek().kind is not TokenKind.END:
        raise cursor.unexpected("nothing after the field")
    return field


class _Parser:
    """One reading of one text."""

    def __init__(self, source: Source) -> None:
        self._cursor = Cursor(source, tokens(source))
        self._source = source
        self._spansets = 0

    def query(self) -> Query:
        cursor = self._cursor
        spansets: Spansets = AllSpans()
        stages: list[Stage] = []
        if cursor.at("{", "("):
            spansets = self._joined(0)
        elif cursor.peek().kind is not TokenKind.END:
            # As in Tempo a query may begin with a stage: it is about every span.
            stages.append(stage(cursor))
        while (pipe := cursor.accept("|")) is not None:
            if not cursor.at("{", "("):
                if len(stages) == _MOST_STAGES:
                    raise self._source.error(
                        pipe.at, f"more than {_MOST_STAGES} stages; a query has at most so many"
                    )
                stages.append(stage(cursor))
            elif any(not isinstance(done, Select) for done in stages):
                raise cursor.error(
                    "after a by(…) or an aggregate no more spans can be chosen; write this filter first"
                )
            else:
                spansets = self._narrowed(spansets, self._joined(0), pipe)
        if cursor.peek().kind is not TokenKind.END:
            raise self._trailing()
        return Query(spansets, tuple(stages))

    def _joined(self, depth: int) -> Spansets:
        return self._chain(("&&", "||"), lambda: self._chain(_RELATIONS, lambda: self._spanset(depth)))

    def _chain(self, operators: tuple[str, ...], operand: Callable[[], Spansets]) -> Spansets:
        left = operand()
        while (operator := self._cursor.accept(*operators)) is not None:
            left = Relation(operator.text, left, operand())
        return left

    def _spanset(self, depth: int) -> Spansets:
        cursor = self._cursor
        start = cursor.peek()
        if cursor.accept("("):
            if depth == MAX_NESTING:
                raise self._source.too_deep(start.at)
            inside = self._joined(depth + 1)
            if cursor.at("|"):
                raise cursor.error("stages in parentheses are not known here; they stand once, at the end")
            if not cursor.at(")"):
                raise self._trailing(f"')' for the ( at column {start.at + 1}")
            cursor.take()
            return inside
        if not cursor.accept("{"):
            raise self._no_spanset()
        self._spansets += 1
        if self._spansets > MAX_NESTING:
            raise self._source.error(
                start.at, f"more than {MAX_NESTING} spansets; a query joins at most so many"
            )
        if cursor.accept("}"):
            return AllSpans()
        chosen = condition(cursor).condition
        cursor.expect("}", after=f"for the {{ at column {start.at + 1}, or && or ||")
        return AllSpans() if chosen == TRUE else Filter(chosen)

    def _narrowed(self, spansets: Spansets, more: Spansets, pipe: Token) -> Spansets:
        """`{ a } | { b }`: the spans of which both hold."""
        if isinstance(spansets, Relation) or isinstance(more, Relation):
            raise self._source.error(
                pipe.at, "a filter after | is known here only between single spansets; write { a && b }"
            )
        filters = [each for each in (spansets, more) if isinstance(each, Filter)]
        if not filters:
            return AllSpans()
        nodes = [Node(each.condition, depth_of(each.condition)) for each in filters]
        return Filter(joined(self._source, pipe.at, All, nodes).condition)

    def _no_spanset(self) -> Exception:
        token = self._cursor.peek()
        if token.kind is TokenKind.SYMBOL and (message := refused_symbol(token.text, spansets=True)):
            return self._cursor.error(message)
        if token.kind is TokenKind.WORD and (message := refused_word(token.text)):
            return self._cursor.error(message)
        if token.kind in {TokenKind.WORD, TokenKind.FIELD, TokenKind.LITERAL}:
            return self._cursor.error(f"{self._cursor.found()} outside braces; spans are chosen by {{ … }}")
        return self._cursor.unexpected("a spanset, { … }")

    def _trailing(self, wanted: str = "") -> Exception:
        """After a whole query, or in parentheses after a whole spanset, something else comes."""
        token = self._cursor.peek()
        wanted = wanted or "the end, | and a stage, or && || > >> < << ~ and a spanset"
        if token.kind is TokenKind.SYMBOL and (message := refused_symbol(token.text, spansets=True)):
            return self._cursor.error(message)
        if token.kind is TokenKind.WORD and (message := refused_word(token.text)):
            return self._cursor.error(message)
        if token.kind is TokenKind.WORD and token.text in STAGES:
            return self._cursor.error(f"before {token.text}(…) stands |")
        return self._cursor.unexpected(wanted)
