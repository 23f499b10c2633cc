"""Rules of the query language that hold for every query and every text."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_runtime.errors import QueryError
from mapek_runtime.store.query import field_text, parse, parse_field, parse_seed, parse_traceql, to_traceql
from mapek_runtime.store.query.spelling import KINDS, STATUSES, TYPES
from mapek_runtime.store.query.syntax import (
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
    Select,
    Spansets,
    Stage,
)

EQUAL = st.sampled_from(["=", "!="])
ORDER = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
REGEX = st.sampled_from(["=~", "!~"])
WHOLE = st.integers(-(2**63), 2**63 - 1)

texts = st.text(max_size=8)
strings = texts.map(lambda text: Literal(Kind.STRING, text))
patterns = st.sampled_from(["", "a.*", "\\d+", "(x|y)?", '"\\\\']).map(
    lambda text: Literal(Kind.STRING, text)
)
durations = WHOLE.map(lambda value: Literal(Kind.DURATION, value))
numbers = WHOLE.map(lambda value: Literal(Kind.INT, value)) | st.floats(
    allow_nan=False, allow_infinity=False
).map(lambda value: Literal(Kind.FLOAT, value))
booleans = st.booleans().map(lambda value: Literal(Kind.BOOL, value))
nothing = st.just(Literal(Kind.NIL, None))
intrinsics = st.sampled_from(sorted(TYPES)).map(lambda name: Field(Scope.INTRINSIC, name))
attributes = st.builds(
    Field,
    st.sampled_from([scope for scope in Scope if scope is not Scope.INTRINSIC]),
    st.text(min_size=1, max_size=8)
    | st.sampled_from(["node_id", "a.b-c", "5", ".", "span.x", 'a"\\b', "//"]),
)
fields = intrinsics | attributes


def of_kind(kind: Kind) -> st.SearchStrategy[Compare]:
    field = st.sampled_from([name for name in TYPES if TYPES[name] is kind]).map(
        lambda name: Field(Scope.INTRINSIC, name)
    )
    match kind:
        case Kind.STRING:
            return st.builds(Compare, field, ORDER, strings) | st.builds(Compare, field, REGEX, patterns)
        case Kind.DURATION:
            return st.builds(Compare, field, ORDER, durations)
        case Kind.INT:
            return st.builds(Compare, field, ORDER, numbers)
        case Kind.STATUS:
            words = st.sampled_from(STATUSES).map(lambda word: Literal(Kind.STATUS, word))
            return st.builds(Compare, field, EQUAL, words)
        case _:
            words = st.sampled_from(KINDS).map(lambda word: Literal(Kind.SPAN_KIND, word))
            return st.builds(Compare, field, EQUAL, words)


comparisons: st.SearchStrategy[Condition] = st.one_of(
    *(of_kind(kind) for kind in sorted(set(TYPES.values()))),
    st.builds(Compare, attributes, ORDER, strings | numbers | durations),
    st.builds(Compare, attributes, EQUAL, booleans),
    st.builds(Compare, fields, EQUAL, nothing),
    st.builds(Compare, attributes, REGEX, patterns),
)


def flat(form: type[All | Any], parts: list[Condition]) -> Condition:
    """A group as the parsers make it: no group of one form directly in another of it."""
    opened: list[Condition] = []
    for part in parts:
        opened.extend(part.conditions if isinstance(part, form) else (part,))
    return form(tuple(opened))


conditions: st.SearchStrategy[Condition] = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: flat(All, parts)),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: flat(Any, parts)),
    ),
    max_leaves=12,
)
TRUE = Compare(Field(Scope.INTRINSIC, "span:id"), "!=", Literal(Kind.NIL, None))
spansets: st.SearchStrategy[Spansets] = st.recursive(
    st.just(AllSpans()) | conditions.filter(lambda condition: condition != TRUE).map(Filter),
    lambda inner: st.builds(Relation, st.sampled_from(["&&", "||", ">", ">>", "<", "<<", "~"]), inner, inner),
    max_leaves=6,
)
functions = st.sampled_from(["avg", "min", "max", "sum"])
lengths = st.sampled_from([name for name in TYPES if TYPES[name] is Kind.DURATION]).map(
    lambda name: Field(Scope.INTRINSIC, name)
)
stages: st.SearchStrategy[Stage] = st.one_of(
    st.builds(Aggregate, st.just("count"), st.none(), ORDER, numbers),
    st.builds(Aggregate, functions, attributes, ORDER, numbers | durations),
    st.builds(Aggregate, functions, lengths, ORDER, durations),
    st.builds(Select, st.lists(fields, min_size=1, max_size=4).map(tuple)),
    st.builds(By, fields),
)
queries = st.builds(Query, spansets, st.lists(stages, max_size=3).map(tuple))

# Text that is nearly a query, so that the faults of it lie deeper than the first token.
WORDS = """
{ } ( ) && || ! = != =~ < >= | ~ >> , . - + & 1 50ms 1.5e3 true nil error server name duration span.x .a
"b" `c` 'd' 'e*' " \\ AND or NOT service status node_id count() by( select( avg( nestedSetParent // /* */
span: span:id parent. rate() é
"""
PIECES = [*WORDS.split(), "\n", "\0", "\ud800"]
nearly = st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join) | st.lists(
    st.sampled_from(PIECES), max_size=12
).map("".join)


def outcome(read: Callable[[str], Query], text: str) -> tuple[Query | None, QueryError | None]:
    try:
        return read(text), None
    except QueryError as error:
        return None, error


@given(queries)
def test_a_query_reads_back_from_its_text(query: Query) -> None:
    text = to_traceql(query)

    assert repr(parse(text)) == repr(query)


@given(fields)
def test_a_field_reads_back_from_its_text(field: Field) -> None:
    assert parse_field(field_text(field)) == field


@settings(max_examples=150)
@given(nearly | st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
def test_any_text_is_a_query_or_a_query_error_that_points_into_it(text: str) -> None:
    for read in (parse, parse_traceql, parse_seed):
        query, fault = outcome(read, text)
        if fault is None:
            assert query is not None
            assert parse(to_traceql(query)) == query
        else:
            assert fault.text == text
            assert fault.column in range(1, len(text) + 2)
            assert len(fault.pointer(40).splitlines()) == 2


@given(st.text(st.characters(codec="utf-8", exclude_characters="*?"), max_size=20))
def test_a_string_of_the_seed_is_the_string_of_traceql(value: str) -> None:
    literal = to_traceql(Query(Filter(Compare(Field(Scope.SPAN, "x"), "=", Literal(Kind.STRING, value)))))
    written = literal.removeprefix("{ span.x = ").removesuffix(" }")

    assert parse_seed(f"x={written}") == parse_traceql(f"{{ span.x = {written} }}")
