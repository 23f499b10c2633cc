"""Two planners upgrade their regions, and never have both gateways down, because they agree on it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_planners_decide_for_their_regions_and_agree_on_what_both_share() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "regional_planning.py"],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        # Long enough for the other planner to have asked too, whatever else the machine has to do.
        env={**os.environ, "INSTALL_SECONDS": "5"},
    )

    journal, *said = done.stdout.splitlines()
    down: set[str] = set()
    for line in journal.removeprefix("the machines: ").split("; "):
        machine, state = line.split()
        (down.add if state == "down" else down.remove)(machine)
        assert not {"north-1", "south-1"} <= down, journal
        assert sum(each.startswith("north") for each in down) <= 1, journal
        assert sum(each.startswith("south") for each in down) <= 1, journal
    assert journal.count(" up") == 4
    for region in ("north", "south"):
        assert f"{region}: {region}-1, {region}-2 did what was planned" in said
        assert f"{region}: agreed with the other region" in said
    waited = [line for line in said if re.fullmatch(r"(north|south) waited: .*", line)]
    assert len(waited) == 1
    assert waited[0] in {
        "north waited: south-1 has another gateway down",
        "south waited: north-1 has another gateway down",
    }
