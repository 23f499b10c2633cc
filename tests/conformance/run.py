"""Runs one of upstream's suites in a process of its own, on our classes or on the stock ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import certifi

import mapek_runtime

from .upstream import provide_requirements, unpack_tests

__all__ = ["SUITES", "Report", "Suite", "process", "run"]

SUBJECT = Path(__file__).with_name("subject")
END = "-----END CERTIFICATE-----\n"
PLUGINS = ("substitution", "pytest_asyncio.plugin", "pytest_aiohttp.plugin")
RUN_LIMIT = 180.0
"""Seconds that a suite may take; the longest takes about ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The tests of one of upstream's distributions."""

    distribution: str
    paths: tuple[str, ...] = ("tests",)
    subjects: tuple[str, ...] = ("TracerProvider", "Tracer")
    """Classes of ours that the suite must construct, or it has tested something else."""
    without: str = ""
    """Tests that concern no class of ours, as an expression for `-k`."""
    slow: tuple[str, ...] = ()
    """Tests that take long, left out unless they are asked for by name."""
    timed: tuple[str, ...] = ()
    """Tests that assert on the wall clock: a busy machine may fail them once, and not twice."""


SUITES = {
    "sdk": Suite(
        distribution="opentelemetry-sdk",
        paths=("tests/trace", "tests/shared_internal", "tests/context"),
        subjects=("TracerProvider", "Tracer", "BatchSpanProcessor"),
        without="BatchLogRecordProcessor",
        # Without a loop a full queue exports in place, here to an exporter that waits: for the 30 s
        # that an export may take.
        slow=("tests/trace/export/test_export.py::TestBatchSpanProcessor::test_metrics",),
        timed=(
            "tests/shared_internal/test_batch_processor.py::TestBatchProcessor"
            "::test_shutdown_allows_1_export_to_finish[BatchSpanProcessor-telemetry1]",
        ),
    ),
    "api": Suite(distribution="opentelemetry-api", subjects=("ContextVarsRuntimeContext",)),
    "asyncio": Suite(distribution="opentelemetry-instrumentation-asyncio"),
    "threading": Suite(distribution="opentelemetry-instrumentation-threading"),
    "aiohttp-client": Suite(distribution="opentelemetry-instrumentation-aiohttp-client"),
    "aiohttp-server": Suite(distribution="opentelemetry-instrumentation-aiohttp-server"),
    "httpx": Suite(distribution="opentelemetry-instrumentation-httpx"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a suite said."""

    outcomes: dict[str, str]
    """passed, failed or skipped, by test."""
    reasons: dict[str, str]
    """Why a test failed, as pytest drew it."""
    built: dict[str, int]
    """How often each class was constructed."""
    in_place: bool
    """Whether the SDK's names still meant our classes at the end."""

    def failed(self) -> set[str]:
        """The tests that failed."""
        return {test for test, outcome in self.outcomes.items() if outcome == "failed"}


def run(suite: Suite, folder: Path, *, subject: str = "ours", tests: Sequence[str] = ()) -> Report:
    """Run a suite, or `tests` of it; raises Unavailable where it cannot be had."""
    folder.mkdir(exist_ok=True)
    done = process(suite, folder, subject, tests)
    report = folder / f"{subject}.json"
    if not report.exists():
        raise AssertionError(f"{suite.distribution}: pytest wrote no report\n{done.stdout}\n{done.stderr}")
    return Report(**json.loads(report.read_text()))


def process(
    suite: Suite, folder: Path, subject: str, tests: Sequence[str] = (), *, shown: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run pytest over a suite or `tests`, which may be options too; what it says is kept unless `shown`.

    The report is `folder`/`subject`.json.
    """
    root = unpack_tests(suite.distribution, folder)
    home = Path(mapek_runtime.__file__).parent.parent
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))
    }
    # Clients of HTTP are made by the hundred, and reading all the world's authorities takes each 25 ms.
    authority = folder / "authority.pem"
    authority.write_text(certifi.contents().partition(END)[0] + END)
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (SUBJECT, root, provide_requirements(), home))),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "CONFORMANCE_SUBJECT": subject,
        "CONFORMANCE_REPORT": str(folder / f"{subject}.json"),
        "SSL_CERT_FILE": str(authority),
        "REQUESTS_CA_BUNDLE": str(authority),
    }
    # A file of its own: pytest would otherwise look for one in the folders above.
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    named = any(not test.startswith("-") for test in tests)
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-c", str(settings), f"--rootdir={root}",
            "-p", "no:cacheprovider", "--assert=plain", *(f"-p{name}" for name in PLUGINS),
            *(() if named else _all_of(suite)),
            *tests,
        ],
        cwd=root, env=environment, capture_output=not shown, text=True, timeout=RUN_LIMIT, check=False,
    )  # fmt: skip


def _all_of(suite: Suite) -> Iterator[str]:
    yield from suite.paths
    yield from (f"--deselect={test}" for test in suite.slow)
    if suite.without:
        yield f"-knot {suite.without}"
