"""A query that is still being written narrows by what of it can be read."""

from __future__ import annotations

import pytest

from mapek_runtime.store.query import parse_unfinished, to_traceql


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ('{ span.a = "x" && resource.b = }', '{ span.a = "x" }'),
        ('{ resource.b = && span.a = "x" && name', '{ span.a = "x" }'),
        ("{ .a = 1 && .b = 2 && }", "{ .a = 1 && .b = 2 }"),
        ("{ span.a = }", "{ }"),
        ("{ .a = 1 || .b = }", "{ }"),
        ("{ !(.a = 1 && .b = ) }", "{ }"),
        ('{ .a = "x', "{ }"),
        ("{ .a = 1 }", "{ .a = 1 }"),
        ("a=1 AND", "{ }"),
        ("", "{ }"),
        ("{ .a = 1 && } > { .b = 2 }", "{ .a = 1 }"),
    ],
)
def test_what_stands_complete_narrows(text: str, canonical: str) -> None:
    assert to_traceql(parse_unfinished(text)) == canonical
