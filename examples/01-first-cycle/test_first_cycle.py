"""The example runs, is short, and prints what its README says."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_room_is_cooled_and_the_repair_is_verified() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "first_cycle.py"], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.startswith("cool of room worked 0.1")


def test_it_has_fewer_than_twenty_lines() -> None:
    lines = [line for line in (HERE / "first_cycle.py").read_text().splitlines() if line.strip()]

    assert len(lines) < 20
