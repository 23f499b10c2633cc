"""What goes into the store comes out as it was: every field of every span, by its trace."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from mapek_runtime.store import traces
from mapek_runtime.store.rollup import bucket_of, middle_of, percentile
from mapek_runtime.store.schema import open_writer
from mapek_runtime.store.writer import Writer

texts = st.text(max_size=6)
numbers = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**32 - 1)
values = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=4)),
)
attributes = st.lists(st.builds(KeyValue, key=texts, value=values), max_size=3)
spans = st.builds(
    Span,
    trace_id=st.sampled_from([bytes([n]) * 16 for n in range(1, 4)]),
    span_id=st.binary(min_size=8, max_size=8).filter(any),
    parent_span_id=st.one_of(
        st.just(b""), st.binary(min_size=8, max_size=8), st.just(b"odd"), st.just(bytes(8))
    ),
    trace_state=texts,
    flags=small,
    name=texts,
    kind=st.integers(0, 7),
    start_time_unix_nano=numbers,
    end_time_unix_nano=numbers,
    attributes=attributes,
    dropped_attributes_count=small,
    events=st.lists(
        st.builds(Span.Event, time_unix_nano=numbers, name=texts, attributes=attributes), max_size=2
    ),
    links=st.lists(
        st.builds(Span.Link, trace_id=st.binary(min_size=16, max_size=16), attributes=attributes), max_size=2
    ),
    status=st.builds(Status, code=st.integers(0, 2), message=texts),
)


@st.composite
def requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 3))):
        group = made.resource_spans.add(schema_url=draw(texts))
        group.resource.attributes.extend(draw(attributes))
        for _ in range(draw(st.integers(0, 2))):
            within = group.scope_spans.add(schema_url=draw(texts))
            within.scope.name = draw(texts)
            within.spans.extend(draw(st.lists(spans, max_size=4)))
    return made


Origin = tuple[bytes, str, bytes, str]


def origins(made: ExportTraceServiceRequest | TracesData) -> dict[bytes, dict[bytes, tuple[Origin, bytes]]]:
    """Of each trace its spans by id, the first of each, with where it came from."""
    found: dict[bytes, dict[bytes, tuple[Origin, bytes]]] = defaultdict(dict)
    for group in made.resource_spans:
        for within in group.scope_spans:
            origin = (
                group.resource.SerializeToString(deterministic=True), group.schema_url,
                within.scope.SerializeToString(deterministic=True), within.schema_url,
            )  # fmt: skip
            for span in within.spans:
                body = span.SerializeToString(deterministic=True)
                found[span.trace_id].setdefault(span.span_id, (origin, body))
    return found


@settings(max_examples=30)
@given(st.lists(requests(), max_size=3))
def test_every_trace_comes_back_as_it_was_sent(sent: list[ExportTraceServiceRequest]) -> None:
    together = ExportTraceServiceRequest()
    for each in sent:
        together.MergeFrom(each)
    with tempfile.TemporaryDirectory() as folder:
        connection = open_writer(Path(folder) / "traces.sqlite")
        try:
            Writer(connection).write([each.SerializeToString() for each in sent])
            check(connection, together)
        finally:
            connection.close()


def check(connection: sqlite3.Connection, together: ExportTraceServiceRequest) -> None:
    expected = origins(together)
    for trace_id, by_span in expected.items():
        stored = traces.read(connection, trace_id.hex(), 0, 1000)
        assert stored is not None
        assert (stored.spans, stored.total) == (len(by_span), len(by_span))
        assert origins(TracesData.FromString(stored.data)) == {trace_id: by_span}
    assert traces.read(connection, "ff" * 16, 0, 1000) is None


@given(st.lists(st.integers(-5, 10**13), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_the_width_of_its_bucket(durations: list[int], share: float) -> None:
    counts: dict[int, int] = {}
    for duration in durations:
        bucket = bucket_of(duration)
        counts[bucket] = counts.get(bucket, 0) + 1
    ordered = sorted(max(0, duration) for duration in durations)
    exact = ordered[max(1, -int(-share * len(ordered) // 1)) - 1]
    found = percentile(counts, share)
    assert abs(found - exact) <= 0.05 * exact + 1


@given(st.integers(1, 10**15))
def test_the_middle_of_a_bucket_is_in_the_bucket(duration: int) -> None:
    assert abs(middle_of(bucket_of(duration)) - duration) <= 0.045 * duration + 1
