"""The slow loop sets the goal, every fast loop follows it, and the link is used less while it flaps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_flapping_link_rests_longer_because_the_slow_loop_wants_it() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "hierarchical_control.py", "75"],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )

    above, alone, goal, followed = done.stdout.splitlines()[:4]
    counts = [re.findall(r"failed (\d+) times in use, (\d+) actions", line)[0] for line in (above, alone)]
    (failed, acted), (failed_alone, acted_alone) = (tuple(map(int, each)) for each in counts)
    assert failed < failed_alone, done.stdout
    assert acted < acted_alone, done.stdout
    assert goal.endswith("mesh.cool_down node-1~node-2 is 60 s (was 5 s)")
    assert followed.endswith("on node-1, node-2, node-3, node-4, node-5")
