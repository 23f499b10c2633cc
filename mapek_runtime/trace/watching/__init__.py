"""Watching the program that is traced: spans that are open, spans never ended, and a loop that is held.

All of it is opt-in, because looking costs. It reads and marks spans and knows no exporter.
"""

from __future__ import annotations

from .lag import LoopLag
from .live import LiveSpans, OpenSpan

__all__ = ["LiveSpans", "LoopLag", "OpenSpan"]
