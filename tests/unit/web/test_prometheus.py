"""The page of metrics: what the official parsers read is what the meters counted."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from mapek_runtime.web import PrometheusReader

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Page:
    """A meter provider and its page."""

    def __init__(self) -> None:
        self.reader = PrometheusReader()
        self.provider = MeterProvider([self.reader], Resource({"service.name": "tests"}))
        self.meter = self.provider.get_meter("mapek_runtime.tests")

    def families(self) -> dict[str, Metric]:
        text = self.reader.render(OPENMETRICS)[0].decode()
        return {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]

    def value(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return float(value)


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("mapek.ticks", "{tick}", "mapek_ticks_total"),
        ("sent", "By", "sent_bytes_total"),
        ("sent_bytes", "By", "sent_bytes_total"),
        ("asked_total", "1", "asked_total"),
        ("work", "ms", "work_milliseconds_total"),
        ("flow", "By/s", "flow_bytes_per_second_total"),
        ("a-b/c", "", "a_b_c_total"),
    ],
)
def test_a_counter_is_named_as_the_compatibility_specification_says(
    name: str, unit: str, shown: str, page: Page
) -> None:
    page.meter.create_counter(name, unit).add(3)

    assert page.value(shown) == 3


def test_what_goes_up_and_down_is_a_gauge_and_a_share_is_a_ratio(page: Page) -> None:
    page.meter.create_up_down_counter("queue.size", "{span}").add(-2)
    page.meter.create_observable_gauge("full", [lambda _o: [Observation(0.5)]], "1")

    assert page.value("queue_size") == -2
    assert page.value("full_ratio") == 0.5
    assert page.families()["queue_size"].type == "gauge"


def test_the_buckets_of_a_histogram_are_cumulative_and_end_at_infinity(page: Page) -> None:
    histogram = page.meter.create_histogram("took", "s", explicit_bucket_boundaries_advisory=[0.1, 1])
    for seconds in (0.05, 0.1, 0.5, 7):
        histogram.record(seconds, {"phase": "plan"})

    assert page.value("took_seconds_bucket", phase="plan", le="0.1") == 2
    assert page.value("took_seconds_bucket", phase="plan", le="1.0") == 3
    assert page.value("took_seconds_bucket", phase="plan", le="+Inf") == 4
    assert page.value("took_seconds_count", phase="plan") == 4
    assert page.value("took_seconds_sum", phase="plan") == pytest.approx(7.65)


@pytest.mark.parametrize(("sampler", "shown"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)], ids=["on", "off"])
def test_an_example_stands_on_its_bucket_for_every_reader_of_the_page(
    sampler: Sampler, shown: bool, page: Page
) -> None:
    tracer = TracerProvider(sampler, Resource.get_empty(), shutdown_on_exit=False).get_tracer("tests")
    histogram = page.meter.create_histogram("took", "s", explicit_bucket_boundaries_advisory=[0.1, 1])
    with tracer.start_as_current_span("work") as span:
        histogram.record(0.5)

    for _ in range(2):
        found = {
            sample.labels["le"]: sample.exemplar
            for sample in page.families()["took_seconds"].samples
            if sample.exemplar
        }
        assert set(found) == ({"1.0"} if shown else set())
        for exemplar in found.values():
            assert exemplar.value == 0.5
            assert exemplar.labels["trace_id"] == f"{span.get_span_context().trace_id:032x}"
            assert exemplar.labels["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_meters_of_others_are_told_apart_where_they_use_one_name(page: Page) -> None:
    for scope in ("aiohttp", "httpx"):
        page.provider.get_meter(scope, "1.0").create_counter("requests").add(1)

    assert page.value("requests_total", otel_scope_name="aiohttp", otel_scope_version="1.0") == 1
    assert page.value("requests_total", otel_scope_name="httpx", otel_scope_version="1.0") == 1


def test_a_series_that_two_meters_have_is_written_once(page: Page) -> None:
    for scope in ("mapek_runtime.a", "mapek_runtime.b"):
        page.provider.get_meter(scope).create_counter("requests").add(1)

    assert page.value("requests_total") == 1


def test_a_name_that_is_of_two_kinds_keeps_the_first(page: Page) -> None:
    page.meter.create_up_down_counter("state").add(5)
    page.provider.get_meter("mapek_runtime.other").create_histogram("state").record(1)

    assert page.value("state") == 5


def test_keys_that_become_one_label_keep_both_values(page: Page) -> None:
    page.meter.create_counter("x").add(1, {"a.b": "1", "a_b": "2"})

    assert page.value("x_total", a_b="1;2") == 1


def test_the_resource_is_the_target(page: Page) -> None:
    page.meter.create_counter("x").add(1)

    assert page.value("target_info", service_name="tests") == 1


def test_an_observed_value_that_is_gone_is_gone_from_the_page(page: Page) -> None:
    present = [True]

    def look(_options: CallbackOptions) -> list[Observation]:
        return [Observation(1)] if present else []

    page.meter.create_observable_gauge("here", [look])
    assert page.value("here") == 1

    present.clear()

    assert "here" not in page.families()


def test_a_page_without_metrics_is_empty_and_valid() -> None:
    assert Page().families() == {}


keys = st.text(min_size=1, max_size=8)
values: st.SearchStrategy[Any] = st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.floats())


@settings(max_examples=50)
@example(attributes={"le": "1", "::": 2, "1": 3}, number=1.0, help_text="a\nb")
@given(attributes=st.dictionaries(keys, values, max_size=4), number=st.floats(0, 1e12), help_text=st.text())
def test_whatever_is_measured_both_formats_can_be_parsed(
    attributes: dict[str, Any], number: float, help_text: str
) -> None:
    page = Page()
    page.meter.create_counter("x", description=help_text).add(number, attributes)
    page.meter.create_histogram("h", description=help_text).record(number, attributes)

    (family,) = [each for each in page.families().values() if each.name == "x"]
    plain = {each.name for each in parse_plain(page.reader.render()[0].decode())}

    assert [sample.value for sample in family.samples] == [number]
    assert {"x", "h"} <= plain


def test_writing_lets_others_have_the_interpreter_and_puts_everything_back(page: Page) -> None:
    found: list[tuple[float, bool]] = []

    def look(_options: CallbackOptions) -> list[Observation]:
        found.append((sys.getswitchinterval(), gc.isenabled()))
        return [Observation(1)]

    page.meter.create_observable_gauge("looked", [look])
    before = sys.getswitchinterval(), gc.isenabled()

    page.reader.render()
    after = sys.getswitchinterval(), gc.isenabled()

    ((interval, collects),) = found
    assert interval < before[0]
    assert (before[1], collects) == (True, False)
    assert after == before


def test_garbage_that_the_program_does_not_have_collected_is_not_collected_after_a_scrape(page: Page) -> None:
    gc.disable()
    try:
        page.reader.render()
        assert not gc.isenabled()
    finally:
        gc.enable()
