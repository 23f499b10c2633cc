"""Log lines: one stream, with the ids of the span they were written in."""

from __future__ import annotations

import json
import logging
from typing import Literal

import pytest
import structlog
from opentelemetry.trace import format_span_id, format_trace_id

from mapek_runtime import TracerProvider
from mapek_runtime.config import LogSettings
from mapek_runtime.service.logs import logging_to_stderr


def test_lines_of_structlog_and_of_the_standard_library_carry_the_ids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")

    with logging_to_stderr(LogSettings(format="json")):
        with tracer.start_as_current_span("work") as span:
            structlog.get_logger("one").info("first", number=1)
            logging.getLogger("two").warning("second %s", "thing")
        structlog.get_logger("one").info("outside")

    first, second, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    context = span.get_span_context()
    for line in (first, second):
        assert line["trace_id"] == format_trace_id(context.trace_id)
        assert line["span_id"] == format_span_id(context.span_id)
    assert (first["event"], first["number"], first["level"]) == ("first", 1, "info")
    assert (second["event"], second["logger"]) == ("second thing", "two")
    assert "trace_id" not in outside


def test_an_exception_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr(LogSettings(format="json")):
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("x").exception("it failed")

    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError" in line
    assert json.loads(line)["event"] == "it failed"


@pytest.mark.parametrize("as_what", ["json", "console"])
def test_an_exception_shows_no_local_variable(
    as_what: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    def send(headers: dict[str, str]) -> None:
        raise ValueError(f"{len(headers)} header is wrong")

    secret = ("authorization", "Bearer hunter2")

    with logging_to_stderr(LogSettings(format=as_what)):
        try:
            send(dict([secret]))
        except ValueError:
            logging.getLogger("x").exception("it failed")

    err = capsys.readouterr().err
    assert "1 header is wrong" in err
    assert "hunter2" not in err


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr(LogSettings(level="warning", format="console")):
        structlog.get_logger("x").info("quiet")
        logging.getLogger("x").info("quiet")
        structlog.get_logger("x").warning("loud")

    err = capsys.readouterr().err
    assert "quiet" not in err
    assert "loud" in err


def test_afterwards_logging_is_as_before() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    with logging_to_stderr(LogSettings()):
        assert root.handlers != before[0]

    assert (root.handlers, root.level) == before
