"""Tempo's search of before TraceQL."""

from __future__ import annotations

from contextlib import suppress

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.errors import QueryError
from mapek_runtime.store.query.syntax import Any, Compare, Filter
from mapek_runtime.web.tempo_legacy import logfmt, tags_query
from mapek_runtime.web.tempo_tags import field_of, what_is_complete


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        ('a=b  service.name="two words" alone', {"a": "b", "service.name": "two words", "alone": ""}),
        (r'a="say \"hi\"\n"', {"a": 'say "hi"\n'}),
        ("a=http://x?y=z", {"a": "http://x?y=z"}),
        ('a=""', {"a": ""}),
    ],
)
def test_logfmt_is_read(text: str, pairs: dict[str, str]) -> None:
    assert logfmt(text) == pairs


@pytest.mark.parametrize("text", ["=b", 'a="b', "a=b a=c", 'a"b"', " ".join(f"k{n}=v" for n in range(65))])
def test_what_is_no_logfmt_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="invalid tags"):
        logfmt(text)


@given(st.text(min_size=1, max_size=30).filter(lambda text: not set('"\\') & set(text)))
def test_a_value_is_looked_for_as_it_is_and_not_as_a_pattern(value: str) -> None:
    query = tags_query(f'key="{value}"', None, None)

    assert isinstance(query.spansets, Filter)
    condition = query.spansets.condition
    compare = condition.conditions[0] if isinstance(condition, Any) else condition
    assert isinstance(compare, Compare)
    pattern = re2.compile(compare.literal.value)
    assert pattern.fullmatch(f"before {value} after")
    assert not pattern.fullmatch("\x01" * 40) or set(value) == {"\x01"}


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for read in (logfmt, field_of):
        with suppress(QueryError):
            read(text)
    # A query that is being written is never refused.
    what_is_complete(text)
    what_is_complete(f"{{ {text}")
