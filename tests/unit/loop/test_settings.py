"""The settings of a `Runtime`: what is wrong stops the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mapek_runtime import Cycle, Observation, Runtime
from mapek_runtime.config import LoopSettings
from mapek_runtime.errors import ConfigError, PluginConflict


class Sensor:
    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interval": 0}, "interval"),
        ({"interval": -1.0}, "interval"),
        ({"interval": float("inf")}, "finite"),
        ({"interval": float("nan")}, "interval"),
        ({"interval": "often"}, "interval"),
        ({"interval": object()}, "interval"),
        ({"overlap": "both"}, "overlap"),
        ({"intervall": 1.0}, "no setting intervall=1.0; it has .*interval"),
        ({"monitor_retries": -1}, "monitor_retries"),
        ({"guard": {"cooldwn": 1}}, "cooldwn"),
        ({"settings": LoopSettings(interval=-1.0)}, "interval"),
        ({"settings": {"interval": 1.0}}, "LoopSettings"),
    ],
)
def test_a_wrong_setting_is_a_config_error(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Runtime(Sensor(), **settings)


def test_keywords_win_over_settings() -> None:
    runtime = Runtime(Sensor(), settings=LoopSettings(interval=5, jitter=1), interval=2)

    assert (runtime.settings.interval, runtime.settings.jitter) == (2.0, 1.0)


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(PluginConflict, match="two plugins are named 'Sensor'"):
        Runtime(Sensor(), Sensor())
