"""What a run of Flower is told, in the words of the fl domain: the learner, and its settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from mapek_domains.fl.learner import Learner, Weights
from mapek_domains.fl.settings import FlSettings

__all__ = ["Scored", "learner_of", "settings_of"]


@runtime_checkable
class Scored(Protocol):
    """A learner that can say how good a model is, on samples that nobody trains on."""

    def accuracy(self, weights: Weights) -> float:
        """From 0 to 1."""


def learner_of(config: Mapping[str, Any]) -> Learner:
    """The learner that `learner` names as module:function; the function is given the configuration."""
    module, _, name = str(config["learner"]).partition(":")
    make: Callable[[Mapping[str, Any]], Learner] = getattr(importlib.import_module(module), name)
    return make(config)


def settings_of(config: Mapping[str, Any]) -> FlSettings:
    """The keys under `fl`; raises `msgspec.ValidationError` as the section of a configuration would."""
    mine = {key.removeprefix("fl."): value for key, value in config.items() if key.startswith("fl.")}
    return msgspec.convert(mine, FlSettings)
