"""Trace and span ids from a generator of our own.

The stock generator draws from `random`'s shared state, so a program that calls `random.seed(42)`
gives two processes the same trace ids. Ours is seeded by the operating system and again after a fork.
"""

from __future__ import annotations

import os
from random import Random

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

__all__ = ["LeanIdGenerator", "draw_bits"]

_random = Random()  # ids need to be different, not secret
draw_bits = _random.getrandbits

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


class LeanIdGenerator(RandomIdGenerator):
    """Random ids of 128 and 64 bits, never zero, untouched by `random.seed`."""

    def generate_span_id(self) -> int:
        """A 64-bit id that is not zero."""
        return draw_bits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """A 128-bit id that is not zero."""
        return draw_bits(128) or self.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """All bits are random (W3C Trace Context level 2)."""
        return True
