"""Encoding: spans as OTLP, byte for byte what the SDK's encoder gives.

`request` makes requests of spans, ours through their slots and others through `readable`; `fields`,
`attributes` and `wire` write what these are made of, and `salvage` what others would refuse. Knows spans;
knows nothing of where requests go.
"""

from __future__ import annotations

from .request import RequestBuilder, encode_spans

__all__ = ["RequestBuilder", "encode_spans"]
