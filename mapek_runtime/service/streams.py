"""Standard streams for a process that was started without them.

A supervisor may close them, and then two things go wrong: Python has None in their place, and the next
socket gets their number, so that whatever writes to "standard error" writes into it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["open_missing_streams"]


def open_missing_streams() -> None:
    """Put the null device in the place of each standard stream that is closed."""
    # The lowest free number is given first: until it is beyond the three, one of them was missing.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as it lives
