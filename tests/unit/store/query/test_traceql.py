"""TraceQL: what each form of it means here, and how the rest of it is refused."""

from __future__ import annotations

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store.query import field_text, parse, parse_field, parse_traceql, to_traceql
from mapek_runtime.store.query.syntax import Field, Scope

FORMS = [
    ("{}", "{ }"),
    ("{ true }", "{ }"),
    ("{ false }", "{ false }"),
    ("{ .a || true }", "{ .a = true || true }"),
    ("{ !.a }", "{ !(.a = true) }"),
    ("{ span.success && !(resource.x = 1) }", "{ span.success = true && !(resource.x = 1) }"),
    # One precedence, from the left.
    ("{ .a || .b && .c }", "{ (.a = true || .b = true) && .c = true }"),
    ("{ .a || (.b && .c) }", "{ .a = true || (.b = true && .c = true) }"),
    ("{ (.a=1 && .b=2) && .c=3 }", "{ .a = 1 && .b = 2 && .c = 3 }"),
    ("{ 50ms < duration }", "{ duration > 50ms }"),
    ("{ 2 >= .a }", "{ .a <= 2 }"),
    ("{ nil != .a }", "{ .a != nil }"),
    ("{ (.a) = (1) }", "{ .a = 1 }"),
    ("{ .a = -1 && .b=-1.5 && .c>=-5ms }", "{ .a = -1 && .b = -1.5 && .c >= -5ms }"),
    ("{ duration > 1h2m3.5s }", "{ duration > 3723500ms }"),
    ("{ duration > 10us || duration < 10µs }", "{ duration > 10us || duration < 10us }"),
    ("{ duration > .5s && duration < 1d }", "{ duration > 500ms && duration < 24h }"),
    ("{ name = `a\\b` }", '{ name = "a\\\\b" }'),
    ('{ name = "\\u00e9\\x41\\n" }', '{ name = "éA\\n" }'),
    ('{ span:name="a" && span:kind = server }', '{ name = "a" && kind = server }'),
    ("{ span:status != unset && kind=unspecified }", "{ status != unset && kind = unspecified }"),
    ('{ rootName = "a" }', '{ trace:rootName = "a" }'),
    ('{ rootServiceName = "a" }', '{ trace:rootService = "a" }'),
    ("{ traceDuration > 1s }", "{ trace:duration > 1s }"),
    ('{ statusMessage =~ ".*" }', '{ span:statusMessage =~ ".*" }'),
    ("{ span:childCount > 2 }", "{ span:childCount > 2 }"),
    ('{ event:name = "exception" && event.x = 1 }', '{ event:name = "exception" && event.x = 1 }'),
    ('{ link:traceID = "f1" && link.y = 2 }', '{ link:traceID = "f1" && link.y = 2 }'),
    ('{ instrumentation:version = "1" }', '{ instrumentation:version = "1" }'),
    ("{ nestedSetParent < 0 }", "{ nestedSetParent < 0 }"),
    ("{ nestedSetParent = -1 }", "{ nestedSetParent < 0 }"),
    ("{ span:parentID = nil }", "{ nestedSetParent < 0 }"),
    ("{ nestedSetParent >= 0 }", "{ span:parentID != nil }"),
    ('{ span."foo bar" = 1 }', '{ span."foo bar" = 1 }'),
    ('{ ."a\\"b\\\\" = 1 }', '{ ."a\\"b\\\\" = 1 }'),
    ('{ span.http."x".y = 1 }', "{ span.httpx.y = 1 }".replace("httpx", "http.x")),
    ("{ .a+1 = 2 }", '{ ."a+1" = 2 }'),
    ("// one\n{ /* two */ .a = 1 } // three", "{ .a = 1 }"),
    ("({ .a=1 })", "{ .a = 1 }"),
    ("{.a=1} && {.b=2} || {.c=3}", "({ .a = 1 } && { .b = 2 }) || { .c = 3 }"),
    ("{.a=1} && {.b=2} >> {.c=3}", "{ .a = 1 } && ({ .b = 2 } >> { .c = 3 })"),
    ("{} > {} < {} << {} ~ {}", "((({ } > { }) < { }) << { }) ~ { }"),
    ("{} > ({} > {})", "{ } > ({ } > { })"),
    ("{} | count() > 2", "{ } | count() > 2"),
    ("{} | 2 < count()", "{ } | count() > 2"),
    ("count() = 1", "{ } | count() = 1"),
    ("{} | avg(duration) >= 50ms | max(.a) < 1.5", "{ } | avg(duration) >= 50ms | max(.a) < 1.5"),
    ("{} | min(span:childCount) > 0", "{ } | min(span:childCount) > 0"),
    ("{} | by(resource.service.name) | sum(.x) > 1", "{ } | by(resource.service.name) | sum(.x) > 1"),
    ('{} | select(name, .a, span."b c")', '{ } | select(name, .a, span."b c")'),
    ("{ .a=1 } | select(.x) | { .b=2 }", "{ .a = 1 && .b = 2 } | select(.x)"),
]


@pytest.mark.parametrize(("text", "canonical"), FORMS, ids=[text for text, _ in FORMS])
def test_a_form_reads_as_its_canonical_text(text: str, canonical: str) -> None:
    query = parse_traceql(text)

    assert to_traceql(query) == canonical
    assert parse_traceql(canonical) == query


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        # What Tempo has more of.
        ("{} | rate()", 6, "rate()"),
        ("{} | quantile_over_time(duration, .9) by (name)", 6, "metrics"),
        ("{} with (most_recent=true)", 4, "hints"),
        ("{} !>> {}", 4, "negated relation !>>"),
        ("{} !~ {}", 4, "negated relation !~"),
        ("{} &<< {}", 4, "union relation &<<"),
        ("{ .a + 1 = 2 }", 6, "arithmetic (+)"),
        ("{ -.a = 2 }", 3, "arithmetic (-)"),
        ("{ .a = 2 -1 }", 10, "arithmetic (-)"),
        ("{ .a = .b }", 8, "comparing two fields"),
        ("{ 1 = 2 }", 3, "both sides are values"),
        ("{ parent.a = 1 }", 3, "{ … } > { … }"),
        ("{ parent }", 3, "{ … } > { … }"),
        ("{ nestedSetLeft > 3 }", 3, "nestedSetParent < 0"),
        ("{ nestedSetParent = 7 }", 19, "nestedSetParent < 0"),
        ("{} | select(nestedSetParent)", 13, "numbered"),
        ("({} | count() > 1) && {}", 5, "stages in parentheses"),
        ("{} | by(.a) | {}", 15, "write this filter first"),
        ("{} | {} > {}", 4, "write { a && b }"),
        ("{} | coalesce()", 6, "coalesce()"),
        ("{} | count() > max(.a)", 16, "comparing two aggregates"),
        ("{} | count() + 1 > 2", 14, "arithmetic (+)"),
        ("{} | avg(.a + 1) > 2", 13, "arithmetic (+)"),
        ("{} | by(.a = 1)", 12, "no condition"),
        # What is no TraceQL.
        ("{ nme = 1 }", 3, "did you mean 'name'?"),
        ("{ attribute = 4 }", 3, "span.attribute"),
        ("{ service.name = 4 }", 3, "resource.service.name"),
        ("{ childCount > 1 }", 3, "'span:childCount'"),
        ("{ span:rootName = 1 }", 3, "'trace:rootName'"),
        ("{ .a == 4 }", 6, "write ="),
        ("{ .a & .b }", 6, "write &&"),
        ("{ .a | .b }", 6, "write ||"),
        ("{ .a and .b }", 6, "writes &&"),
        ("{ .a = null }", 8, "writes nil"),
        ("{ .a = 'x' }", 8, "double quotes"),
        ("{ . }", 3, "name of an attribute"),
        ("{ .a < }", 8, "expected a field"),
        ("{ .a = 3", 9, "for the { at column 1"),
        ("{ (.a = 3 }", 11, "for the ( at column 3"),
        ("{ .a = 1 = 2 }", 10, "chained"),
        ("{ (.a = 1) = true }", 3, "stands a condition"),
        ("{ !.a = 1 }", 3, "!(field = value)"),
        ("{ status }", 3, "not true or false"),
        ('{ "foo" }', 3, "alone says nothing"),
        ('{ status = "error" }', 12, "without quotes"),
        ("{ .level = error }", 12, 'write "error"'),
        ("{ kind < consumer }", 8, "no order"),
        ("{ duration > 100 }", 14, "as in 100ms"),
        ("{ name = 1 }", 10, "a text in quotes"),
        ("{ .a > nil }", 6, "nil"),
        ("{ .a =~ 2 }", 6, "regular expression"),
        ('{ .a !~ "[" }', 9, "regular expression"),
        ('{ "a" =~ .a }', 3, "on the right"),
        ("{ count() > 1 }", 3, "behind the braces"),
        ('{ ."a = 1 }', 4, "no end"),
        ("{ /* }", 3, "closing */"),
        ("{} | count()", 13, "a comparison"),
        ("{} | count(.a) > 1", 12, "count() counts spans"),
        ("{} | count() > 1s", 16, "no duration"),
        ("{} | count() =~ 1", 14, "an aggregate is a number"),
        ("{} | avg(duration) > 5", 22, "as in 5ms"),
        ("{} | max(name) > 1", 6, "not texts"),
        ("{} | cuont() > 1", 6, "did you mean 'count'?"),
        ("{} count() > 1", 4, "stands |"),
        ("{} > 10", 6, "outside braces"),
        ("{} = {}", 4, "spansets are joined by"),
        ("{} | select()", 13, "a field for select"),
        ("{} | .a = 1", 6, "in braces"),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_traceql(text)

    assert caught.value.column == column
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["{ .a }", " ( ( {} ) )", "// x\n{}", "({}) && {}"])
def test_a_brace_first_makes_it_traceql(text: str) -> None:
    assert parse(text) == parse_traceql(text)


def test_a_field_is_read_alone() -> None:
    assert parse_field("duration") == Field(Scope.INTRINSIC, "span:duration")
    assert parse_field('resource."a b"') == Field(Scope.RESOURCE, "a b")
    assert field_text(parse_field(".service.name")) == ".service.name"
    with pytest.raises(QueryError, match="column 4: found '='"):
        parse_field(".a = 1")
