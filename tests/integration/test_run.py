"""The main job: `mapek run` as a process, on real sockets and real time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

import pytest

COMMAND = (sys.executable, "-m", "mapek_runtime.service.cli")
TERMS = {"ended", "recovered", "exported", "dropped", "held", "queued", "in_flight", "spooled"}
LIMIT = 45.0


def environment(folder: Path, **more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "MAPEK_"))}
    return {**plain, "XDG_STATE_HOME": str(folder), **more}


def start(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(folder, **more),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def refuse(folder: Path, *arguments: str) -> str:
    """Run what cannot start; the one line that says why."""
    done = subprocess.run(
        [*COMMAND, "run", "--duration", "5", *arguments],
        capture_output=True, text=True, cwd=folder, env=environment(folder), timeout=LIMIT, check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mapek: ")]
    return line


def holds(spans: dict[str, Any]) -> bool:
    settled = spans["exported"] + sum(spans["dropped"].values())
    waiting = spans["held"] + spans["queued"] + spans["in_flight"] + spans["spooled"]
    return bool(spans["ended"] + spans["recovered"] == settled + waiting)


Ended = tuple[int, list[dict[str, Any]], str]


@pytest.fixture(autouse=True, scope="module")
def chaos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Ended]]]:
    """The same chaos healed and not healed, beside the other tests of this file, which come before."""
    chaos = ("--chaos", "--seed", "7", "--duration", "9", "--json")
    folder = tmp_path_factory.mktemp("state")
    if not any("runs" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield {}
        return
    healed, watched = start(folder, *chaos), start(folder, *chaos, "--no-heal")
    try:
        with ThreadPoolExecutor(2) as pool:
            yield {"heal": pool.submit(finish, healed), "no-heal": pool.submit(finish, watched)}
    finally:
        healed.kill()
        watched.kill()


@pytest.fixture
def runs(chaos: dict[str, Future[Ended]]) -> dict[str, Ended]:
    """The two, when they are over."""
    return {kind: run.result() for kind, run in chaos.items()}


def wait_for(out: IO[str], event: str) -> None:
    for line in out:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"the run ended without {event}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_run_with_its_summary(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "--nodes", "3", "--json")
    assert process.stdout is not None
    wait_for(process.stdout, "started")

    process.send_signal(number)
    code, lines, err = finish(process)

    assert code == 0, err
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["cycles"] >= 1
    assert lines[-1]["cycles_cancelled"] == 0
    assert holds(lines[-1]["spans"])


SLOW = """
import asyncio

class Slow:
    async def monitor(self, cycle):
        await asyncio.sleep(3600)
"""


@pytest.mark.slow
def test_a_second_signal_cancels_the_cycle_that_the_first_one_waits_for(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    process = start(
        tmp_path, "--domains", "", "--plugin", "slow:Slow", "--nodes", "1", "--json",
        MAPEK_LOOP_MONITOR_LIMIT="4000",
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    wait_for(process.stdout, "started")

    process.send_signal(signal.SIGTERM)
    while "finished first" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, lines, err = finish(process)

    assert code == 0, err
    assert lines[-1]["cycles_cancelled"] == 1
    # The cancelled cycle is told as well: its span, the phase that ran, and those that did not.
    assert lines[-1]["spans"]["exported"] == 6


DOER = """
from mapek_runtime import Action, Outcome, plan, analyze, Finding, monitor, execute

class Doer:
    async def monitor(self, cycle):
        return []
    async def analyze(self, cycle):
        return [Finding(target="lamp", problem="dark")]
    async def plan(self, cycle):
        return [Action(name="switch", target="lamp", finding=finding) for finding in cycle.findings]
    async def execute(self, cycle, action):
        return Outcome(action=action, success=True, changed="bright")

@monitor
async def other(cycle):
    return []

class Wrong:
    async def monitor(self):
        return []

class Again:
    name = "Doer"
    async def monitor(self, cycle):
        return []
"""


@pytest.fixture
def doer(tmp_path: Path) -> Path:
    (tmp_path / "doer.py").write_text(DOER)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "done"), [((), 1), (("--dry-run",), 0)], ids=["executes", "dry run"])
def test_a_plugin_of_ones_own_runs_without_being_packaged(
    flags: tuple[str, ...], done: int, doer: Path
) -> None:
    plugins = ("--domains", "", "--plugin", "doer:Doer", "--plugin", "doer:other")

    code, lines, err = finish(start(doer, *plugins, "--nodes", "1", "--duration", "0.5", "--json", *flags))

    assert code == 0, err
    assert any("switch lamp" in line["actions"] for line in lines if line["event"] == "cycle")
    assert lines[-1]["actions"] == done


@pytest.mark.slow
def test_without_json_the_summary_is_for_people(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--nodes", "2", "--duration", "0.5"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path), timeout=LIMIT, check=True,
    )  # fmt: skip

    assert "started" in done.stdout
    assert re.search(r"\d+ cycles on 2 nodes in ", done.stdout)
    assert "0 dropped, 0 waiting" in done.stdout


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_the_run(tmp_path: Path) -> None:
    process = start(tmp_path, "--nodes", "2", "--duration", "1", "--json", "--chaos")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert process.wait(LIMIT) == 0, err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "node.toml"
        file.write_text(f'[mesh]\nlisten = "{where}"\npeers = {{node-2 = "127.0.0.1:1"}}\n')

        line = refuse(tmp_path, "--config", str(file))

    assert where in line
    assert "another program has that port" in line


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)
        ]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_two_processes_are_two_nodes_of_a_real_deployment(tmp_path: Path) -> None:
    ports = dict(zip(("east", "west"), free_ports(2), strict=True))
    processes = {}
    for node, other in (("east", "west"), ("west", "east")):
        file = tmp_path / f"{node}.toml"
        file.write_text(
            f'state = "{tmp_path}"\n[node]\nid = "{node}"\n[loop]\ninterval = 0.1\n'
            f'[mesh]\nlisten = "127.0.0.1:{ports[node]}"\npeers = {{{other} = "127.0.0.1:{ports[other]}"}}\n'
        )
        processes[node] = start(
            tmp_path, "--config", str(file), "--duration", "4", "--json", MAPEK_EXPORT_EXPORTER="console"
        )
    ended = {node: finish(process) for node, process in processes.items()}

    for node, (code, lines, err) in ended.items():
        assert code == 0, err
        (started,) = [line for line in lines if line["event"] == "started"]
        assert started["nodes"] == [node]
        assert lines[-1]["cycles"] >= 10
        # Each has found the other, over real datagrams, and kept what it learned.
        assert re.search(r'mesh\.node_discovery .*"nodes_discovered": 1', err)
        knowledge = sqlite3.connect(tmp_path / "knowledge" / f"{node}.sqlite")
        with closing(knowledge):
            assert knowledge.execute("SELECT count(*) FROM fact WHERE key LIKE '%east~west%'").fetchone()[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plugin", "doer:Doer", "--plugin", "doer:Again"), "two plugins are named 'Doer'"),
        (("--plugin", "doer:Wrong"), "async def monitor(self, cycle: Cycle) -> Iterable[Observation]"),
        (("--plugin", "doer:Deor"), "did you mean 'Doer'?"),
        (("--config", "missing.toml"), "there is no such file"),
        (("--nodes", "0"), "--nodes is 0; it must be a whole number from 1 to 100"),
        (("--chaos", "--domains", "", "--plugin", "doer:Doer"), "no running domain can make faults"),
    ],
    ids=["two of one name", "wrong signature", "misspelt", "no file", "wrong flag", "chaos without a domain"],
)
def test_what_cannot_run_is_one_clear_line_and_exit_2(
    arguments: tuple[str, ...], said: str, doer: Path
) -> None:
    assert said in refuse(doer, *arguments)


FULL_DISK = """
import asyncio, resource, signal, sqlite3, sys
from pathlib import Path
from mapek_runtime import BatchSpanProcessor, Insight, Knowledge, Runtime, TracerProvider, learn
from mapek_runtime.export import MemorySpanExporter
from mapek_runtime.loop.knowledge_sqlite import SqliteStore
from mapek_runtime.trace import use_provider

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1]) / "knowledge.sqlite"

@learn
async def learner(cycle):
    cycle.knowledge.remember(f"fact-{cycle.number}", "x" * 4096)
    return [Insight(name="learned")]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    exporter = MemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    failed = []
    with use_provider(provider):
        knowledge = Knowledge(SqliteStore(path))
        notice = lambda cycle: failed.extend(cycle.failures)
        async with Runtime(learner, knowledge=knowledge, interval=0.02, on_cycle=notice) as runtime:
            await runtime.wait(cycles=2)
            limit(path.stat().st_size + 8192)
            while not failed:
                await runtime.wait(cycles=1)
            before = runtime.statistics().cycles
            await runtime.wait(cycles=5)
            assert runtime.statistics().cycles >= before + 5
            limit(resource.RLIM_INFINITY)
            last = (await runtime.wait(cycles=1)).number
    await provider.ashutdown()
    errors = [s for s in exporter.finished_spans if s.name == "mape_k.knowledge" and not s.status.is_ok]
    assert errors and any(e.name == "exception" for s in errors for e in s.events), errors
    assert "knowledge.sqlite" in errors[0].status.description, errors[0].status.description
    kept = {key for (key,) in sqlite3.connect(path).execute("SELECT key FROM fact")}
    assert {f"fact-{n}" for n in range(1, last + 1)} <= kept, (last, len(kept))
    print("kept", last)

asyncio.run(main())
"""


def test_a_full_disk_under_knowledge_stands_on_its_span_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, timeout=LIMIT, check=False, env=environment(tmp_path),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kept ")


@pytest.mark.parametrize("kind", ["heal", "no-heal"])
def test_a_run_of_chaos_ends_with_the_summary_as_pinned(kind: str, runs: dict[str, Any]) -> None:
    code, lines, err = runs[kind]

    assert code == 0, err
    summary = lines[-1]
    assert [line["event"] for line in lines].count("summary") == 1
    assert summary["event"] == "summary"
    assert summary["cycles"] > 100
    assert summary["faults_injected"] >= 1
    assert set(summary["repair_ms"]) == {"median", "p95"}
    assert 0 < summary["delivery_ratio"] <= 1
    assert isinstance(summary["wrong_actions"], int)
    assert set(summary["spans"]) == TERMS
    assert holds(summary["spans"])
    # A cycle and its five phases at least: nothing of them was lost.
    assert summary["spans"]["exported"] >= 6 * summary["cycles"]


def test_healing_heals_and_watching_does_not_act(runs: dict[str, Any]) -> None:
    healed, watched = runs["heal"][1][-1], runs["no-heal"][1][-1]

    assert healed["faults_healed"] >= 1
    assert healed["repair_ms"]["median"] > 0
    assert healed["actions"] >= 1
    assert watched["actions"] == 0


def test_both_runs_had_the_same_faults(runs: dict[str, Any]) -> None:
    faults = [
        [(line["kind"], line["target"]) for line in runs[kind][1] if line["event"] == "fault.injected"]
        for kind in ("heal", "no-heal")
    ]

    assert faults[0]
    assert faults[0] == faults[1]


def test_a_log_line_written_inside_a_span_carries_its_ids(runs: dict[str, Any]) -> None:
    logged = [json.loads(line) for line in runs["heal"][2].splitlines() if line.startswith("{")]

    drained = next(line for line in logged if line["event"] == "link.drained")
    assert re.fullmatch("[0-9a-f]{32}", drained["trace_id"])
    assert re.fullmatch("[0-9a-f]{16}", drained["span_id"])
