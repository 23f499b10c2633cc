"""What gzip packed, unpacked up to a limit: a few kilobytes can hold gigabytes.

Members that follow one another are one body, as RFC 1952 has it; anything else behind the last one is
refused. What is unpacked is kept once: the buffer that grows is the body that is given.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Final

__all__ = ["MOST_MEMBERS", "TooLarge", "inflate"]

MOST_MEMBERS: Final = 1000
"""An empty member takes 20 bytes and says nothing, and each costs a new inflater."""

_CHUNK: Final = 1 << 18
_GZIP: Final = zlib.MAX_WBITS | 16


class TooLarge(ValueError):
    """What was packed is larger than the limit."""


def inflate(packed: bytes, limit: int, grow: Callable[[int], None]) -> bytes:
    """Unpack gzip; `grow` is called before more bytes are kept, and may raise.

    Raises `TooLarge` beyond `limit` bytes, and `ValueError` for what is no gzip, or not all of it.
    """
    out = io.BytesIO()
    rest = memoryview(packed)
    members = 0
    while rest or not members:
        members += 1
        if members > MOST_MEMBERS:
            raise ValueError(f"the gzip body has more than {MOST_MEMBERS} members")
        try:
            rest = _member(rest, out, limit, grow)
        except zlib.error as error:
            raise ValueError(f"member {members} of the body is no gzip: {error}") from None
    return out.getvalue()


def _member(packed: memoryview, out: io.BytesIO, limit: int, grow: Callable[[int], None]) -> memoryview:
    """Unpack one member into `out`; give what follows it."""
    inflater = zlib.decompressobj(wbits=_GZIP)
    position = 0
    while not inflater.eof:
        # What zlib does not take yet it gives back as a copy: pieces, so that the copies are small.
        piece: bytes | memoryview = inflater.unconsumed_tail
        if not piece:
            piece = packed[position : position + _CHUNK]
            position += len(piece)
            if not piece:
                raise ValueError("the gzip body is cut off before its end")
        room = limit - out.tell()
        chunk = inflater.decompress(piece, min(_CHUNK, room + 1))
        if len(chunk) > room:
            raise TooLarge(f"unpacked, the body is larger than {limit} bytes")
        if chunk:
            grow(len(chunk))
            out.write(chunk)
    return packed[position - len(inflater.unused_data) :]
