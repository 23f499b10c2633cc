"""The service: wires tracing, export, loop and domains into a program.

The only layer that knows everything. What it gives to other programs is `tracing`; the command
`mapek` is in `cli`.
"""

from __future__ import annotations

from .tracing import tracing

__all__ = ["tracing"]
