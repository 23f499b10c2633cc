"""The spool: what a collector did not take is kept on disk until it is back.

`store` is the queue on disk, made of `segment`s on a `shelf` in a `folder` that belongs to one process;
`sink` decides what goes there and when it is sent. Only `sink` knows of exporters and event loops.
"""

from __future__ import annotations

from .exporter import SpooledExporter
from .store import Found, Fsync, Lost, Record, Spool

__all__ = ["Found", "Fsync", "Lost", "Record", "Spool", "SpooledExporter"]
