"""`opentelemetry-instrument` puts our provider and exporter under a program that was not changed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime import TracerProvider
from tests.integration.collector import Collector, collector

pytestmark = pytest.mark.slow

TOOL = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"
PROVIDER = f"{TracerProvider.__module__}.{TracerProvider.__qualname__}"
OURS = {"OTEL_PYTHON_DISTRO": "mapek", "OTEL_PYTHON_CONFIGURATOR": "mapek", "OTEL_SERVICE_NAME": "shop"}

WEB = """
import asyncio, json
from aiohttp import ClientSession, web
from opentelemetry import trace

tracer = trace.get_tracer("app", "1.0")

async def hello(request):
    with tracer.start_as_current_span("work"):
        await asyncio.sleep(0)
    return web.Response(text=request.headers.get("traceparent", "none"))

async def main():
    app = web.Application()
    app.router.add_get("/hello", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with tracer.start_as_current_span("job"):
        async with ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/hello") as response:
                text = await response.text()
    await runner.cleanup()
    return text

sent = [asyncio.run(main()) for _ in range(2)]
kind = type(trace.get_tracer_provider())
print(json.dumps({"provider": f"{kind.__module__}.{kind.__name__}", "sent": sent}))
"""

PLAIN = """
import json
from opentelemetry import trace

tracer = trace.get_tracer("app")
with tracer.start_as_current_span("outer"):
    for number in range(3):
        with tracer.start_as_current_span("inner") as span:
            span.set_attribute("number", number)
kind = type(trace.get_tracer_provider())
print(json.dumps({"provider": f"{kind.__module__}.{kind.__name__}"}))
"""

FAILING = PLAIN + "import no_such_module_anywhere\n"

PARTS = """
from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.trace import _TracerConfig
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

class Ids(RandomIdGenerator):
    def generate_trace_id(self):
        return 0xabc

class Even(Sampler):
    def __init__(self, argument):
        self.argument = argument
    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None):
        keep = (attributes or {}).get("number", 0) != 1 and name != self.argument
        return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.DROP, attributes)
    def get_description(self):
        return "Even"

class Names(SpanExporter):
    def export(self, spans):
        print("exported", *sorted(span.name for span in spans), flush=True)
        return SpanExportResult.SUCCESS

class Rack(ResourceDetector):
    def detect(self):
        return Resource({"rack": "r7"})

def silent(scope):
    return _TracerConfig(is_enabled=scope.name != "app")
"""
GROUPS = {
    "opentelemetry_id_generator": "Ids",
    "opentelemetry_traces_sampler": "Even",
    "opentelemetry_traces_exporter": "Names",
    "opentelemetry_resource_detector": "Rack",
    "_opentelemetry_tracer_configurator": "silent",
}


@pytest.fixture
def parts(tmp_path: Path) -> str:
    """The search path of an installed distribution that offers one part of each kind as `own`."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    about = tmp_path / "own_parts-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.0\n")
    lines = [f"[{group}]\nown = own_parts:{name}\n" for group, name in GROUPS.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])


async def start(program: str, there: Collector | None = None, **variables: str) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MAPEK_"))}
    if there is not None:
        variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = there.url
    return await asyncio.create_subprocess_exec(
        TOOL, sys.executable, "-c", program,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**kept, **OURS, **variables},
    )  # fmt: skip


async def run(program: str, there: Collector | None = None, **variables: str) -> tuple[int, str, str]:
    """The program under the drop-in: exit code, output, log."""
    process = await start(program, there, **variables)
    async with asyncio.timeout(60):
        output, log = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), log.decode()


def received(there: Collector) -> tuple[list[Span], list[dict[str, str]]]:
    """Every span, and the resource of every request."""
    requests = [ExportTraceServiceRequest.FromString(body) for body in there.bodies]
    resources = [resource for request in requests for resource in request.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    facts = [{a.key: a.value.string_value for a in found.resource.attributes} for found in resources]
    return spans, facts


def tree(spans: list[Span]) -> list[tuple[str, str]]:
    """Each span with the name of its parent."""
    names = {span.span_id: span.name for span in spans}
    return sorted((span.name, names[span.parent_span_id] if span.parent_span_id else "") for span in spans)


async def test_a_web_program_that_was_not_changed_sends_its_spans_through_us() -> None:
    async with collector() as there:
        code, output, log = await run(WEB, there)

    assert (code, log) == (0, "")
    told: dict[str, Any] = json.loads(output)
    assert told["provider"] == PROVIDER
    spans, resources = received(there)
    each = [("GET", "job"), ("GET /hello", "GET"), ("job", ""), ("work", "GET /hello")]
    assert tree(spans) == sorted(each * 2)
    kinds = {span.name: Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_") for span in spans}
    assert kinds == {"GET": "CLIENT", "GET /hello": "SERVER", "job": "INTERNAL", "work": "INTERNAL"}
    clients = [span for span in spans if span.name == "GET"]
    assert sorted(told["sent"]) == sorted(f"00-{s.trace_id.hex()}-{s.span_id.hex()}-03" for s in clients)
    assert len({span.trace_id for span in spans}) == 2
    for resource in resources:
        assert resource["service.name"] == "shop"
        assert resource["telemetry.sdk.name"] == "opentelemetry"
        assert resource["telemetry.auto.version"]
    assert "user-agent: mapek-runtime/" in there.heads[0].lower()


async def test_a_program_without_a_loop_sends_its_spans_at_the_end() -> None:
    async with collector() as there:
        code, output, log = await run(PLAIN, there)

    assert (code, log) == (0, "")
    assert json.loads(output)["provider"] == PROVIDER
    assert tree(received(there)[0]) == [("inner", "outer")] * 3 + [("outer", "")]


async def test_a_program_that_fails_at_import_says_only_so_and_its_spans_are_sent() -> None:
    async with collector() as there:
        code, _, log = await run(FAILING, there)

    assert code == 1
    assert log.startswith("Traceback (most recent call last):\n")
    assert log.endswith("\nModuleNotFoundError: No module named 'no_such_module_anywhere'\n")
    assert log.count("Traceback") == 1
    assert len(there.names) == 4


async def test_without_a_variable_spans_go_by_otlp_and_with_several_names_to_each_of_them() -> None:
    async with collector() as there:
        code, output, log = await run(PLAIN, there, OTEL_TRACES_EXPORTER="otlp, console,otlp")

    assert (code, log) == (0, "")
    assert sorted(there.names) == ["inner"] * 3 + ["outer"]
    assert len([line for line in output.splitlines() if "ms inner" in line]) == 3


@pytest.mark.parametrize(
    "variables", [{"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}], ids=["none", "disabled"]
)
async def test_what_was_switched_off_stays_off(variables: dict[str, str]) -> None:
    async with collector() as there:
        code, _, log = await run(WEB, there, **variables)

    assert (code, log) == (0, "")
    assert there.names == []


async def test_the_parts_that_variables_name_are_used(parts: str) -> None:
    async with collector() as there:
        code, output, log = await run(
            PLAIN, there,
            PYTHONPATH=parts,
            OTEL_TRACES_EXPORTER="own,otlp",
            OTEL_PYTHON_ID_GENERATOR="own",
            OTEL_TRACES_SAMPLER="OWN",
            OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="own",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
            OTEL_ATTRIBUTE_COUNT_LIMIT="0",
        )  # fmt: skip

    assert (code, log) == (0, "")
    assert output.splitlines()[1:] == ["exported inner inner inner outer"]
    spans, (resource,) = received(there)
    assert {span.trace_id for span in spans} == {(0xABC).to_bytes(16)}
    assert resource["rack"] == "r7"
    assert resource["deployment.environment"] == "test"
    assert {span.dropped_attributes_count for span in spans if span.name == "inner"} == {1}


async def test_a_sampler_and_its_argument_are_followed(parts: str) -> None:
    async with collector() as there:
        for variables in (
            {"OTEL_TRACES_SAMPLER": "own", "OTEL_TRACES_SAMPLER_ARG": "outer", "PYTHONPATH": parts},
            {"OTEL_TRACES_SAMPLER": "Always_OFF"},
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        ):
            code, _, log = await run(PLAIN, there, **variables)
            assert (code, log) == (0, "")

    assert there.names == ["inner"] * 3


async def test_a_tracer_configurator_silences_a_tracer(parts: str) -> None:
    async with collector() as there:
        code, _, log = await run(
            PLAIN, there, PYTHONPATH=parts, OTEL_PYTHON_TRACER_CONFIGURATOR="own"
        )  # fmt: skip

    assert (code, log) == (0, "")
    assert there.names == []


async def test_the_named_propagators_write_the_headers() -> None:
    async with collector() as there:
        code, output, log = await run(WEB, there, OTEL_PROPAGATORS="baggage")

    assert (code, log) == (0, "")
    assert json.loads(output)["sent"] == ["none", "none"]
    assert ("GET /hello", "") in tree(received(there)[0])


async def test_a_name_that_nobody_offers_is_told_and_passed_over() -> None:
    async with collector() as there:
        code, _, log = await run(
            PLAIN, there, OTEL_TRACES_EXPORTER="pigeon,otlp", OTEL_PYTHON_ID_GENERATOR="dice"
        )  # fmt: skip

    assert code == 0
    assert log.count("\n") == 2
    assert "'pigeon'" in log
    assert "'dice'" in log
    assert len(there.names) == 4


async def test_metrics_and_logs_are_set_up_by_the_sdk_when_they_have_an_exporter() -> None:
    program = PLAIN + (
        "from opentelemetry import metrics\n"
        "metrics.get_meter('app').create_counter('parcels').add(3)\n"
        "import logging; logging.getLogger('app').warning('heavy parcel')\n"
    )
    code, output, log = await run(
        program,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="console",
        OTEL_LOGS_EXPORTER="console",
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
    )

    assert code == 0
    assert '"parcels"' in output
    assert "heavy parcel" in output
    # The SDK's log handler starts a thread at exit, where Python 3.12.1 starts none; so it is without us.
    assert "Traceback" not in log or ("can't create new thread" in log and "mapek" not in log)
