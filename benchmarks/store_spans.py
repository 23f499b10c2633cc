"""The spans that benchmarks of the store write: cycles of many nodes of a mesh that heals."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["NODES", "RARE", "SERVICES", "START", "read", "write"]

SERVICES = ("x0tta6bl4", "x0tta6bl4-edge")
NODES = 50
START = 1_760_000_000_000_000_000
"""The start of the first span, in nanoseconds since 1970."""
RARE = "node-rare"
"""A node that has one cycle in two thousand."""
_CYCLE_EVERY = 5_000_000
_PHASES = ("monitor", "analyze", "plan", "execute", "knowledge")
_LENGTH = struct.Struct("<II")


class Spans(Protocol):
    """What a message of protobuf has for its spans."""

    def add(self) -> Span:
        """A new span at the end."""


def write(path: Path, *, spans: int, batch: int, seed: int = 1) -> None:
    """Write requests of `batch` spans to a file, each behind its length and count; ten spans a trace."""
    rng = random.Random(seed)
    cycles = 0
    with path.open("wb") as file:
        for first in range(0, spans, batch):
            size = min(batch, spans - first)
            request = ExportTraceServiceRequest()
            group = request.resource_spans.add()
            _set(group.resource.attributes.add(), "service.name", SERVICES[cycles // 1000 % 2])
            within = group.scope_spans.add()
            within.scope.name = "mapek_runtime"
            while len(within.spans) < size:
                _cycle(within.spans, rng, cycles)
                cycles += 1
            del within.spans[size:]
            payload = request.SerializeToString()
            file.write(_LENGTH.pack(len(payload), size) + payload)


def read(path: Path) -> Iterator[tuple[bytes, int]]:
    """The requests, each with its number of spans."""
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            length, count = _LENGTH.unpack(head)
            yield file.read(length), count


def _cycle(spans: Spans, rng: random.Random, number: int) -> None:
    trace_id, root = rng.randbytes(16), rng.randbytes(8)
    node = RARE if rng.random() < 1 / 2000 else f"node-{rng.randrange(NODES)}"
    start = START + number * _CYCLE_EVERY
    common = trace_id, root, node, start, rng
    _span(
        spans,
        common,
        "mape_k.cycle",
        root,
        cycle=number,
        trigger="interval",
        anomalies_detected=0,
        success=True,
    )
    for phase in _PHASES:
        _span(
            spans,
            common,
            f"mape_k.{phase}",
            None,
            phase=phase,
            confidence=rng.random(),
            count=rng.randrange(20),
        )
    _span(spans, common, "mesh.node_discovery", None, source_node=node, nodes_discovered=rng.randrange(9))
    _span(
        spans,
        common,
        "mesh.routing",
        None,
        source_node=node,
        destination=f"node-{rng.randrange(NODES)}",
        hops=2,
    )
    _span(
        spans,
        common,
        "ml.inference",
        None,
        model="detector",
        input_size=64,
        latency_ms=rng.expovariate(1 / 20),
    )
    _span(spans, common, "spiffe.svid_renewal", None, success=rng.random() > 0.02)


def _span(
    spans: Spans,
    common: tuple[bytes, bytes, str, int, random.Random],
    name: str,
    span_id: bytes | None,
    **attributes: str | float,
) -> None:
    trace_id, root, node, start, rng = common
    made = spans.add()
    made.trace_id, made.span_id = trace_id, span_id or rng.randbytes(8)
    if span_id is None:
        made.parent_span_id = root
    made.name, made.kind, made.flags = name, Span.SPAN_KIND_INTERNAL, 0x101
    made.start_time_unix_nano = start + rng.randrange(1_000_000)
    made.end_time_unix_nano = made.start_time_unix_nano + int(rng.expovariate(1 / 5e6))
    if attributes.get("success") is False:
        made.status.code = Status.STATUS_CODE_ERROR
    _set(made.attributes.add(), "node_id", node)
    for key, value in attributes.items():
        _set(made.attributes.add(), key, value)


def _set(attribute: KeyValue, key: str, value: str | float) -> None:
    attribute.key = key
    match value:
        case bool():
            attribute.value.bool_value = value
        case int():
            attribute.value.int_value = value
        case float():
            attribute.value.double_value = value
        case _:
            attribute.value.string_value = value
