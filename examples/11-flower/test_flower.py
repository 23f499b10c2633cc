"""Over Flower the fl domain's learner makes the models that it makes without, and a round is one trace.

The runs need an environment with Flower, take minutes, and are skipped where MAPEK_FLOWER does not name its
python: MAPEK_FLOWER=.venv-flower/bin/python python -m pytest -m slow examples/11-flower
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.fl_federation import DigitsLearner, names
from mapek_domains.fl import client as our_client
from mapek_domains.fl.aggregate import Method, Update, aggregate, combine

HERE = Path(__file__).parent
CLIENTS = names(3)
ROUNDS = 3
EPOCHS = 5


@dataclass
class Ran:
    """What a run printed, and the spans that came of it."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


def flower(*arguments: str, python: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / "flower.py", "--python", python, "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, **environ},
    )


def environment() -> str:
    python = os.environ.get("MAPEK_FLOWER")
    if not python:
        pytest.skip("MAPEK_FLOWER does not name the python of an environment with flwr")
    return python


@pytest.fixture(scope="module")
def ran() -> Ran:
    """Three rounds with the mean, and a collector."""
    python = environment()
    found = Ran()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                found.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            done = flower(
                "--clients", str(len(CLIENTS)), "--rounds", str(ROUNDS), "--limit", "600",
                python=python,
                OTEL_TRACES_EXPORTER="otlp",
                OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            )  # fmt: skip
        finally:
            server.shutdown()
            serving.join()
    assert done.returncode == 0, done.stderr
    found.lines = [json.loads(line) for line in done.stdout.splitlines()]
    return found


def learner(*, clients: int, poisoned: str = "") -> DigitsLearner:
    """The learner of the app, as `app/pyproject.toml` has it told."""
    made: DigitsLearner = runpy.run_path(str(HERE / "app" / "federated" / "digits.py"))["learner"](
        {"clients": clients, "digits.concentration": 0.3, "digits.seed": 0, "digits.poisoned": poisoned}
    )
    return made


def without_flower(of: DigitsLearner, rounds: int, method: Method = "mean") -> list[tuple[float, float]]:
    """Accuracy and loss after each round: the learner and the aggregation, called one after the other."""
    clients, weights, expected = tuple(of.split.clients), of.initial(), []
    for number in range(1, rounds + 1):
        done = [of.train(name, weights, EPOCHS, our_client._seed(name, number)) for name in clients]
        updates = [Update(each, samples) for each, samples, _ in done]
        made = aggregate(updates, weights, method=method, most_weight=2.0)
        weights = made.weights
        losses = [np.asarray(loss) for _, _, loss in done]
        loss = float(combine(losses, made.shares, method=method, trim=0.1))
        expected.append((of.accuracy(weights), loss))
    return expected


def same(lines: list[dict[str, Any]], expected: list[tuple[float, float]]) -> bool:
    """Whether they are the same rounds; another build of numpy may add up in another order."""
    return [(line["accuracy"], line["loss"]) for line in lines if line["round"]] == [
        (pytest.approx(accuracy, abs=0.01), pytest.approx(loss, rel=1e-3)) for accuracy, loss in expected
    ]


@pytest.mark.slow
def test_flower_makes_the_models_that_the_domain_makes(ran: Ran) -> None:
    expected = without_flower(learner(clients=len(CLIENTS)), ROUNDS)

    assert [line["clients"] for line in ran.lines if line["round"]] == [list(CLIENTS)] * ROUNDS
    assert same(ran.lines, expected), (ran.lines, expected)


@pytest.mark.slow
def test_a_round_of_flower_is_one_trace(ran: Ran) -> None:
    rounds = [span for span in ran.spans if span.name == "fl.aggregation"]
    trained = [span for span in ran.spans if span.name == "fl.local_training"]

    assert len(rounds) == len({span.trace_id for span in rounds}) == ROUNDS
    for each in rounds:
        clients = [attributes(span)["client_id"] for span in trained if span.parent_span_id == each.span_id]
        assert sorted(clients) == list(CLIENTS)
        assert {span.trace_id for span in trained if span.parent_span_id == each.span_id} == {each.trace_id}


@pytest.mark.slow
def test_every_node_adopts_the_last_model(ran: Ran) -> None:
    taken = [attributes(span) for span in ran.spans if span.name == "fl.model_download"]

    last = [each["client_id"] for each in taken if each["round"] == str(ROUNDS)]
    # Once to train it, and once for good: the number of the round that trains it, and of that which made it.
    assert sorted(last) == sorted(2 * CLIENTS)


@pytest.mark.slow
def test_flower_trims_as_the_domain_does_where_a_client_lies() -> None:
    done = flower(
        "--clients", "4", "--rounds", "2",
        "--set", 'fl.method="trimmed"', "--set", 'digits.poisoned="client-02"',
        python=environment(),
    )  # fmt: skip

    lied_to = learner(clients=4, poisoned="client-02")
    expected = without_flower(lied_to, 2, "trimmed")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert same(lines, expected), (lines, expected)
    assert lines[-1]["accuracy"] > without_flower(lied_to, 2)[-1][0] + 0.3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_run_that_is_ended_leaves_no_process() -> None:
    python, mark = environment(), f"MAPEK_TEST_MARK={uuid4()}"
    started = subprocess.Popen(
        [sys.executable, HERE / "flower.py", "--python", python, "--json", "--rounds", "50"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **dict([mark.split("=")])},
    )
    assert started.stdout is not None
    # By then everything runs: the server has found its clients.
    assert json.loads(started.stdout.readline())["round"] == 0
    running = marked(mark)

    started.terminate()
    started.communicate(timeout=60)

    # The driver, SuperLink, three SuperNodes, their SuperExecs, the server and `flwr run`.
    assert len(running) >= 11
    until = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def test_an_environment_without_flower_is_told_in_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'flwr'\" >&2; exit 1\n")
    empty.chmod(0o755)

    done = flower(python=str(empty))

    assert done.returncode == 2
    assert done.stderr.startswith(
        f"flower: {empty} cannot run Flower (ModuleNotFoundError: No module named 'flwr')"
    )
    assert "pip install flwr==1.41.0" in done.stderr
    assert done.stdout == ""


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}


def marked(mark: str) -> list[str]:
    """The processes that were started with `mark` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
