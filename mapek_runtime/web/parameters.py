"""Reading the parameters of the query APIs: what Jaeger UI and Grafana write, as values.

Times and durations become nanoseconds, ids lower-case hexadecimal. What cannot be read is a `QueryError`
that names the parameter as it was written. Knows neither the store nor HTTP.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import msgspec

from mapek_runtime.errors import QueryError

__all__ = [
    "HOUR",
    "MICROSECOND",
    "MILLISECOND",
    "MOST_TRACES",
    "SECOND",
    "Parameters",
    "go_duration",
    "rfc3339",
    "trace_id_of",
    "unix_time",
]

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND

MOST_TRACES = 1_500
"""Traces of one answer: the most that Jaeger UI lets its user ask for."""

_LATEST = (1 << 63) - 1
"""Nanoseconds since 1970 as the store's columns hold them."""
_MOST_TEXT = 64
"""How much of a wrong value is said again."""
_MOST_TAGS = 64

_UNITS = {
    "ns": 1, "us": MICROSECOND, "µs": MICROSECOND, "μs": MICROSECOND,
    "ms": MILLISECOND, "s": SECOND, "m": 60 * SECOND, "h": HOUR,
}  # fmt: skip
_TERM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"[+-]?(?:{_TERM.pattern})+", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,30}))?(?:[Zz]|([+\- ])(\d\d):(\d\d))",
    re.ASCII,
)
_HEX = re.compile(r"[0-9a-fA-F]{1,32}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{22}(?:==)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class _Query(Protocol):
    """The part of a URL after `?`: each name with one value or more."""

    def get(self, key: str, default: str, /) -> str: ...

    def getall(self, key: str, default: list[str], /) -> list[str]: ...


class Parameters:
    """The parameters of one request. An empty one counts as not given.

    Where an API has had two names for one parameter, both are given, today's first.
    """

    def __init__(self, query: _Query) -> None:
        self._query = query

    def text(self, *names: str) -> str:
        """The first that is there, or nothing."""
        return self._first(names)[1]

    def every(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return [value for value in self._query.getall(name, []) if value]

    def moment(self, *names: str) -> int | None:
        """A time of RFC 3339, with up to nine digits of a second."""
        return self._read(names, rfc3339)

    def unix(self, name: str, unit: int) -> int | None:
        """A time since 1970 in units of `unit` nanoseconds."""
        return self._read((name,), lambda text: unix_time(text, unit))

    def duration(self, *names: str) -> int | None:
        """A duration as Go writes it, such as 50ms or 1m30s."""
        return self._read(names, go_duration)

    def units(self, name: str, unit: int, default: int) -> int:
        """A whole number of `unit` nanoseconds, more than 0."""
        name_, value = self._first((name,))
        if not value:
            return default
        number = _whole(value)
        if number is None or not 0 < number * unit <= _LATEST:
            raise _malformed(name_, value, f"write a whole number from 1 to {_LATEST // unit}")
        return number * unit

    def flag(self, *names: str) -> bool:
        """Yes or no, as Go's strconv.ParseBool reads it; no when it is not there."""
        return bool(self._read(names, _flag))

    def share(self, name: str) -> float | None:
        """A number from 0 to 1."""
        return self._read((name,), _share)

    def limit(self, *names: str, default: int, most: int = MOST_TRACES) -> int:
        """How many to answer at most: at least 1; more than `most` counts as `most`.

        Not an error above that: the editors of Grafana take any number, and an answer with fewer than
        the limit is a right one in both APIs, while a 400 empties the panel.
        """
        name, value = self._first(names)
        if not value:
            return default
        number = _whole(value)
        if number is None or number < 1:
            raise _malformed(name, value, "write a whole number of at least 1")
        return min(number, most)

    def attributes(self, name: str) -> dict[str, str]:
        """A JSON object whose values are strings; numbers and booleans are taken as they are written."""
        value = self.text(name)
        if not value:
            return {}
        try:
            found: object = msgspec.json.decode(value.encode("utf-8", "surrogatepass"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if isinstance(found, Mapping) and len(found) <= _MOST_TAGS:
            texts = {str(key): _tag_text(each) for key, each in found.items()}
            if None not in texts.values():
                return {key: text for key, text in texts.items() if text is not None}
        raise _malformed(
            name, value, f'write a JSON object of at most {_MOST_TAGS} strings, such as {{"success":"false"}}'
        )

    def tags(self, name: str) -> dict[str, str]:
        """Every `name=key:value`; a value may hold colons."""
        pairs: dict[str, str] = {}
        for value in self.every(name):
            key, colon, text = value.partition(":")
            if not colon or not key or len(pairs) >= _MOST_TAGS:
                raise _malformed(name, value, f"write key:value, at most {_MOST_TAGS} times")
            pairs[key] = text
        return pairs

    def span(
        self, first: tuple[str, ...], last: tuple[str, ...], unit: int = 0
    ) -> tuple[int | None, int | None]:
        """From when to when: moments of RFC 3339, or with `unit` numbers; both may be left out."""
        if unit:
            start, end = self.unix(first[0], unit), self.unix(last[0], unit)
        else:
            start, end = self.moment(*first), self.moment(*last)
        if start is not None and end is not None and start >= end:
            raise QueryError(
                f"{first[0]} must be before {last[0]}; "
                f"they are {self.text(*first)!r:.{_MOST_TEXT}} and {self.text(*last)!r:.{_MOST_TEXT}}"
            )
        return start, end

    def durations(self, shortest: tuple[str, ...], longest: tuple[str, ...]) -> tuple[int | None, int | None]:
        """The shortest and the longest duration to look for; both may be left out."""
        low, high = self.duration(*shortest), self.duration(*longest)
        if low is not None and high is not None and low > high:
            raise QueryError(
                f"{longest[0]} must not be less than {shortest[0]}; "
                f"they are {self.text(*longest)!r:.{_MOST_TEXT}} and {self.text(*shortest)!r:.{_MOST_TEXT}}"
            )
        return low, high

    def _first(self, names: tuple[str, ...]) -> tuple[str, str]:
        for name in names:
            value = self._query.get(name, "")
            if value:
                return name, value
        return names[0], ""

    def _read(self, names: tuple[str, ...], read: _Read[Value]) -> Value | None:
        name, value = self._first(names)
        if not value:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise _malformed(name, value, str(error)) from None


Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)


class _Read(Protocol[Value_co]):
    def __call__(self, text: str, /) -> Value_co: ...


def go_duration(text: str) -> int:
    """A duration as Go writes it, in nanoseconds, none below 0. Raises ValueError."""
    if text in ("0", "+0", "-0"):
        return 0
    if len(text) > _MOST_TEXT or not _DURATION.fullmatch(text):
        raise ValueError("write a duration such as 50ms, 1.5s or 1m30s")
    total = sum(_exact(number, _UNITS[unit]) for number, unit in _TERM.findall(text))
    if total > _LATEST or (text.startswith("-") and total):
        raise ValueError("write a duration from 0 to 292 years")
    return total


def rfc3339(text: str) -> int:
    """A time of RFC 3339 in nanoseconds since 1970. Raises ValueError.

    Grafana leaves the `+` of a zone unencoded, and so it arrives as a space.
    """
    found = _MOMENT.fullmatch(text)
    wrong = "write a time of RFC 3339 from 1970 to 2262, such as 2026-08-01T12:00:00.5Z"
    if not found:
        raise ValueError(wrong)
    *parts, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime(*map(int, parts), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        raise ValueError(wrong) from None
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    if sign:
        if int(hours) > 24 or int(minutes) > 59:
            raise ValueError(wrong)
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    nanoseconds = seconds * SECOND + int((fraction or "").ljust(9, "0")[:9])
    if not 0 <= nanoseconds <= _LATEST:
        raise ValueError(wrong)
    return nanoseconds


def unix_time(text: str, unit: int) -> int:
    """A time since 1970, counted in `unit` nanoseconds, in nanoseconds. Raises ValueError."""
    number = _whole(text)
    if number is None or not 0 <= number * unit <= _LATEST:
        raise ValueError(f"write a whole number from 0 to {_LATEST // unit}")
    return number * unit


def trace_id_of(text: str) -> str:
    """A trace id of 1 to 32 hexadecimal digits or of 16 bytes in base64, as 32 digits. Raises QueryError."""
    if _HEX.fullmatch(text):
        return text.lower().rjust(32, "0")
    if _BASE64.fullmatch(text):
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(f"{plain}==", validate=True).hex()
        except binascii.Error:
            pass
    raise _malformed("trace_id", text, "write 1 to 32 hexadecimal digits, or 16 bytes in base64")


def _malformed(name: str, value: str, right: str) -> QueryError:
    shown = value if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]}…"
    return QueryError(f"malformed parameter {name}: {shown!r}; {right}")


def _exact(number: str, unit: int) -> int:
    """A decimal fraction times `unit`, without the error of a float."""
    whole, _, fraction = number.partition(".")
    return int(whole or 0) * unit + int(fraction or 0) * unit // int("1" + "0" * len(fraction))


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _flag(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("write true or false")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError("write a number from 0 to 1, such as 0.95")
    return share


def _tag_text(value: object) -> str | None:
    """How a tag's value is written as a string; None for what is no single value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None
