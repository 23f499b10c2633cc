"""What one node has learned decides what the other does, and came to it in the trace of the learning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def test_node_2_knows_what_node_1_has_learned() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "information_sharing.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    told = done.stdout.splitlines()
    assert told[:-2] == [
        "node-1: reboot printer of node-1",
        "node-1: repair.failed printer of node-1",
        "node-1: clear_paper printer of node-1",
        "node-1: repair.verified printer of node-1",
        "node-2: clear_paper printer of node-2",
        "node-2: repair.verified printer of node-2",
    ]
    assert told[-2] == "node-2 did not reboot it: it has worked in 0% of the cases, on any node"
    merged = re.fullmatch(r"node-2 merged (\d+) things in the traces of .* node-1 learned them", told[-1])
    assert merged is not None
    assert int(merged[1]) >= 2
