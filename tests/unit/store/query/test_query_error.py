"""What a wrong query looks like in a terminal."""

from __future__ import annotations

import pickle

from mapek_runtime.errors import QueryError


def test_the_caret_stands_below_the_column() -> None:
    error = QueryError("found 'nme'", text="{ nme = 1 }", column=3)

    assert str(error) == "column 3: found 'nme'"
    assert error.pointer() == "{ nme = 1 }\n  ^"


def test_only_the_line_of_the_column_is_shown() -> None:
    error = QueryError("wrong", text="{ .a = 1\n&& nme = 1\n}", column=13)

    assert error.pointer() == "&& nme = 1\n   ^"


def test_a_long_query_is_cut_around_the_column() -> None:
    error = QueryError("wrong", text="a" * 500 + "X" + "b" * 500, column=501)

    line, caret = error.pointer(40).splitlines()

    assert len(line) == 40
    assert line[0] == line[-1] == "…"
    assert line[caret.index("^")] == "X"


def test_a_column_past_the_end_points_behind_the_text() -> None:
    assert QueryError("ends", text="{ .a", column=5).pointer() == "{ .a\n    ^"


def test_wide_and_unprintable_characters_keep_the_caret_in_place() -> None:
    error = QueryError("wrong", text="{ 名\x1b[31m X", column=10)

    assert error.pointer() == "{ 名 [31m X\n          ^"


def test_an_error_of_no_place_points_nowhere() -> None:
    error = QueryError("too much")

    assert (str(error), error.text, error.column, error.pointer()) == ("too much", None, None, "")


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(QueryError("wrong", text="abc", column=2)))

    assert (str(error), error.text, error.column) == ("column 2: wrong", "abc", 2)
