"""Configuration: every setting, frozen, and where its value came from.

Precedence: defaults < file < `OTEL_*` < `MAPEK_*` < flags. This layer knows values, a file and
variables; it knows no span, no loop and no plugin. What a section of a domain means it is told as a
struct.
"""

from __future__ import annotations

from .address import is_everywhere, is_loopback, split_listen, without_secrets
from .decode import Configuration, decode
from .hierarchy import HierarchySettings
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
    StoreSettings,
    WatchSettings,
)
from .sources import Sources, Value, read_sources
from .web import WebSettings

__all__ = [
    "Configuration",
    "CopySettings",
    "CycleSamplingSettings",
    "ExportSettings",
    "GuardSettings",
    "HierarchySettings",
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
    "StoreSettings",
    "Value",
    "WatchSettings",
    "WebSettings",
    "decode",
    "describe_type",
    "is_everywhere",
    "is_loopback",
    "leaves",
    "read_sources",
    "split_listen",
    "variable_of",
    "without_secrets",
]
