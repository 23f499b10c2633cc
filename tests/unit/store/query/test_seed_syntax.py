"""The seed's syntax: what each form means, and what is said about each mistake."""

from __future__ import annotations

import pytest

from mapek_runtime.errors import QueryError
from mapek_runtime.store.query import parse, parse_seed, parse_traceql, to_traceql

# The queries of the span catalogue's chapter on queries, with what they are in TraceQL.
CATALOGUE = [
    (
        'service="x0tta6bl4" AND span.kind="INTERNAL" AND name="mape_k.*"',
        '{ (resource.service.name = "x0tta6bl4" && kind = internal) && name =~ "mape_k\\\\..*" }',
    ),
    (
        'service="x0tta6bl4" AND name="spiffe.mtls_handshake" AND duration >= 50ms',
        '{ (resource.service.name = "x0tta6bl4" && name = "spiffe.mtls_handshake") && duration >= 50ms }',
    ),
    (
        'service="x0tta6bl4" AND name="dao.proposal_execute" AND success=false',
        '{ (resource.service.name = "x0tta6bl4" && name = "dao.proposal_execute") && span.success = false }',
    ),
    (
        'service="x0tta6bl4" AND name="ml.inference" AND latency_ms >= 100',
        '{ (resource.service.name = "x0tta6bl4" && name = "ml.inference") && span.latency_ms >= 100 }',
    ),
    (
        'service="x0tta6bl4" AND name="mape_k.monitor" AND node_id="node-1"',
        '{ (resource.service.name = "x0tta6bl4" && name = "mape_k.monitor") && span.node_id = "node-1" }',
    ),
    ('NOT (node_id="n1" OR confidence < 0.5)', '{ !((span.node_id = "n1" || span.confidence < 0.5)) }'),
]


@pytest.mark.parametrize(("seed", "traceql"), CATALOGUE, ids=[str(n) for n in range(1, 7)])
def test_a_query_of_the_catalogue_is_its_traceql(seed: str, traceql: str) -> None:
    query = parse(seed)

    assert query == parse_traceql(traceql)
    assert parse_traceql(to_traceql(query)) == query


@pytest.mark.parametrize(
    ("seed", "canonical"),
    [
        ("", "{ }"),
        (" \n", "{ }"),
        ("a=1 OR b=2 AND c=3", "{ span.a = 1 || (span.b = 2 && span.c = 3) }"),
        ("(a=1 OR b=2) AND c=3", "{ (span.a = 1 || span.b = 2) && span.c = 3 }"),
        ("NOT a=1 AND b=2", "{ !(span.a = 1) && span.b = 2 }"),
        ("not a=1 or NoT not b=2", "{ !(span.a = 1) || !(!(span.b = 2)) }"),
        ("name='it\\'s'", '{ name = "it\'s" }'),
        ('name="say \\"hi\\""', '{ name = "say \\"hi\\"" }'),
        ('name="a?c"', '{ name =~ "a.c" }'),
        ('name!="a*"', '{ name !~ "a.*" }'),
        ('name="a\\*b"', '{ name = "a*b" }'),
        ('name="(a)\\*b*"', '{ name =~ "\\\\(a\\\\)\\\\*b.*" }'),
        ('name=~"a.*"', '{ name =~ "a.*" }'),
        ('name>"a*"', '{ name > "a*" }'),
        ("status=ERROR", "{ status = error }"),
        ('status!="Unset"', "{ status != unset }"),
        ('span.kind="client"', "{ kind = client }"),
        ('kind="x"', '{ span.kind = "x" }'),
        ("x=TRUE", "{ span.x = true }"),
        ("x=-1.5", "{ span.x = -1.5 }"),
        ("x<1e3", "{ span.x < 1000.0 }"),
        ("x=nil", "{ span.x = nil }"),
        ("duration<1m30s", "{ duration < 90s }"),
        ("duration > 0", "{ duration > 0s }"),
        ('resource.host.name="h"', '{ resource.host.name = "h" }'),
        ('.zone="a"', '{ .zone = "a" }'),
        ('event.kind="x"', '{ event.kind = "x" }'),
        ('trace:rootName="x"', '{ trace:rootName = "x" }'),
        ("http.status-code=200", "{ span.http.status-code = 200 }"),
    ],
)
def test_a_form_means_its_traceql(seed: str, canonical: str) -> None:
    assert to_traceql(parse_seed(seed)) == canonical


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("a=", 3, "expected a value"),
        ("a", 1, "a=true"),
        ("a=1 AND", 8, "the query ends here"),
        ("a=1 ADN b=2", 5, "did you mean 'AND'?"),
        ("a=1 && b=2", 5, "write AND"),
        ("a=1 || b=2", 5, "write OR"),
        ("!a=1", 1, "write NOT"),
        ("a==1", 2, "write ="),
        ("a<>1", 2, "write !="),
        ("(a=1", 5, "for the ( at column 1"),
        ("a=1)", 4, "expected AND, OR or the end"),
        ("a=abc", 3, 'a text stands in quotes, "abc"'),
        ('a="abc', 3, "wants a closing"),
        ('a="\\d"', 4, "\\\\d of a regular expression"),
        ('name=~"a\\*"', 7, "written twice"),
        ('name=~"["', 7, "regular expression"),
        ("name=1", 6, "a text in quotes"),
        ("service=1", 9, "a name in quotes"),
        ("status=eror", 8, "did you mean 'error'?"),
        ("status>error", 7, "no order"),
        ("duration>=50", 11, "as in 50ms"),
        ("duration>=50mz", 11, "units are ns, us, ms"),
        ("x=99999999999999999999", 3, "64 bits"),
        ("x=1e999", 3, "larger than a float"),
        ("x=" + "9" * 5000, 3, "at most 40"),
        ("duration=9999999h", 10, "292 years"),
        ("trace:nme=1", 1, "did you mean"),
        ("span.=1", 1, "name of an attribute"),
        ("count() > 2", 6, "{ … } | count() > 2"),
        ("x=`a`", 3, "means nothing"),
        ('x="\\ud800"', 4, "no character of Unicode"),
        ('x="\ud800"', 4, "half a character"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)

    assert caught.value.column == column
    assert caught.value.text == text
    assert f"column {column}: " in str(caught.value)
    assert says in str(caught.value)
