"""The plan of the house, kept by tools: layers, sizes, light imports."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("grpc", "typer", "rich", "rustworkx", "mapek_domains", "aiohttp", "httpx", "numpy", "structlog")
MOST_LINES = 400
EXCUSED: dict[str, str] = {}
"""Files that may be longer, with the reason."""


def run(program: str) -> str:
    paths = json.dumps([str(ROOT), str(ROOT / "domains")])
    program = f"import sys; sys.path[:0] = {paths}\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_layers_are_kept() -> None:
    # In a process of its own: import-linter replaces the logging of the whole process.
    check = (
        "from importlinter.cli import lint_imports; print(lint_imports(config_filename={!r}, no_cache=True))"
    )
    report = run(check.format(str(ROOT / "pyproject.toml")))

    assert report.splitlines()[-1] == "0", report


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = set(run("import mapek_runtime, sys; print(*sys.modules)").split())

    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()
    assert {name for name in loaded if name.startswith("mapek_runtime.")} == set()


def test_using_the_loop_loads_no_transport_and_no_domain() -> None:
    loaded = run(
        "from mapek_runtime import Runtime, SpanGroup, TracerProvider; import sys; print(*sys.modules)"
    )

    assert {name for name in loaded.split() if name.partition(".")[0] in HEAVY} == set()


def test_the_processor_works_behind_the_stock_sdk_and_loads_nothing_else_of_ours() -> None:
    program = """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from mapek_runtime import BatchSpanProcessor
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("t").start_span("one").end()
    provider.shutdown()
    assert [span.name for span in exporter.get_finished_spans()] == ["one"]
    print(*sys.modules)
    """
    loaded = set(run(textwrap.dedent(program)).split())

    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()
    assert {
        name for name in loaded if name.startswith(("mapek_runtime.service", "mapek_runtime.loop"))
    } == set()


def test_the_tools_for_plugin_authors_work_without_pytest() -> None:
    loaded = run("import mapek_runtime.testing, sys; print(*sys.modules)")

    assert "pytest" not in loaded.split()


@pytest.mark.parametrize("room", ["mapek_runtime", "domains", "tests", "benchmarks", "examples"])
def test_no_file_is_longer_than_it_may_be(room: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in (ROOT / room).rglob("*.py")
    }

    assert lengths
    assert {path: n for path, n in lengths.items() if n > MOST_LINES and path not in EXCUSED} == {}
