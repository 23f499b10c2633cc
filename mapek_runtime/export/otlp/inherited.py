"""What the child of a fork does with connections that belong to its parent.

Nothing of a transport may be used there: closing one says goodbye to the peer, and takes it out of the
selector, which parent and child share. So the child closes the bare descriptors, which the parent does
not notice, and the objects live on for ever: collected, they would warn, and close by its number a
descriptor that is somebody else's by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["leave_to_parent"]


def leave_to_parent(descriptors: Iterable[int], *owners: object) -> None:
    """Close `descriptors` in this process only, and keep their `owners` from ever being collected."""
    # Needed in a child alone, and not by every program that exports.
    import ctypes

    keep = ctypes.py_object(owners)
    # A reference that nobody gives back, so that the end of the interpreter does not collect them either.
    ctypes.pythonapi.Py_IncRef(keep)
    for descriptor in set(descriptors):
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
