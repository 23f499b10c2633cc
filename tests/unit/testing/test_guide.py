"""docs/writing-a-plugin.md: its plugin works, and its tests pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapek_runtime.testing import AutojumpClock, Recorder

GUIDE = Path(__file__).parents[3] / "docs" / "writing-a-plugin.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


def load() -> dict[str, Any]:
    """The names of the guide's code, as one module."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in BLOCKS:
        exec(compile(block, "guide", "exec", dont_inherit=True), names)
    return names


NAMES = load()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("test_")])
async def test_the_guide_keeps_its_word(name: str, recorder: Recorder, autojump: AutojumpClock) -> None:
    test: Callable[..., Any] = NAMES[name]
    given = {"recorder": recorder, "autojump": autojump}

    await test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})
