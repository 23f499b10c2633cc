"""What a collector misses while it is away arrives when it is back, once."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nothing_lost", Path(__file__).parent / "nothing_lost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nothing_lost"] = module
    spec.loader.exec_module(module)
    return module


async def test_what_a_collector_missed_arrives_when_it_is_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    received = await load().main(tmp_path)

    names = [f"{when} {number}" for when in ("there", "away", "back") for number in (1, 2, 3)]
    assert Counter(received) == Counter(names)
    assert capsys.readouterr().out.splitlines() == [
        "first process: 6 ended + 0 recovered = 3 exported + 0 dropped + 3 spooled",
        "second process: 3 ended + 3 recovered = 6 exported + 0 dropped + 0 spooled",
    ]
