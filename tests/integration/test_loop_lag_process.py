"""A process that is suspended, debugged, interrupted, forked or ended while its loop is watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


def in_a_process(body: str) -> subprocess.Popen[str]:
    lines = "\n".join(f"        {line}" for line in body.strip().splitlines())
    program = (
        "import asyncio, json, os, signal, sys, threading, time\n"
        "from mapek_runtime.trace.watching.lag import LoopLag\n"
        f"async def main():\n    async with LoopLag() as lag:\n{lines}\n"
        "    print(json.dumps(lag.as_dict()))\nasyncio.run(main())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_suspended_process_is_not_a_late_loop() -> None:
    process = in_a_process("print('up', flush=True)\nawait asyncio.sleep(1.5)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.8)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=20)

    assert errors == ""
    found = json.loads(output)
    assert found["stood_still"] == 1
    assert found["blockers"] == []
    assert found["lag"]["max"] < 0.4


def test_a_debugger_that_waits_is_not_a_late_loop() -> None:
    process = in_a_process("await asyncio.sleep(.1)\nbreakpoint()\nawait asyncio.sleep(.2)")
    assert process.stdin is not None
    time.sleep(1.5)

    output, _ = process.communicate("continue\n", timeout=20)

    assert '"blockers": []' in output


def test_an_interrupt_of_a_blocked_program_goes_where_it_always_goes() -> None:
    process = in_a_process(
        "print('up', flush=True)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        # In a function: CPython 3.13.0 has a gap where a bare loop in a `try` lets the interrupt through.
        "def spin():\n    end = time.monotonic() + 20\n    while time.monotonic() < end: pass\n"
        "try:\n    spin()\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)

    assert output.startswith("interrupted")
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_is_not_watched_and_ends_well() -> None:
    process = in_a_process(
        "await asyncio.sleep(.05)\n"
        "child = os.fork()\n"
        "time.sleep(.3)\n"
        "if child == 0:\n"
        "    assert [t.name for t in threading.enumerate()] == ['MainThread']\n"
        "    assert lag.blockers() == ()\n"
        "    await lag.stop()\n"
        "    os._exit(7)\n"
        "print('child', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)"
    )

    output, _ = process.communicate(timeout=20)

    assert output.startswith("child 7")
    assert process.returncode == 0


def test_a_process_that_ends_while_the_loop_is_held_ends_well() -> None:
    process = in_a_process("time.sleep(.15)\nsys.exit(3)")

    _, errors = process.communicate(timeout=20)

    assert process.returncode == 3
    assert "Fatal" not in errors
