"""What Jaeger UI and Grafana write as parameters, and what is made of it."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from mapek_runtime.errors import QueryError
from mapek_runtime.web.parameters import (
    MICROSECOND,
    MILLISECOND,
    MOST_TRACES,
    SECOND,
    Parameters,
    go_duration,
    rfc3339,
    trace_id_of,
    unix_time,
)

NOON = 1_785_585_600 * SECOND
"""2026-08-01T12:00:00Z."""


def asked(*pairs: tuple[str, str]) -> Parameters:
    return Parameters(MultiDict(pairs))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("50ms", 50_000_000),
        ("1.5s", 1_500_000_000),
        ("1m30s", 90 * SECOND),
        ("1h", 3600 * SECOND),
        ("2us", 2_000),
        ("2µs", 2_000),
        ("2μs", 2_000),
        (".5s", 500_000_000),
        ("1.s", SECOND),
        ("0", 0),
        ("+1ns", 1),
        ("-0s", 0),
        ("0.1ns", 0),
        ("1.000000001s", 1_000_000_001),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, nanoseconds: int) -> None:
    assert go_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "50", "ms", "50 ms", "1d", "-1s", "1e3s", "3000000h", ".s", "٣s", "s1", "1s" * 40]
)
def test_what_go_does_not_call_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration"):
        go_duration(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-08-01T12:00:00Z", NOON),
        ("2026-08-01T12:00:00.5Z", NOON + SECOND // 2),
        ("2026-08-01T12:00:00.123456789Z", NOON + 123_456_789),
        ("2026-08-01T15:00:00+03:00", NOON),
        ("2026-08-01T08:30:00.000-03:30", NOON),
        ("2026-08-01t12:00:00z", NOON),
        ("1970-01-01T00:00:00Z", 0),
        ("2026-08-01T12:00:00.1234567899Z", NOON + 123_456_789),
    ],
)
def test_a_time_keeps_its_nanoseconds_and_loses_its_zone(text: str, nanoseconds: int) -> None:
    assert rfc3339(text) == nanoseconds


def test_the_plus_of_a_zone_may_arrive_as_a_space() -> None:
    assert rfc3339("2026-08-01T15:00:00 03:00") == NOON


@pytest.mark.parametrize(
    "text",
    [
        "2026-08-01", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-08-01T12:00:00", "yesterday",
        "1969-12-31T23:59:59Z", "2263-01-01T00:00:00Z", "2026-08-01T12:00:60Z", "2026-08-01T12:00:00+99:00",
        "2026-08-01T12:00:00+03:75", "1970-01-01T00:00:00+03:00", "٢٠٢٦-08-01T12:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_of_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        rfc3339(text)


@given(st.integers(0, 9_223_372_035), st.integers(0, 999_999_999))
def test_every_time_is_read_back(seconds: int, nanoseconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)

    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"

    assert rfc3339(text) == seconds * SECOND + nanoseconds


def test_times_since_1970_are_in_the_unit_of_their_api() -> None:
    assert unix_time("1785585600000000", MICROSECOND) == NOON
    assert unix_time("1785585600000", MILLISECOND) == NOON
    assert unix_time("1785585600", SECOND) == NOON


@pytest.mark.parametrize("text", ["-1", "1.5", "9223372036854775808", "1_0", "", "9" * 5000])
def test_a_time_that_no_column_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a whole number from 0 to 9223372036$"):
        unix_time(text, SECOND)


@given(st.binary(min_size=16, max_size=16))
def test_a_trace_id_is_the_same_in_every_way_to_write_it(raw: bytes) -> None:
    standard, url = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()

    ways = {raw.hex(), raw.hex().upper(), standard, url}
    if set(standard) - set("0123456789abcdefABCDEF="):
        # Else it would be an id with fewer digits, which goes first, as it does in Jaeger.
        ways |= {standard.rstrip("="), url.rstrip("=")}

    assert {trace_id_of(way) for way in ways} == {raw.hex()}


def test_a_short_trace_id_has_zeros_in_front() -> None:
    assert trace_id_of("abc") == "abc".rjust(32, "0")


@pytest.mark.parametrize("text", ["", "xyz", "a" * 33, "AAAG", "=" * 24, "../../etc/passwd", "%%", "ä" * 22])
def test_a_wrong_trace_id_says_what_would_be_right(text: str) -> None:
    with pytest.raises(
        QueryError, match=r"malformed parameter trace_id: .*hexadecimal digits, or 16 bytes in base64"
    ):
        trace_id_of(text)


def test_a_wrong_value_is_shown_in_part_and_with_the_name_it_was_sent_under() -> None:
    parameters = asked(("query.duration_min", "x" * 10_000))

    with pytest.raises(
        QueryError, match=r"^malformed parameter query\.duration_min: 'x{64}…'; write a duration"
    ):
        parameters.duration("query.durationMin", "query.duration_min")


def test_the_name_of_today_goes_before_the_older_one() -> None:
    parameters = asked(("service_name", "old"), ("serviceName", "new"))

    assert parameters.text("serviceName", "service_name") == "new"
    assert asked(("service_name", "old")).text("serviceName", "service_name") == "old"
    assert asked(("serviceName", ""), ("service_name", "old")).text("serviceName", "service_name") == "old"


@pytest.mark.parametrize(
    ("text", "limit"), [("1", 1), ("20", 20), ("1501", MOST_TRACES), ("9" * 30, MOST_TRACES), ("", 100)]
)
def test_a_limit_that_is_too_high_counts_as_the_highest(text: str, limit: int) -> None:
    assert asked(("limit", text)).limit("limit", default=100) == limit


@pytest.mark.parametrize("text", ["0", "-1", "ten", "1.5", "1e3", "٣"])
def test_a_limit_below_one_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match=r"malformed parameter limit: .*at least 1"):
        asked(("limit", text)).limit("limit", default=100)


def test_tags_are_an_object_of_strings() -> None:
    parameters = asked(("tags", '{"success":"false","n":5,"on":true,"ratio":0.5}'))

    assert parameters.attributes("tags") == {"success": "false", "n": "5", "on": "true", "ratio": "0.5"}
    assert asked().attributes("tags") == {}


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '"a"', '{"a":{}}', '{"a":null}', '{"a":["b"]}', "[" * 5000, '{"a":"\ud800"}',
     "{" + ",".join(f'"k{n}":"v"' for n in range(65)) + "}"],
)  # fmt: skip
def test_tags_of_another_shape_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match=r"malformed parameter tags: .*JSON object"):
        asked(("tags", text)).attributes("tags")


def test_a_tag_may_hold_colons_in_its_value() -> None:
    assert asked(("tag", "url:http://a:1"), ("tag", "b:")).tags("tag") == {"url": "http://a:1", "b": ""}


@pytest.mark.parametrize("text", ["novalue", ":value"])
def test_a_tag_without_key_or_colon_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match=r"malformed parameter tag: .*key:value"):
        asked(("tag", text)).tags("tag")


def test_a_time_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(QueryError, match="start must be before end"):
        asked(("start", "5"), ("end", "5")).span(("start",), ("end",), SECOND)
    with pytest.raises(QueryError, match="maxDuration must not be less than minDuration"):
        asked(("minDuration", "2s"), ("maxDuration", "1s")).durations(("minDuration",), ("maxDuration",))


def test_times_may_be_left_out_one_by_one() -> None:
    assert asked().span(("start",), ("end",), SECOND) == (None, None)
    assert asked(("end", "7")).span(("start",), ("end",), SECOND) == (None, 7 * SECOND)


@pytest.mark.parametrize(("text", "flag"), [("", False), ("1", True), ("True", True), ("f", False)])
def test_a_flag_is_read_as_go_reads_it(text: str, flag: bool) -> None:
    assert asked(("raw", text)).flag("raw") is flag


def test_other_flags_shares_and_units_are_refused() -> None:
    parameters = asked(("raw", "yes"), ("quantile", "nan"), ("step", "0"))

    with pytest.raises(QueryError, match="malformed parameter raw"):
        parameters.flag("raw")
    with pytest.raises(QueryError, match="malformed parameter quantile"):
        parameters.share("quantile")
    with pytest.raises(QueryError, match="malformed parameter step"):
        parameters.units("step", MILLISECOND, 1)


@given(st.text(max_size=80))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    parameters = asked(("p", text))
    for read in (
        lambda: parameters.moment("p"),
        lambda: parameters.unix("p", SECOND),
        lambda: parameters.duration("p"),
        lambda: parameters.units("p", MILLISECOND, 1),
        lambda: parameters.flag("p"),
        lambda: parameters.share("p"),
        lambda: parameters.limit("p", default=1),
        lambda: parameters.attributes("p"),
        lambda: parameters.tags("p"),
        lambda: trace_id_of(text),
    ):
        with suppress(QueryError):
            read()
