"""`OTEL_*` variables: the first that is set wins, and a wrong one warns and is ignored."""

from __future__ import annotations

import pytest

from mapek_runtime.export.environment import read_headers, read_number, read_text


@pytest.mark.parametrize(
    ("text", "expected", "warned"),
    [
        ("12", 12, False),
        (" 1.5 ", 1.5, False),
        ("", 7, False),
        ("0", 7, True),
        ("-3", 7, True),
        ("nan", 7, True),
        ("inf", 7, True),
        ("many", 7, True),
    ],
)
def test_a_number(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
    expected: float,
    warned: bool,
) -> None:
    monkeypatch.setenv("OTEL_TEST", text)

    assert read_number("OTEL_TEST", default=7) == expected
    assert ("OTEL_TEST" in caplog.text) is warned


def test_a_whole_number_has_no_fraction(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TEST", "1.5")

    assert read_number("OTEL_TEST", default=7, whole=True) == 7
    assert "whole number" in caplog.text


def test_the_first_variable_that_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPECIAL", " ")
    monkeypatch.setenv("OTEL_GENERAL", "general")
    assert read_text("OTEL_SPECIAL", "OTEL_GENERAL") == "general"

    monkeypatch.setenv("OTEL_SPECIAL", "special")
    assert read_text("OTEL_SPECIAL", "OTEL_GENERAL") == "special"
    assert read_text("OTEL_NOBODY_SETS_THIS") is None


def test_headers_are_decoded_and_broken_ones_left_out_unseen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TEST", "Api-Key=a%20b%3D, x = y=z ,hunter2,,bad=%0d%0ahunter3")

    assert read_headers("OTEL_TEST") == {"api-key": "a b=", "x": "y=z"}
    assert "entry 3" in caplog.text
    assert "entry 5" in caplog.text
    assert "hunter" not in caplog.text
