"""A query as text again: canonical TraceQL, which reads back as the same query.

Parentheses stand around every group in a group, because `&&` and `||` have one precedence in TraceQL. The
text is also right for Tempo as far as Tempo can ask the same (it cannot ask whether an intrinsic is nil,
other than whether a span is a root).
"""

from __future__ import annotations

from .build import FALSE, TRUE
from .literals import literal_text
from .spelling import field_text
from .syntax import (
    Aggregate,
    All,
    AllSpans,
    Any,
    By,
    Compare,
    Condition,
    Field,
    Filter,
    Kind,
    Literal,
    Not,
    Query,
    Relation,
    Scope,
    Spansets,
    Stage,
)

__all__ = ["condition_text", "field_text", "to_traceql"]

_ROOT = Compare(Field(Scope.INTRINSIC, "span:parentID"), "=", Literal(Kind.NIL, None))
_WORDS = {TRUE: "true", FALSE: "false", _ROOT: "nestedSetParent < 0"}


def to_traceql(query: Query) -> str:
    """The query as TraceQL."""
    return " | ".join((_spansets(query.spansets), *map(_stage, query.stages)))


def condition_text(condition: Condition) -> str:
    """The condition as it stands between braces."""
    if isinstance(condition, Compare):
        if condition in _WORDS:
            return _WORDS[condition]
        return f"{field_text(condition.field)} {condition.op} {literal_text(condition.literal)}"
    if isinstance(condition, Not):
        return f"!({condition_text(condition.condition)})"
    join = " && " if isinstance(condition, All) else " || "
    return join.join(
        f"({condition_text(part)})" if isinstance(part, (All, Any)) else condition_text(part)
        for part in condition.conditions
    )


def _spansets(spansets: Spansets) -> str:
    if isinstance(spansets, AllSpans):
        return "{ }"
    if isinstance(spansets, Filter):
        return f"{{ {condition_text(spansets.condition)} }}"
    sides = (
        f"({_spansets(side)})" if isinstance(side, Relation) else _spansets(side)
        for side in (spansets.left, spansets.right)
    )
    return f" {spansets.op} ".join(sides)


def _stage(stage: Stage) -> str:
    if isinstance(stage, Aggregate):
        field = "" if stage.field is None else field_text(stage.field)
        return f"{stage.function}({field}) {stage.op} {literal_text(stage.literal)}"
    if isinstance(stage, By):
        return f"by({field_text(stage.field)})"
    return f"select({', '.join(map(field_text, stage.fields))})"
