"""OTLP as JSON, both ways: what other programs send, and what is downloaded.

The rules are protobuf's JSON mapping with the exceptions of OTLP (opentelemetry-proto,
docs/specification.md#json-protobuf-encoding): ids are hexadecimal, enumerations are numbers, keys are
lowerCamelCase only, and a key that is not known is ignored. So `resource_spans` is ignored too, as the
specification demands; because nothing of such a request is stored, that is said as a problem. Names of
enumerations are taken as well: many a program sends them.

The messages' own descriptors say which fields there are. Nesting is limited as protobuf's parser limits
it, so that both encodings hold the same.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import reprlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, TracesData

from .framing import Slice

__all__ = ["from_json", "pieces", "to_json"]

_DEEPEST: Final = 100
_SPAN_DEPTH: Final = 3
"""A span is inside a ScopeSpans, a ResourceSpans and a request."""
_LONGEST_PATH: Final = 200
_HEX: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_UNUSUAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SNAKE: Final = "{} is ignored: keys of OTLP JSON are lowerCamelCase ({})"

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 40

_NOTHING: Final = msgspec.Raw(b"null")

Write = Callable[[Any], Any]
Read = Callable[[Any, int], Any]


class _ScopeSpans(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = _NOTHING
    spans: list[msgspec.Raw] | None = None
    schema_url: str | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = _NOTHING
    scope_spans: list[_ScopeSpans] | None = None
    schema_url: str | None = None
    snake: msgspec.Raw = msgspec.field(default=_NOTHING, name="scope_spans")


class _Request(msgspec.Struct, rename="camel"):
    """The framing of a request: resources, scopes and spans are left as they are."""

    resource_spans: list[_ResourceSpans] | None = None
    snake: msgspec.Raw = msgspec.field(default=_NOTHING, name="resource_spans")


class _Unfit(ValueError):
    """A value that its field cannot hold; the path to it grows on the way up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.path)).removeprefix(".")
        if len(path) > _LONGEST_PATH:
            path = f"{path[: _LONGEST_PATH // 2]}...{path[-_LONGEST_PATH // 2 :]}"
        return f"{path or 'the body'} {self.args[0]}"


class _Field(NamedTuple):
    name: str
    repeated: bool
    inner: bool
    """Holds messages."""
    read: Read


def to_json(data: bytes) -> dict[str, Any]:
    """Give TracesData, or an ExportTraceServiceRequest, as an object for any JSON encoder."""
    return _written(TracesData.FromString(data))


def from_json(text: bytes) -> tuple[ExportTraceServiceRequest, list[str]]:
    """Read an ExportTraceServiceRequest, and say what in it was not as it should be.

    Raises `ValueError`, with the path, for a value that its field cannot hold.
    """
    request = ExportTraceServiceRequest()
    content = _decode(text, dict[str, Any])
    _fill(request, content, 0)
    problems: list[str] = []
    if "resource_spans" in content:
        problems.append(_SNAKE.format("resource_spans", "resourceSpans"))
    if any("scope_spans" in each for each in content.get("resourceSpans") or ()):
        problems.append(_SNAKE.format("scope_spans", "scopeSpans"))
    return request, problems


def pieces(text: bytes, problems: list[str], spans: int = 64) -> Iterator[Slice]:
    """Read a request `spans` spans at a time, as `framing.slices` gives them; adds to `problems`.

    The outer framing is read in one go. Raises `ValueError`, with the path, as `from_json` does.
    """
    request = _decode(text, _Request)
    if bytes(request.snake) != b"null":
        problems.append(_SNAKE.format("resource_spans", "resourceSpans"))
    for index, under in enumerate(request.resource_spans or ()):
        if bytes(under.snake) != b"null":
            problems.append(_SNAKE.format("scope_spans", "scopeSpans"))
        where = f"resourceSpans[{index}]"
        resource = _message(Resource(), under.resource, 2, f"{where}.resource")
        for number, within in enumerate(under.scope_spans or ()):
            inside = f"{where}.scopeSpans[{number}]"
            scope = _message(InstrumentationScope(), within.scope, 3, f"{inside}.scope")
            raw = within.spans or []
            for start in range(0, len(raw), spans):
                group = ScopeSpans()
                for place, each in enumerate(raw[start : start + spans], start):
                    _filled(group.spans.add(), each, _SPAN_DEPTH, f"{inside}.spans[{place}]")
                yield Slice(
                    resource,
                    under.schema_url or "",
                    scope,
                    within.schema_url or "",
                    group.SerializeToString(),
                    len(group.spans),
                )


def _decode(text: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"the JSON is no request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _message(message: Message, raw: msgspec.Raw, depth: int, where: str) -> bytes:
    if bytes(raw) == b"null":
        return b""
    _filled(message, raw, depth, where)
    return message.SerializeToString()


def _filled(message: Message, raw: msgspec.Raw, depth: int, where: str) -> None:
    try:
        _fill(message, _decode(bytes(raw), Any), depth)
    except _Unfit as error:
        error.path.append(where)
        raise


def _fill(message: Message, content: Any, depth: int) -> None:
    """Put the content of a JSON object into `message`, which is inside `depth` others."""
    if not isinstance(content, dict):
        raise _Unfit(f"is {_short.repr(content)}; it must be an object")
    if depth >= _DEEPEST:
        raise _Unfit(f"is nested deeper than {_DEEPEST} messages")
    fields = _fields(message.DESCRIPTOR)
    for key, value in content.items():
        field = fields.get(key)
        # null is protobuf's way to say that a field is not there.
        if field is None or value is None:
            continue
        try:
            if field.repeated:
                _fill_repeated(getattr(message, field.name), field, value, depth)
            elif field.inner:
                inner = getattr(message, field.name)
                inner.SetInParent()
                _fill(inner, value, depth + 1)
            else:
                setattr(message, field.name, field.read(value, depth))
        except _Unfit as error:
            error.path.append(f".{key}")
            raise
        except ValueError as error:
            # A number outside its range, or text that UTF-8 cannot hold.
            unfit = _Unfit(f"is {_short.repr(value)}: {error}")
            unfit.path.append(f".{key}")
            raise unfit from None


def _fill_repeated(target: Any, field: _Field, value: Any, depth: int) -> None:
    if not isinstance(value, list):
        raise _Unfit(f"is {_short.repr(value)}; it must be an array")
    for index, item in enumerate(value):
        try:
            if field.inner:
                _fill(target.add(), item, depth + 1)
            else:
                target.append(field.read(item, depth))
        except _Unfit as error:
            error.path.append(f"[{index}]")
            raise


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    """The fields of a message by the keys that OTLP JSON has for them."""
    return {
        field.json_name: _Field(field.name, field.is_repeated, field.message_type is not None, _reader(field))
        for field in descriptor.fields
    }


def _reader(field: FieldDescriptor) -> Read:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_hex if field.name in _HEX else _read_base64
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _read_text
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _read_bool
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return _read_double
    if field.enum_type is not None:
        names = {each.name: each.number for each in field.enum_type.values}

        def read_enum(value: Any, depth: int) -> int:
            return names[value] if isinstance(value, str) and value in names else _read_integer(value, depth)

        return read_enum
    return _read_integer


def _read_text(value: Any, _depth: int) -> str:
    if isinstance(value, str):
        return value
    raise _Unfit(f"is {_short.repr(value)}; it must be a string")


def _read_bool(value: Any, _depth: int) -> bool:
    if isinstance(value, bool):
        return value
    raise _Unfit(f"is {_short.repr(value)}; it must be true or false")


def _read_integer(value: Any, _depth: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _Unfit(f"is {_short.repr(value)}; it must be an integer, as a number or as a string")


def _read_double(value: Any, _depth: int) -> float:
    if isinstance(value, str):
        if value in _UNUSUAL:
            return _UNUSUAL[value]
        number = float(value) if len(value) < 1000 and _NUMBER.fullmatch(value) else math.inf
        if math.isfinite(number):
            return number
    elif isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        try:
            return float(value)
        except OverflowError:
            pass
    raise _Unfit(f"is {_short.repr(value)}; it must be a number, 'NaN', 'Infinity' or '-Infinity'")


def _read_hex(value: Any, _depth: int) -> bytes:
    if isinstance(value, str):
        try:
            return binascii.unhexlify(value)
        except ValueError:
            pass
    raise _Unfit(f"is {_short.repr(value)}; ids of OTLP JSON are hexadecimal, not base64")


def _read_base64(value: Any, _depth: int) -> bytes:
    if isinstance(value, str):
        try:
            # Both alphabets, with and without padding, as protobuf's JSON mapping takes them.
            plain = value.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            pass
    raise _Unfit(f"is {_short.repr(value)}; it must be base64")


def _written(message: Message) -> dict[str, Any]:
    writers = _writers(message.DESCRIPTOR)
    result: dict[str, Any] = {}
    for field, value in message.ListFields():
        key, write = writers[field.number]
        result[key] = write(value)
    return result


@cache
def _writers(descriptor: Descriptor) -> dict[int, tuple[str, Write]]:
    return {field.number: (field.json_name, _writer(field)) for field in descriptor.fields}


def _writer(field: FieldDescriptor) -> Write:
    write = _scalar_writer(field)
    if field.is_repeated:
        return lambda values: [write(value) for value in values]
    return write


def _scalar_writer(field: FieldDescriptor) -> Write:
    if field.message_type is not None:
        return _written
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.hex if field.name in _HEX else lambda value: base64.b64encode(value).decode()
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _write_double
    if field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}:
        return str
    return _same


def _write_double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _same(value: Any) -> Any:
    return value
