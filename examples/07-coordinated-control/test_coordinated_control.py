"""Of three nodes that find the same problem the leader alone acts, once, and the others say why not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def test_the_leader_alone_fails_the_database_over() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "coordinated_control.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        # Long enough for every node to have seen it, whatever else the machine has to do.
        env={**os.environ, "DATABASE_SECONDS": "4"},
    )

    lines = done.stdout.splitlines()
    leaders = [line.removesuffix(" leads") for line in lines if line.endswith(" leads")]
    (database,) = [line for line in lines if line.startswith("the database: ")]
    promoted = re.findall(r"(node-\d) promoted a standby", database)
    assert len(promoted) == 1
    assert promoted[0] in leaders
    reasons = dict(line.split(": ", 1) for line in lines if line.startswith("node-") and ": " in line)
    assert reasons.pop(promoted[0]) == "planned it"
    assert len(reasons) == 2
    assert all("leads" in reason for reason in reasons.values())
    assert lines[-1] == "the action has in its trace: raft.commit, raft.log_replicate"
