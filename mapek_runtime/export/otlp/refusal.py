"""What an OTLP exporter of ours says to a processor of the SDK, which would lose every span in silence.

The SDK's interface is synchronous: it would take a coroutine that nobody awaits for a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["AsyncioOnly"]


class AsyncioOnly:
    """The two methods that the SDK calls; both refuse loudly."""

    def export(self, spans: Sequence[ReadableSpan]) -> NoReturn:
        """Refuse: this is what a processor of the SDK calls."""
        raise TypeError(
            f"{type(self).__name__} is an asyncio exporter and cannot take {len(spans)} spans from "
            "a processor of the SDK; give it to mapek_runtime.BatchSpanProcessor"
        )

    def shutdown(self) -> None:
        """Refuse, as `export` does."""
        raise TypeError(f"{type(self).__name__} is an asyncio exporter; await aclose()")
