"""Values in a query: reading strings, numbers and durations, and writing them again."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from .source import Source, shown
from .syntax import Kind, Literal

__all__ = ["literal_text", "quote", "read_glob", "read_number", "read_string"]

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
    "y": 365 * 86_400 * 10**9,
}
_WRITTEN = [
    ("h", _UNITS["h"]),
    ("m", _UNITS["m"]),
    ("s", _UNITS["s"]),
    ("ms", 10**6),
    ("us", 1000),
    ("ns", 1),
]
_MOST = 2**63 - 1
_LONGEST = 40
"""Characters of a number: no value that fits in 64 bits needs more."""

# Possessive, so that nothing is ever read twice.
_DIGITS = r"[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++"
_NUMBER = re.compile(rf"(?:{_DIGITS})(?:[eE][+-]?+[0-9]++)?+")
_PART = re.compile(rf"({_DIGITS})([^\W\d_]++)")
_TAIL = re.compile(r"[\w.]*+")

_PLAIN = {quote: re.compile(rf"[^{quote}\\\n]++") for quote in "\"'"}
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}
_CODED = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]++")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_OUT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def read_string(source: Source, at: int) -> tuple[str, int]:
    """The string that begins at `at`, and where it ends."""
    if source.text[at] == "`":
        end = source.text.find("`", at + 1)
        if end < 0:
            raise source.error(at, "this string has no end; it wants a closing `")
        return source.text[at + 1 : end], end + 1
    pieces, end = _pieces(source, at, "")
    return "".join(piece for piece, _ in pieces), end


def read_glob(source: Source, at: int) -> tuple[str, str | None, int]:
    r"""The string that begins at `at`, the regular expression when it is a glob, and where it ends.

    `*` stands for any characters and `?` for one; `\*` and `\?` are these characters.
    """
    pieces, end = _pieces(source, at, "*?")
    value = "".join(piece for piece, _ in pieces)
    if not any(not escaped and ("*" in piece or "?" in piece) for piece, escaped in pieces):
        return value, None, end
    return value, "".join(_as_regex(piece, escaped) for piece, escaped in pieces), end


def _as_regex(piece: str, escaped: bool) -> str:
    plain = _SPECIAL.sub(r"\\\g<0>", piece)
    return plain if escaped else plain.replace(r"\*", ".*").replace(r"\?", ".")


def _pieces(source: Source, at: int, escapable: str) -> tuple[list[tuple[str, bool]], int]:
    """The parts of a quoted string, each with whether it was escaped, and where the string ends."""
    text, mark = source.text, source.text[at]
    pieces: list[tuple[str, bool]] = []
    plain, place = _PLAIN[mark], at + 1
    while (found := text[place : place + 1]) != mark:
        run = plain.match(text, place)
        if run:
            pieces.append((run[0], False))
            place = run.end()
        elif found != "\\":
            raise source.error(at, f"this string has no end on its line; it wants a closing {mark}")
        elif text[place + 1 : place + 2] and text[place + 1] in escapable:
            pieces.append((text[place + 1], True))
            place += 2
        else:
            character, place = _escape(source, place, mark)
            pieces.append((character, True))
    return pieces, place + 1


def _escape(source: Source, at: int, mark: str) -> tuple[str, int]:
    """The character that the escape at `at` stands for, and where it ends."""
    text = source.text
    letter = text[at + 1 : at + 2]
    if letter == mark or letter in _SIMPLE:
        return _SIMPLE.get(letter, letter), at + 2
    if letter in _CODED and letter:
        digits = text[at + 2 : at + 2 + _CODED[letter]]
        if len(digits) == _CODED[letter] and _HEX.fullmatch(digits):
            code = int(digits, 16)
            if letter == "x" and code > 0x7F:
                raise source.error(at, f"\\x{digits} is a byte and no character; write \\u00{digits}")
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise source.error(at, f"\\{letter}{digits} is no character of Unicode")
            return chr(code), at + 2 + len(digits)
        raise source.error(at, f"\\{letter} wants {_CODED[letter]} hexadecimal digits")
    if not letter:
        raise source.error(at, "the string ends after a backslash; it wants a closing quote")
    raise source.error(
        at, f"\\{letter} is no escape; for a backslash write \\\\, as in \\\\{letter} of a regular expression"
    )


def read_number(source: Source, at: int) -> tuple[Literal, int]:
    """The number or duration that begins at `at`, with its sign, and where it ends."""
    text = source.text
    negative = text[at] == "-"
    number = _NUMBER.match(text, at + negative)
    if number is None:
        raise source.error(at, "a sign without a number")
    end = _TAIL.match(text, number.end())
    stop = end.end() if end else number.end()
    if stop - at > _LONGEST:
        raise source.error(at, f"a number of {stop - at} characters; at most {_LONGEST} are allowed")
    if stop > number.end():
        return _duration(source, at, stop), stop
    written = text[at:stop]
    if number[0].isdigit():
        whole = int(written)
        if not -_MOST - 1 <= whole <= _MOST:
            raise source.error(
                at, f"{written} does not fit in 64 bits; with a point, {written}.0, it is a float"
            )
        return Literal(Kind.INT, whole), stop
    value = float(written)
    if math.isinf(value):
        raise source.error(at, f"{written} is larger than a float can be")
    return Literal(Kind.FLOAT, value), stop


def _duration(source: Source, at: int, stop: int) -> Literal:
    text = source.text
    negative = text[at] == "-"
    total, place = Fraction(0), at + negative
    while place < stop:
        part = _PART.match(text, place, stop)
        if part is None or part[2] not in _UNITS:
            units = ", ".join(unit for unit in _UNITS if unit.isascii())
            wrong = shown(text[at:stop])
            raise source.error(
                at, f"{wrong} is neither a number nor a duration; units are {units}, as in 1m30s"
            )
        total += Fraction(part[1].removesuffix(".")) * _UNITS[part[2]]
        place = part.end()
    nanoseconds = -int(total) if negative else int(total)
    if not -_MOST - 1 <= nanoseconds <= _MOST:
        raise source.error(at, f"{text[at:stop]} is longer than 64 bits of nanoseconds hold, about 292 years")
    return Literal(Kind.DURATION, nanoseconds)


def quote(text: str) -> str:
    """The text as a string of TraceQL."""
    return '"' + "".join(_OUT.get(c) or (c if c.isprintable() else _coded(c)) for c in text) + '"'


def _coded(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def literal_text(literal: Literal) -> str:
    """The value as TraceQL writes it."""
    kind, value = literal.kind, literal.value
    if kind is Kind.NIL:
        return "nil"
    if kind is Kind.BOOL:
        return "true" if value else "false"
    if kind is Kind.DURATION:
        assert isinstance(value, int)
        unit, size = next(((unit, size) for unit, size in _WRITTEN if value % size == 0))
        return f"{value // size}{unit}" if value else "0s"
    if kind is Kind.STRING:
        return quote(str(value))
    return repr(value) if kind is Kind.FLOAT else str(value)
