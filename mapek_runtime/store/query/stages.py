"""What stands behind a `|` in TraceQL: an aggregate with a comparison, `select`, or `by`."""

from __future__ import annotations

from .expression import field_here, is_symbol
from .literals import literal_text
from .refused import AGGREGATES, refused_symbol, unknown_stage
from .source import shown
from .spelling import TYPES, field_text
from .syntax import Aggregate, By, Field, Kind, Literal, Scope, Select, Stage
from .tokens import Cursor, Token, TokenKind

__all__ = ["stage"]

_ORDERS = ("=", "!=", "<", "<=", ">", ">=")
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NUMBERS = (Kind.INT, Kind.FLOAT, Kind.DURATION)


def stage(cursor: Cursor) -> Stage:
    """The stage that begins here. Raises `QueryError`."""
    token = cursor.peek()
    if token.kind is TokenKind.LITERAL:
        return _aggregate_on_the_right(cursor)
    if token.kind is TokenKind.FIELD:
        raise cursor.error(f"a field stands in braces: {{ {shown(token.text)[1:-1]} = … }}")
    if token.kind is not TokenKind.WORD:
        raise cursor.unexpected("a stage: count() > 2, avg(duration) >= 50ms, select(…) or by(…)")
    if token.text == "select":
        return _select(cursor)
    if token.text == "by":
        field = _in_parentheses(cursor, "by")
        cursor.expect(")", after="after the one field of by")
        return By(field)
    function, field_, start = _function(cursor)
    operator = _order(cursor)
    if operator is None:
        raise cursor.unexpected(f"a comparison, as in {function}(…) > 2")
    value = cursor.peek()
    if value.kind is TokenKind.WORD and value.text in AGGREGATES:
        raise cursor.error("comparing two aggregates is not known here; write a value on one side")
    if value.kind is not TokenKind.LITERAL:
        raise cursor.unexpected("a number or a duration")
    cursor.take()
    _no_arithmetic(cursor)
    return _aggregate(cursor, function, field_, operator.text, value, start)


def _aggregate_on_the_right(cursor: Cursor) -> Stage:
    value = cursor.take()
    operator = _order(cursor)
    if operator is None:
        _no_arithmetic(cursor)
        raise cursor.unexpected("a comparison with an aggregate, as in 2 < count()")
    function, field, start = _function(cursor)
    _no_arithmetic(cursor)
    return _aggregate(cursor, function, field, _FLIPPED[operator.text], value, start)


def _order(cursor: Cursor) -> Token | None:
    _no_arithmetic(cursor)
    if cursor.at("=~", "!~"):
        raise cursor.error(f"{cursor.peek().text} compares texts; an aggregate is a number")
    return cursor.accept(*_ORDERS)


def _function(cursor: Cursor) -> tuple[str, Field | None, Token]:
    """`count()` or another aggregate of a field."""
    token = cursor.peek()
    if token.kind is not TokenKind.WORD or token.text not in AGGREGATES:
        raise cursor.error(unknown_stage(token.text)) if token.text else cursor.unexpected("an aggregate")
    if token.text != "count":
        field = _in_parentheses(cursor, token.text)
        cursor.expect(")", after=f"after the one field of {token.text}")
        return token.text, field, token
    cursor.take()
    cursor.expect("(", after="after count")
    cursor.expect(")", after="at once: count() counts spans and has no field")
    return token.text, None, token


def _aggregate(
    cursor: Cursor, function: str, field: Field | None, op: str, value: Token, start: Token
) -> Aggregate:
    literal = value.literal
    assert literal is not None
    own = Kind.INT if field is None else TYPES.get(field.name) if field.scope is Scope.INTRINSIC else None
    name = f"{function}({'' if field is None else field_text(field)[:40]})"
    if own not in {None, Kind.INT, Kind.DURATION}:
        raise cursor.error(f"{name}: only numbers and durations have {function}, not texts", start)
    if literal.kind not in _NUMBERS:
        raise cursor.error(f"{name} is compared with a number or a duration", value)
    if own is Kind.DURATION and literal.kind is not Kind.DURATION:
        if literal.value:
            right = f"{literal_text(literal)}ms"
            raise cursor.error(f"{name} is compared with a duration, as in {right}", value)
        literal = Literal(Kind.DURATION, 0)
    if own is Kind.INT and literal.kind is Kind.DURATION:
        raise cursor.error(f"{name} is a number and no duration", value)
    return Aggregate(function, field, op, literal)


def _select(cursor: Cursor) -> Select:
    fields = [_in_parentheses(cursor, "select")]
    while cursor.accept(","):
        fields.append(field_here(cursor, what="select"))
    cursor.expect(")", after="or , in select")
    return Select(tuple(fields))


def _in_parentheses(cursor: Cursor, function: str) -> Field:
    cursor.take()
    cursor.expect("(", after=f"after {function}")
    field = field_here(cursor, what=function)
    _no_arithmetic(cursor)
    if cursor.at("=", "!=", "<", "<=", ">", ">=", "=~", "!~", "&&", "||"):
        raise cursor.error(f"{function} takes a field here and no condition")
    return field


def _no_arithmetic(cursor: Cursor) -> None:
    token = cursor.peek()
    sign = token.text[:1] if token.kind is TokenKind.LITERAL and token.text[0] == "-" else token.text
    if is_symbol(token, "+", "-", "*", "/", "%", "^", "**") or (
        sign == "-" and token.kind is TokenKind.LITERAL
    ):
        raise cursor.error(refused_symbol(sign, spansets=True))
