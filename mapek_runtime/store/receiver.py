"""What a receiver does with the body of `POST /v1/traces`: bytes in, spans for the store or a refusal out.

Pure, and made to run in a thread: it unpacks, reads and checks in small pieces, and lets other threads run
between them, because the parser holds the interpreter's lock while it reads a piece. The statuses and the
two encodings are those of opentelemetry-proto, docs/specification.md#otlphttp. Knows no HTTP server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, TracesData

from mapek_runtime.errors import MapekError

from . import framing, otlp_json
from .framing import Slice
from .inflate import TooLarge, inflate
from .validity import TOO_LARGE, Refusals, flaw_of

__all__ = [
    "JSON",
    "MAX_BYTES",
    "MAX_JSON_BYTES",
    "MAX_JSON_ITEMS",
    "MAX_SPANS",
    "PROTOBUF",
    "Received",
    "Refused",
    "json_items",
    "media_type",
    "receive",
]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

MAX_BYTES: Final = 64 << 20
MAX_JSON_BYTES: Final = 8 << 20
"""The framing of JSON is read in one go, which stops every thread for some milliseconds; and its objects
take much memory. Enough for the batches of 8192 spans that a Collector sends."""
MAX_JSON_ITEMS: Final = 1_000_000
"""Entries of all its arrays and objects: three bytes of text can be an object of sixty."""
MAX_SPANS: Final = 1_000_000
MAX_MESSAGE: Final = 4 << 20
"""Bytes of one span: it is parsed in one go. gRPC's limit for a message, too."""

MAX_AROUND: Final = 256 << 10
"""Bytes of a resource or scope: they are told again with each page of the spans under them."""

_ITEM: Final = 64
# The codes of google.rpc.Code.
_INVALID, _EXHAUSTED = 3, 8


class Refused(MapekError):
    """A request that is answered with `status` (HTTP) and `code` (google.rpc.Code), as a whole."""

    def __init__(self, status: int, code: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds after which the same request may be sent again; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request that can be read."""

    payload: bytes
    """An ExportTraceServiceRequest of the spans that are accepted."""
    accepted: int
    rejected: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """How many spans were rejected for what; the keys are few and fixed."""
    message: str = ""
    """What the sender should know: of rejected spans, or of keys that were ignored."""


def media_type(content_type: str) -> str:
    """Give the encoding that a Content-Type names, `PROTOBUF` or `JSON`; raises `Refused` for another."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in {PROTOBUF, JSON}:
        return kind
    raise Refused(415, _INVALID, f"Content-Type is {content_type[:100]!r}; it must be {PROTOBUF} or {JSON}")


def receive(
    body: bytes,
    content_type: str,
    content_encoding: str = "",
    *,
    max_bytes: int = MAX_BYTES,
    max_spans: int = MAX_SPANS,
    grow: Callable[[int], None] = lambda _size: None,
) -> Received:
    """Read a request; `max_bytes` limits what it is when unpacked. Raises `Refused`.

    `grow` is called before about that many more bytes are kept, and may raise `Refused` itself.
    """
    kind = media_type(content_type)
    limit = min(max_bytes, MAX_JSON_BYTES) if kind == JSON else max_bytes
    plain = _unpacked(body, content_encoding, limit, grow)
    del body
    problems: list[str] = []
    try:
        if kind == JSON:
            # What is read of it is there in another form as well.
            grow(len(plain) + _ITEM * json_items(plain))
            return _checked(otlp_json.pieces(plain, problems), None, problems, max_spans)
        received = _checked(framing.slices(plain), plain, problems, max_spans)
        if received.rejected:
            # Once in pieces, once joined.
            grow(2 * len(plain))
            return replace(received, payload=framing.join(_kept(framing.slices(plain))))
    except Refused:
        raise
    except (ValueError, DecodeError) as error:
        raise Refused(400, _INVALID, f"the request cannot be read: {error}") from None
    return received


def _unpacked(body: bytes, encoding: str, limit: int, grow: Callable[[int], None]) -> bytes:
    encoding = encoding.strip().lower()
    if encoding == "gzip":
        try:
            return inflate(body, limit, grow)
        except TooLarge as error:
            raise Refused(413, _EXHAUSTED, f"{error}; send fewer spans in a request") from None
        except ValueError as error:
            raise Refused(400, _INVALID, str(error)) from None
    if encoding not in {"", "identity"}:
        raise Refused(415, _INVALID, f"Content-Encoding is {encoding[:100]!r}; it must be gzip or identity")
    if len(body) > limit:
        raise Refused(
            413, _EXHAUSTED, f"the body is larger than {limit} bytes; send fewer spans in a request"
        )
    return body


def json_items(text: bytes) -> int:
    """Say about how many entries arrays and objects have; commas of texts count as well.

    Raises `Refused` for more bytes or entries than are read.
    """
    if len(text) > MAX_JSON_BYTES:
        raise Refused(
            413, _EXHAUSTED, f"the JSON is larger than {MAX_JSON_BYTES} bytes; send fewer spans in a request"
        )
    commas = text.count(b",")
    if commas > MAX_JSON_ITEMS:
        raise Refused(
            413, _EXHAUSTED, f"the JSON has more than {MAX_JSON_ITEMS} values; send fewer spans in a request"
        )
    return commas


def _checked(pieces: Iterator[Slice], whole: bytes | None, problems: list[str], max_spans: int) -> Received:
    """Look at every span. Where `whole` is the request of the pieces they are let go, else kept."""
    refusals = Refusals()
    keep: list[Slice] = []
    total = 0
    under: Slice | None = None
    for piece in pieces:
        if total + piece.number > max_spans:
            raise Refused(
                413, _EXHAUSTED, f"there are more than {max_spans} spans; send them in several requests"
            )
        _check_around(under, piece)
        under = piece
        good = _good(piece, total, refusals)
        total += piece.number
        if whole is None and good.number:
            keep.append(good)
        # Lets go of the interpreter: a loop that waits for it would get it only after 5 ms.
        time.sleep(0)
    rejected = refusals.kinds.total()
    said = [refusals.message(total), *dict.fromkeys(problems)]
    return Received(
        payload=framing.join(keep) if whole is None else whole,
        accepted=total - rejected,
        rejected=rejected,
        reasons=dict(refusals.kinds),
        message="; ".join(filter(None, said)),
    )


def _kept(pieces: Iterator[Slice]) -> Iterator[Slice]:
    """The pieces again, without the spans that were refused."""
    for piece in pieces:
        good = _good(piece, 0, Refusals())
        if good.number:
            yield good
        time.sleep(0)


def _check_around(before: Slice | None, piece: Slice) -> None:
    """Parse resource and scope, once for all slices that have the same."""
    for kind, data, known in (
        (Resource, piece.resource, before.resource if before else None),
        (InstrumentationScope, piece.scope, before.scope if before else None),
    ):
        if data is known:
            continue
        if len(data) > MAX_AROUND:
            raise ValueError(f"the {kind.DESCRIPTOR.name} has {len(data)} bytes; at most {MAX_AROUND}")
        kind.FromString(data)


def _good(piece: Slice, place: int, refusals: Refusals) -> Slice:
    """Give the slice without the spans that are refused; itself when none is."""
    if len(piece.spans) > MAX_MESSAGE:
        return _good_large(piece, place, refusals)
    # In its framing, so that nesting is limited as for whoever reads the request, or the trace, as a whole.
    message = TracesData.FromString(framing.join((piece._replace(resource=b"", scope=b""),)))
    (spans,) = (each.spans for within in message.resource_spans for each in within.scope_spans)
    flaws = [flaw_of(span) for span in spans]
    if not any(flaws):
        return piece
    good = ScopeSpans()
    for index, (span, flaw) in enumerate(zip(spans, flaws, strict=True)):
        if flaw:
            refusals.add(flaw, span.name, place + index)
        else:
            good.spans.append(span)
    return piece._replace(spans=good.SerializeToString(), number=len(good.spans))


def _good_large(piece: Slice, place: int, refusals: Refusals) -> Slice:
    """The same for a slice that ends with a large span: one by one, and what is too large unparsed."""
    good: list[Slice] = []
    for index, one in enumerate(framing.slices(framing.join((piece,)), 1)):
        if len(one.spans) > MAX_MESSAGE:
            refusals.add(TOO_LARGE, "", place + index)
        else:
            checked = _good(one, place + index, refusals)
            if checked.number:
                good.append(checked)
    return piece._replace(spans=b"".join(each.spans for each in good), number=len(good))
