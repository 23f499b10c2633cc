"""Learners of the fl domain over Flower: a SuperLink, SuperNodes and a run on this machine.

    python examples/11-flower/flower.py [--python PYTHON] [--clients 3] [--rounds 5] [--set 'fl.trim=0.2']

`--python` is that of an environment with Flower (default: $MAPEK_FLOWER); without one, `.venv-flower` is made
in the repository. Everything is on loopback, and everything that was started is ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLOWER = "flwr==1.41.0"
"""What this was seen with. Its protocol, commands and ports change between minor versions."""
_NEEDED = "import flwr, mapek_runtime, mapek_domains.fl.settings, sklearn"
_GRACE = 10.0


class Failed(Exception):
    """The run cannot be, or has come to nothing."""


def environment(python: Path, home: Path) -> dict[str, str]:
    """What the processes are told: to call nobody, and to send spans only where somebody asked for it."""
    exported = any(key.startswith("OTEL_EXPORTER_OTLP") for key in os.environ)
    return {
        "OTEL_TRACES_EXPORTER": "otlp" if exported else "none",
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Flower finds its own commands there.
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "domains")]),
        # One process a client: their threads would only take the processor from one another.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def found(python: str | None) -> Path:
    """The python of an environment with Flower; raises `Failed` where it has none. Makes one for None."""
    # Not resolved: the python of an environment is a link to one outside of it.
    path = Path(python).absolute() if python else made()
    told = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "domains")])}
    try:
        done = subprocess.run([path, "-c", _NEEDED], capture_output=True, text=True, env=told, check=False)
    except OSError as error:
        raise Failed(f"{path} cannot be run: {error.strerror}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failed(
            f"{path} cannot run Flower ({reason}); install it in an environment of its own: "
            f"{path} -m pip install {FLOWER} scikit-learn {ROOT}"
        )
    return path


def made() -> Path:
    """The environment in the repository."""
    folder = ROOT / ".venv-flower"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {FLOWER}", flush=True)
        venv.create(folder, with_pip=True)
        command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", FLOWER, "scikit-learn", ROOT]
        if subprocess.run(command, check=False).returncode:
            raise Failed(f"{FLOWER} could not be installed: {' '.join(map(str, command))}")
    return python


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, told: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with all that it starts."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=told, start_new_session=True
        )
    try:
        yield process
    finally:
        groups = groups_of(process.pid)
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # What it started should end by itself when it is gone, and does not where it waits for an answer.
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def groups_of(process: int) -> set[int]:
    """The process groups of a process that leads its own and of all that descend from it: a SuperLink gives
    what it starts a session of its own."""
    command = ["ps", "-e", "-o", "pid=,ppid=,pgid="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    groups, descent = {process}, {process}
    while new := {pid for pid, parent, _ in rows if parent in descent} - descent:
        descent |= new
        groups |= {group for pid, _, group in rows if pid in new}
    return groups


def run(python: Path, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the server says after each round, the first time before any."""
    home, report = folder / "flwr", folder / "report.jsonl"
    told, commands = environment(python, home), python.parent
    link, *ports = (f"127.0.0.1:{port}" for port in free_ports(1 + options.clients))
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{link}"\ninsecure = true\n', "utf-8"
    )
    report.touch()
    with ExitStack() as stack:

        def start(name: str, *command: str | Path) -> subprocess.Popen[bytes]:
            return stack.enter_context(running(command, folder / f"{name}.log", told))

        host, port = link.split(":")
        services = {
            "superlink": start(
                "superlink", commands / "flower-superlink", "--insecure", "--host", host, "--port", port,
                "--disable-runtime-dependency-installation",
            )
        }  # fmt: skip
        until = time.monotonic() + options.limit
        wait_for(link, services, folder, until)
        for number, address in enumerate(ports):
            name = f"client-{number:02}"
            host, port = address.split(":")
            services[name] = start(
                name, commands / "flower-supernode", "--insecure", "--superlink", link, "--host", host,
                "--port", port, "--node-config", f'name="{name}"',
            )  # fmt: skip
        own = [f"rounds={options.rounds}", f"clients={options.clients}", f'report="{report}"']
        asked = [part for each in (*own, *options.set) for part in ("--run-config", each)]
        services["run"] = start("run", commands / "flwr", "run", HERE / "app", "here", "--stream", *asked)
        yield from told_by(report, services, folder, rounds=options.rounds, until=until)


def told_by(
    report: Path,
    services: Mapping[str, subprocess.Popen[bytes]],
    folder: Path,
    *,
    rounds: int,
    until: float,
) -> Iterator[dict[str, Any]]:
    """The lines of the report as they come, until the run is over."""
    seen = 0
    while True:
        over = services["run"].poll() is not None
        lines = report.read_text("utf-8").splitlines(keepends=True)
        for line in lines[seen:]:
            if line.endswith("\n"):
                seen += 1
                yield json.loads(line)
        if over:
            break
        check(services, folder, until, but="run")
        time.sleep(0.2)
    if seen < rounds + 1 or services["run"].returncode:
        raise Failed(f"the run ended after {max(seen - 1, 0)} of {rounds} rounds{tail(folder / 'run.log')}")


def check(
    services: Mapping[str, subprocess.Popen[bytes]], folder: Path, until: float, *, but: str = ""
) -> None:
    """Raise `Failed` where one of them has ended, or the time is over."""
    for name, process in services.items():
        if name != but and process.poll() is not None:
            raise Failed(f"{name} ended with {process.returncode}{tail(folder / f'{name}.log')}")
    if time.monotonic() > until:
        raise Failed(f"the time is over{tail(folder / 'run.log')}{tail(folder / 'superlink.log')}")


def wait_for(
    address: str, services: Mapping[str, subprocess.Popen[bytes]], folder: Path, until: float
) -> None:
    """Wait until somebody listens there."""
    host, port = address.split(":")
    while True:
        check(services, folder, until)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def tail(log: Path) -> str:
    """The end of a log, for a message."""
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    return f"; the end of {log.name}:\n" + "\n".join(text.splitlines()[-25:])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Learners of the fl domain over Flower.")
    parser.add_argument(
        "--python", default=os.environ.get("MAPEK_FLOWER"), help="of an environment with flwr"
    )
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="of the run, as in app/pyproject.toml")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for everything")
    parser.add_argument("--json", action="store_true", help="a line of JSON after each round")
    options = parser.parse_args()

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    # What was started is ended then too.
    signal.signal(signal.SIGTERM, ended)
    try:
        python = found(options.python)
        with tempfile.TemporaryDirectory(prefix="mapek-flower-") as folder:
            for line in run(python, Path(folder), options):
                print(json.dumps(line) if options.json else legible(line), flush=True)
    except Failed as error:
        print(f"flower: {error}", file=sys.stderr)
        return 2
    return 0


def legible(line: Mapping[str, Any]) -> str:
    """A line of the report, for people."""
    if not line["round"]:
        return f"before     accuracy {line['accuracy']:.3f}"
    refused = "".join(f", {name} refused: {reason}" for name, reason in line["refused"].items())
    return (
        f"round {line['round']:4} accuracy {line['accuracy']:.3f}  {len(line['clients'])} clients{refused}"
        f"  after {line['seconds']} s"
    )


if __name__ == "__main__":
    sys.exit(main())
