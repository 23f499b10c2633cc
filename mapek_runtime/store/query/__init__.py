"""Questions to the store: two ways to write them, one tree, and the way to SQL.

`parse` reads TraceQL and the seed's syntax into the values of `syntax`; `to_traceql` writes these again.
Knows nothing of who asks.
"""

from __future__ import annotations

from .parse import parse
from .seed import parse_seed
from .traceql import parse_field, parse_traceql
from .unfinished import parse_unfinished
from .unparse import field_text, to_traceql

__all__ = [
    "field_text",
    "parse",
    "parse_field",
    "parse_seed",
    "parse_traceql",
    "parse_unfinished",
    "to_traceql",
]
