"""The example keeps its traces in a file, and both questions are answered from it."""

import subprocess
import sys
from pathlib import Path

from mapek_runtime.store import TraceStore

HERE = Path(__file__).parent


def run(*arguments: Path) -> list[str]:
    # In a process of its own: it sets the tracer provider, which can be set once.
    done = subprocess.run(
        [sys.executable, HERE / "see_the_loop.py", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


async def test_the_questions_are_answered_and_the_traces_are_still_there_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "room.sqlite"

    answers = [line for line in run(file) if line.startswith("  ")]

    assert answers == [
        "  cycle 1 acted; its trace has 6 spans",
        "  a cycle after it saw that it worked, and is linked to it",
    ]
    async with TraceStore(file, read_only=True) as store:
        assert await store.services() == ("room",)
        assert (await store.contents()).spans == 12
