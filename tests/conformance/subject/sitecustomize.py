"""Puts our classes in place of the stock SDK's when a process starts.

Python imports this module at its start when this folder is on `PYTHONPATH`, so the processes that
upstream's tests start get our classes too.
"""

from __future__ import annotations

from importlib import import_module

import_module("substitution")
