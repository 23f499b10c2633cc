"""Processes that share a spool's directory, are killed in the middle, fork, and find the disk full."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapek_runtime.export.spool import Found, Spool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
START = """
import os, sys
from mapek_runtime.errors import SpoolError
from mapek_runtime.export.spool import Spool

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def batch(number):
    return b"%d " % number * 400

def number_of(record):
    number = int(record.payload.split()[0])
    assert record.payload == batch(number)
    return number

spool = Spool(sys.argv[1], segment_bytes=20_000)
"""
TIMEOUT = 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def start(program: str, directory: Path, *prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", START + program, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    printed, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, printed
    return printed.splitlines()


def kill_after(process: subprocess.Popen[str], lines: int, pause: float) -> list[str]:
    """Everything the process has said until it was killed, a moment after it said so many lines."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    time.sleep(pause)
    process.kill()
    rest = process.stdout.readlines()
    end(process)
    # The last line may be torn too.
    return [line for line in [*said, *rest] if line.endswith("\n")]


def end(process: subprocess.Popen[str]) -> None:
    """Wait for it, and close what it was spoken to by."""
    process.wait(TIMEOUT)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def drain(spool: Spool) -> Iterator[int]:
    while (record := spool.oldest()) is not None:
        number = int(record.payload.split()[0])
        assert record.payload == b"%d " % number * 400
        yield number
        spool.done(record)


def test_what_append_returned_for_survives_kill_9(directory: Path) -> None:
    program = """
first, fsync = sys.stdin.readline().split()
spool = Spool(sys.argv[1], segment_bytes=20_000, fsync=fsync)
spool.open()
number = int(first)
while True:
    number += 1
    spool.append(batch(number), 2)
    say(number)
"""
    returned: list[int] = []
    for round_, fsync in enumerate(("never", "segment", "always", "never")):
        process = start(program, directory)
        assert process.stdin is not None
        process.stdin.write(f"{round_ * 1_000_000} {fsync}\n")
        process.stdin.flush()
        returned += map(int, kill_after(process, 30 + 20 * round_, 0.003 * round_))

    spool = Spool(directory)
    found = spool.open()
    given = list(drain(spool))
    spool.close()

    assert len(returned) >= 200
    assert set(returned) <= set(given)
    assert given == sorted(set(given))
    assert len(set(given) - set(returned)) <= 4, "at most the one that was being written, in each round"
    assert found.spans == 2 * len(given)
    assert list(directory.iterdir()) == []


def test_what_done_returned_for_is_never_given_again(directory: Path) -> None:
    spool = Spool(directory, segment_bytes=20_000)
    spool.open()
    for number in range(600):
        spool.append(b"%d " % number * 400, 1)
    spool.close()
    program = """
spool.open()
while record := spool.oldest():
    say("had", number_of(record))
    spool.done(record)
    say("done", number_of(record))
"""
    had: list[int] = []
    done: list[int] = []
    for round_ in range(2):
        lines = kill_after(start(program, directory), 50 + 2 * round_, 0)
        had += [int(line.split()[1]) for line in lines if line.startswith("had")]
        done += [int(line.split()[1]) for line in lines if line.startswith("done")]
    found = spool.open()
    left = list(drain(spool))
    spool.close()

    assert len(done) == len(set(done)) >= 40
    assert set(done).isdisjoint(left)
    assert len(had) - len(set(had)) <= 2, "only what was between send and done is given again"
    # `done` may have ended without having been able to say so.
    assert set(range(600)) - set(had) <= set(left)
    assert found.spans == len(left)


def test_a_living_process_keeps_what_it_has_and_a_dead_one_leaves_it(directory: Path) -> None:
    process = start(
        "spool.open()\nfor n in 1, 2, 3: spool.append(batch(n), n)\nsay('ready')\ninput()", directory
    )
    assert process.stdout is not None
    process.stdout.readline()
    spool = Spool(directory)

    assert spool.open() == Found()
    process.kill()
    end(process)
    assert spool.adopt().spans == 6

    assert list(drain(spool)) == [1, 2, 3]
    spool.close()


def test_processes_that_start_together_take_over_each_batch_once(directory: Path) -> None:
    dead = [Spool(directory, segment_bytes=20_000) for _ in range(3)]
    for spool in dead:
        spool.open()
    for number in range(200):
        dead[number % 3].append(b"%d " % number * 400, 1)
    for spool in dead:
        spool.after_fork()
    program = """
say("ready")
sys.stdin.read()
spool.open()
while record := spool.oldest():
    say(number_of(record))
    spool.done(record)
spool.close()
"""
    processes = [start(program, directory) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None

    given = [int(line) for process in processes for line in finish(process)]

    assert sorted(given) == list(range(200))


def test_processes_that_come_and_go_on_one_directory_hand_on_every_batch(directory: Path) -> None:
    program = """
own = int(sys.stdin.readline())
for turn in range(60):
    spool.open()
    while record := spool.oldest():
        say("given", number_of(record))
        spool.done(record)
    for number in range(own + 3 * turn, own + 3 * turn + 3):
        spool.append(batch(number), 1)
        say("put", number)
    if turn % 2:
        spool.close()
    else:
        spool.after_fork()
        spool = Spool(sys.argv[1])
"""
    processes = [start(program, directory) for _ in range(3)]
    for index, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(f"{index * 1000}\n")
        process.stdin.flush()
    lines = [line.split() for process in processes for line in finish(process)]
    put = [int(number) for word, number in lines if word == "put"]
    given = [int(number) for word, number in lines if word == "given"]
    spool = Spool(directory)
    spool.open()
    given += drain(spool)
    spool.close()

    assert len(put) == 3 * 60 * 3
    assert sorted(given) == sorted(put)
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_the_child_of_a_fork_leaves_the_parents_files_alone(directory: Path) -> None:
    program = """
def mine():
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link) and ".spool" in os.readlink(link)]

os.register_at_fork(after_in_child=spool.after_fork)
spool.open()
for number in 1, 2: spool.append(batch(number), number)
spool.oldest()
held = mine()
if os.fork() == 0:
    say("inherited", len(mine()), spool.spans, spool.size_bytes)
    spool.append(batch(3), 3)
    say("own", len(set(mine()) & set(held)), spool.spans)
    sys.stdin.read()
    os._exit(0)
say("parent", len(held) >= 2, spool.spans)
sys.stdin.readline()
os._exit(0)
"""
    process = start(program, directory)
    assert process.stdout is not None
    assert process.stdin is not None
    said = {process.stdout.readline().strip() for _ in range(3)}
    assert said == {"inherited 0 0 0", "own 0 3", "parent True 3"}
    spool = Spool(directory)
    assert spool.open() == Found()

    process.stdin.write("go\n")
    process.stdin.flush()
    process.wait(TIMEOUT)
    assert spool.adopt().spans == 3, "the child, which still lives, does not hold the parent's lock"
    assert list(drain(spool)) == [1, 2]

    process.stdin.close()
    assert process.stdout.read() == ""
    process.stdout.close()
    assert spool.adopt().spans == 3
    assert list(drain(spool)) == [3]
    spool.close()


def test_a_file_that_may_not_grow_holds_only_what_append_returned_for(directory: Path) -> None:
    pytest.importorskip("resource", reason="limits on files are POSIX")
    program = """
import resource
spool.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
for number in range(10, 20):
    try:
        spool.append(batch(number), 1)
        say(number)
    except SpoolError as error:
        assert sys.argv[1] in str(error) and "File too large" in str(error), error
        assert spool.spans == number - 10
        break
os._exit(0)
"""
    returned = [int(line) for line in finish(start(program, directory))]
    spool = Spool(directory)
    found = spool.open()

    assert returned == [10, 11, 12, 13]
    assert (found.spans, found.torn_bytes) == (4, 0)
    assert list(drain(spool)) == returned
    spool.close()


def small_disks() -> bool:
    """Whether a disk of a few pages may be mounted, in a namespace of one process."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0


def test_a_full_disk_is_told_and_can_still_be_emptied(directory: Path) -> None:
    if not small_disks():
        pytest.skip("no right to mount a disk in a namespace of its own")
    directory.mkdir()
    program = """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", sys.argv[1]], check=True)
spool.open()
taken = []
def fill(number):
    while True:
        try:
            spool.append(batch(number), 1)
        except SpoolError as error:
            assert "No space left on device" in str(error), error
            return
        taken.append(number)
        number += 1
fill(100)
fill(200)
size = len(taken)
given = []
while record := spool.oldest():
    given.append(number_of(record))
    spool.done(record)
assert given == taken, (given, taken)
assert spool.size_bytes == 0
fill(300)
say(size, len(taken) - size, spool.take_lost())
"""
    prefix = ("unshare", "--user", "--map-root-user", "--mount")

    [line] = finish(start(program, directory, *prefix))

    before, after, lost = line.split(maxsplit=2)
    assert int(before) > 20
    assert int(after) > 20
    assert lost == "()"


def test_batches_wait_in_files_and_not_in_memory(directory: Path) -> None:
    program = """
import resource
spool = Spool(sys.argv[1])
spool.open()
spool.append(os.urandom(800_000), 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(100):
    spool.append(os.urandom(800_000), 1)
spool.close()
spool.open()
while record := spool.oldest():
    spool.done(record)
say(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
os._exit(0)
"""
    [line] = finish(start(program, directory))

    before, after = map(int, line.split())
    assert after - before < 8_000, "80 MB went through it, in kB"
