"""What stands between the braces of TraceQL: comparisons, `&&`, `||`, `!` and parentheses.

As in Tempo's grammar `&&` and `||` have one precedence and group from the left, and `!` binds tighter than
a comparison.
"""

from __future__ import annotations

from .build import Node, compared, constant, joined, negated
from .literals import quote
from .refused import AGGREGATES, COMPARISONS, refused_symbol, refused_word
from .source import MAX_NESTING, did_you_mean, shown
from .spelling import KINDS, NESTED_PARENT, STATUSES, UNSCOPED, field_text, unknown_field
from .syntax import All, Any, Field, Kind, Literal, Scope
from .tokens import Cursor, Token, TokenKind

__all__ = ["condition", "field_here", "is_symbol"]

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_JOINS: dict[str, type[All | Any]] = {"&&": All, "||": Any}
_WORDS = (*UNSCOPED, *STATUSES, *KINDS, "true", "false", "nil")

# A field or a value is read before it is known what it is part of.
_Operand = Node | Token


def condition(cursor: Cursor, depth: int = 0) -> Node:
    """The condition that begins here, up to what cannot continue it."""
    return _as_condition(cursor, _expression(cursor, depth))


def field_here(cursor: Cursor, *, what: str) -> Field:
    """The field that must come next; `what` it is for."""
    token = cursor.peek()
    if token.kind is TokenKind.WORD:
        raise cursor.error(refused_word(token.text) or _unknown(token.text))
    if token.kind is not TokenKind.FIELD or token.field is None:
        raise cursor.unexpected(f"a field for {what}, such as duration or span.node_id")
    if token.field == NESTED_PARENT:
        raise cursor.error(
            "spans are not numbered here: nestedSetParent is only known as nestedSetParent < 0"
        )
    cursor.take()
    return token.field


def is_symbol(token: Token, *symbols: str) -> bool:
    """Whether the token is one of the symbols."""
    return token.kind is TokenKind.SYMBOL and token.text in symbols


def _expression(cursor: Cursor, depth: int) -> _Operand:
    """An operand, or several that are joined."""
    first = _comparison(cursor, depth)
    join = cursor.accept(*_JOINS)
    if join is None:
        return first
    nodes = [_as_condition(cursor, first)]
    while join is not None:
        nodes.append(_as_condition(cursor, _comparison(cursor, depth)))
        following = cursor.accept(*_JOINS)
        if following is None or following.text != join.text:
            nodes = [joined(cursor.source, join.at, _JOINS[join.text], nodes)]
        join = following
    return nodes[0]


def _comparison(cursor: Cursor, depth: int) -> _Operand:
    start = cursor.peek()
    left = _operand(cursor, depth)
    operator = cursor.accept(*COMPARISONS)
    if operator is None:
        _refuse_what_follows(cursor)
        return left
    begin = cursor.peek()
    right = _operand(cursor, depth)
    node = _compared(cursor, left, start, operator, right, begin)
    if cursor.at(*COMPARISONS):
        raise cursor.error(
            f"comparisons cannot be chained with {cursor.peek().text}; join two of them with &&"
        )
    _refuse_what_follows(cursor)
    return node


def _compared(
    cursor: Cursor, left: _Operand, start: Token, operator: Token, right: _Operand, begin: Token
) -> Node:
    if isinstance(left, Node) or isinstance(right, Node):
        if is_symbol(start, "!") and isinstance(left, Node):
            raise cursor.error("! binds tighter than a comparison; write !(field = value)", start)
        side, token = ("left", start) if isinstance(left, Node) else ("right", begin)
        raise cursor.error(
            f"on the {side} of {operator.text} stands a condition; compare a field with a value, and join"
            " conditions with && and ||",
            token,
        )
    if left.field is not None and right.field is not None:
        raise cursor.error(
            f"comparing two fields ({field_text(left.field)[:40]} {operator.text} "
            f"{field_text(right.field)[:40]})"
            " is not known here; write a value on one side",
            begin,
        )
    if left.field is not None and right.literal is not None:
        return compared(cursor.source, operator.at, left.field, operator.text, right.literal, begin.at)
    if right.field is not None and left.literal is not None:
        flipped = _FLIPPED.get(operator.text)
        if flipped is None:
            raise cursor.error(f"the regular expression stands on the right of {operator.text}", start)
        return compared(cursor.source, operator.at, right.field, flipped, left.literal, start.at)
    raise cursor.error(
        "both sides are values; write a field on one of them, such as span.x or duration", start
    )


def _operand(cursor: Cursor, depth: int) -> _Operand:
    """A field, a value, or a condition: what is in parentheses, or negated."""
    negations: list[Token] = []
    while (sign := cursor.accept("!")) is not None:
        negations.append(sign)
        if len(negations) > MAX_NESTING:
            raise cursor.source.too_deep(sign.at)
    start = cursor.peek()
    operand: _Operand
    if cursor.accept("("):
        if depth == MAX_NESTING:
            raise cursor.source.too_deep(start.at)
        operand = _expression(cursor, depth + 1)
        cursor.expect(")", after=f"for the ( at column {start.at + 1}, or && or ||")
    else:
        operand = _value(cursor)
    if not negations:
        return operand
    node = _as_condition(cursor, operand)
    for sign in reversed(negations):
        node = negated(cursor.source, sign.at, node)
    return node


def _value(cursor: Cursor) -> Token:
    token = cursor.peek()
    if token.kind in {TokenKind.FIELD, TokenKind.LITERAL}:
        return cursor.take()
    if token.kind is TokenKind.WORD:
        raise cursor.error(_misplaced_word(token.text))
    if token.kind is TokenKind.SYMBOL and (message := refused_symbol(token.text, spansets=False)):
        raise cursor.error(message)
    raise cursor.unexpected("a field, such as duration or span.node_id, or a value")


def _as_condition(cursor: Cursor, operand: _Operand) -> Node:
    """A field alone is true when its value is `true`."""
    if isinstance(operand, Node):
        return operand
    literal, field = operand.literal, operand.field
    if literal is not None and literal.kind is Kind.BOOL:
        return constant(bool(literal.value))
    if literal is not None:
        raise cursor.error(f"{shown(operand.text)} alone says nothing; compare a field with it", operand)
    if field is None or field.scope is Scope.INTRINSIC:
        raise cursor.error(f"{operand.text} is not true or false; compare it with a value", operand)
    return compared(cursor.source, operand.at, field, "=", Literal(Kind.BOOL, True), operand.at)


def _refuse_what_follows(cursor: Cursor) -> None:
    """After an operand only a join or a closing bracket can come: say what is wrong with anything else."""
    token = cursor.peek()
    if token.kind is TokenKind.END or is_symbol(token, "&&", "||", ")", "}"):
        return
    if token.kind is TokenKind.SYMBOL:
        message = refused_symbol(token.text, spansets=False)
        raise (
            cursor.error(message)
            if message
            else cursor.unexpected("&&, ||, a comparison or a closing bracket")
        )
    if token.kind is TokenKind.LITERAL and token.text.startswith("-"):
        raise cursor.error(refused_symbol("-", spansets=False))
    if token.kind is TokenKind.WORD and (message := refused_word(token.text)):
        raise cursor.error(message)
    raise cursor.unexpected("&&, ||, a comparison or a closing bracket")


def _misplaced_word(word: str) -> str:
    if word in AGGREGATES:
        field = "" if word == "count" else "duration"
        return f"{word}() stands behind the braces: {{ … }} | {word}({field}) > …"
    return refused_word(word) or _unknown(word)


def _unknown(word: str) -> str:
    near = did_you_mean(word, _WORDS)
    if near:
        return f"no field or value is called {shown(word)}{near}"
    quoted = quote(word[:40])
    return f"no field is called {shown(word)}{unknown_field(word[:40])}; a text stands in quotes, {quoted}"
