"""However long, deep or wrong a query is: an answer in time that grows with its length, never a crash."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store.query import parse, to_traceql
from mapek_runtime.store.query.source import MAX_LENGTH, MAX_NESTING

REPEATED = {
    "comparisons": ("{ ", ".a=1 && ", ".a=1 }"),
    "flat negations": ("{ ", "!.a || ", ".a }"),
    "spansets with comments": ("{", "/**/ ", "}"),
    "numbers": ("{ .a = ", "1", " }"),
    "an open string": ('{ .a = "', "\\\\", ""),
    "an open comment": ("{ /*", "**", ""),
    "selected fields": ("{} | select(.a", ", .a", ")"),
    "the seed's comparisons": ("a=1", " AND b=2 OR c='x*'", ""),
    "globs": ("a='", "*?\\*", "'"),
    "names": ("{ .", "a.b", " = 1 }"),
    "parentheses": ("", "(", ""),
    "tokens that cannot be": ("", "{ .a } ", ""),
}


@pytest.mark.parametrize("opening", ["{ ", ""], ids=["TraceQL", "seed"])
def test_parentheses_nest_to_the_limit_and_no_further(opening: str) -> None:
    field, close = (".a=1", " }") if opening else ("a=1", "")

    def nested(depth: int) -> str:
        return opening + "(" * depth + field + ")" * depth + close

    assert parse(nested(MAX_NESTING)) == parse(nested(0))
    with pytest.raises(QueryError, match=f"nested deeper than {MAX_NESTING}") as caught:
        parse(nested(MAX_NESTING + 1))
    assert caught.value.column == len(opening) + MAX_NESTING + 1


@pytest.mark.parametrize(
    "text",
    [
        "{ " + "!" * 5000 + ".a }",
        "NOT " * 4000 + "a=1",
        "{ .a" + " && .a || .a" * 1000 + " }",
        "(" * 8000 + "{}" + ")" * 8000,
        "{}" + ">{}" * 5000,
        "{}" + "&&{}" * 4000,
        "(NOT (" * 40 + "a=1" + " OR b=2) AND c=3)" * 40,
    ],
    ids=["!", "NOT", "changes of join", "spansets in parentheses", "relations", "joins", "mixed"],
)
def test_depth_in_any_form_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match=f"{MAX_NESTING}"):
        parse(text)


def test_the_deepest_query_is_written_and_read_again() -> None:
    depth = MAX_NESTING // 2
    query = parse("{ " + ".x && (.y || (" * (depth // 2) + ".z" + "))" * (depth // 2) + " }")
    negated = parse("{ " + "!" * MAX_NESTING + ".a }")

    assert parse(to_traceql(query)) == query
    assert parse(to_traceql(negated)) == negated


def test_a_text_past_the_limit_is_refused_before_it_is_read() -> None:
    parse("{ .a = 1 }".ljust(MAX_LENGTH))

    with pytest.raises(QueryError, match="16,385 characters; at most 16,384"):
        parse("{ .a = 1 }".ljust(MAX_LENGTH + 1))


@pytest.mark.parametrize("parts", REPEATED.values(), ids=REPEATED)
def test_twice_the_text_takes_at_most_twice_the_steps(parts: tuple[str, str, str]) -> None:
    opening, repeated, closing = parts
    count = (MAX_LENGTH - 100) // len(repeated)

    half, whole = (_steps(opening + repeated * times + closing) for times in (count // 2, count))

    assert whole < 2.2 * half + 500


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "(x{500}|y)" * 200, "a" * 5000, "(" * 4000])
def test_a_regular_expression_that_is_too_large_is_refused_quietly(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(QueryError) as caught:
        parse(f'{{ .a =~ "{pattern}" }}')

    assert caught.value.column == 9
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")


def _steps(text: str) -> int:
    """Calls and lines that reading the text takes."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(text)
    except QueryError:
        pass
    finally:
        sys.settrace(before)
    return steps
