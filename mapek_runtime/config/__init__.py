"""Configuration: every setting, frozen, and where its value came from.

Precedence: defaults < file < `OTEL_*` < `MAPEK_*` < flags. This layer knows values, a file and
variables; it knows no span, no loop and no plugin. What a section of a domain means it is told as a
struct.
"""

from __future__ import annotations

from .address import without_secrets
from .decode import Configuration, decode
from .schema import Leaf, describe_type, leaves, variable_of
from .settings import (
    CopySettings,
    CycleSamplingSettings,
    ExportSettings,
    GuardSettings,
    KnowledgeSettings,
    LogSettings,
    LoopSettings,
    MetricsSettings,
    NodeSettings,
    RunSettings,
    SamplerSettings,
    Settings,
    SpoolSettings,
    WatchSettings,
    WebSettings,
)
from .sources import Sources, Value, read_sources

__all__ = [
    "Configuration",
    "CopySettings",
    "CycleSamplingSettings",
    "ExportSettings",
    "GuardSettings",
    "KnowledgeSettings",
    "Leaf",
    "LogSettings",
    "LoopSettings",
    "MetricsSettings",
    "NodeSettings",
    "RunSettings",
    "SamplerSettings",
    "Settings",
    "Sources",
    "SpoolSettings",
    "Value",
    "WatchSettings",
    "WebSettings",
    "decode",
    "describe_type",
    "leaves",
    "read_sources",
    "variable_of",
    "without_secrets",
]
