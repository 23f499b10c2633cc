"""Sampling: which traces are recorded.

The samplers are the SDK's interface and decide over values; none of them knows a network, a task or
an exporter. What polls or adapts is handed in from above.
"""

from __future__ import annotations

from .adaptive import AdaptiveSampler
from .cycles import CycleSampler
from .environment import sampler_from_environment
from .probability import ProbabilitySampler
from .remote import JaegerRemoteSampler
from .shortcut import Shortcut, shortcut

__all__ = [
    "AdaptiveSampler",
    "CycleSampler",
    "JaegerRemoteSampler",
    "ProbabilitySampler",
    "Shortcut",
    "sampler_from_environment",
    "shortcut",
]
