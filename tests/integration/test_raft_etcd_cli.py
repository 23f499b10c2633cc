"""`mapek run` with the etcd engine: it runs, or says in one line why not, and ends with 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapek_runtime.errors import EngineUnavailable
from tests.integration.etcd_cluster import EtcdCluster, etcdctl, free_ports, require_etcd
from tests.integration.running import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    try:
        require_etcd()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with EtcdCluster(tmp_path / "etcd") as servers:
        yield servers


def test_a_run_agrees_by_the_cluster(cluster: EtcdCluster, tmp_path: Path) -> None:
    done = run(tmp_path, *cluster.endpoints, duration=3.0)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [line["event"] for line in lines(done)].count("summary") == 1


def test_without_aetcd_it_says_how_to_get_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "aetcd"
    missing.mkdir(parents=True)
    missing.joinpath("__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'aetcd'\")\n")
    done = run(tmp_path, "127.0.0.1:2379", path=missing.parent)

    assert refusal(done) == (
        "mapek: raft: engine 'etcd' needs the package aetcd, which cannot be imported (No module named "
        "'aetcd'); pip install 'mapek-runtime[etcd]'; 'embedded' is the default and needs no server: leave "
        "out [raft] engine"
    )


def test_without_a_server_it_says_where_it_looked_and_how_to_get_one(tmp_path: Path) -> None:
    one, other = (f"127.0.0.1:{port}" for port in free_ports(2))
    said = refusal(run(tmp_path, one, other))

    assert said.startswith(
        f"mapek: raft: engine 'etcd' cannot use the cluster at {one}, {other}: no server answers there ("
    )
    assert "apt-get install etcd-server" in said
    assert "correct [raft.etcd] endpoints" in said
    assert "'embedded' is the default" in said


def test_without_a_majority_it_says_so(cluster: EtcdCluster, tmp_path: Path) -> None:
    for server in cluster.servers[1:]:
        server.kill()
    said = refusal(run(tmp_path, *cluster.endpoints))

    assert "the server that answers (etcd 3." in said
    assert "has no majority of its cluster" in said


def test_an_interrupted_run_leaves_nothing_behind_in_the_cluster(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(tmp_path, *cluster.endpoints, duration=60.0),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(tmp_path),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "started":
                break
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=45.0)
    finally:
        process.kill()

    assert process.returncode in {0, 143}, err
    there = etcdctl(cluster.servers[0], "get", "/fleet/", "--prefix", "--keys-only")
    assert there.get("kvs", []) == []


def command(folder: Path, *endpoints: str, duration: float = 5.0) -> tuple[str, ...]:
    file = folder / "mapek.toml"
    file.write_text(
        'domains = ["raft"]\n[node]\ncount = 3\n[raft]\nengine = "etcd"\n'
        f'[raft.etcd]\nprefix = "/fleet"\ndial = 2.0\nendpoints = {json.dumps(endpoints)}\n'
    )
    cli = (sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json")
    return (*cli, "--config", str(file), "--duration", str(duration))


def run(
    folder: Path, *endpoints: str, duration: float = 5.0, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    found = environment(folder)
    if path is not None:
        found["PYTHONPATH"] = os.pathsep.join([str(path), found.get("PYTHONPATH", "")])
    return subprocess.run(
        command(folder, *endpoints, duration=duration),
        capture_output=True, text=True, cwd=folder, env=found, timeout=60.0, check=False,
    )  # fmt: skip


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why it cannot start."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mapek: ")]
    return line
