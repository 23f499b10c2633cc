"""What the master plans the workers do, and the master that is killed is followed by another."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_workers_do_what_the_master_plans_and_a_master_that_is_killed_is_followed_by_another() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "master_worker.py"],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )

    before, after, *masters = done.stdout.splitlines()
    assert before == "3 workers watch 6 sites, each one of them"
    killed = re.fullmatch(r"(node-\d) was master and is killed: 2 workers watch 6 sites", after)
    assert killed is not None
    found = dict(re.findall(r"^master@(node-\d) is followed by (.*)$", "\n".join(masters), re.MULTILINE))
    left = {"node-1", "node-2", "node-3"} - {killed[1]}
    # Of what the killed one had not stored yet nothing is known; of its follower all is.
    later = [set(followers.split(", ")) for master, followers in found.items() if master in left]
    assert left in later
