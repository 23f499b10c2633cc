"""What is made once for each meter provider: instruments that several owners share.

An SDK takes the callbacks of the first instrument of a name and drops those of a second one, so
whoever observes has one board for a provider and not one for each thing that is observed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from opentelemetry.metrics import MeterProvider, get_meter_provider

__all__ = ["PerMeterProvider", "is_stand_in"]

Made = TypeVar("Made")


class PerMeterProvider(Generic[Made]):
    """Calls `make` once for each meter provider, and keeps what it made as long as the provider."""

    def __init__(self, make: Callable[[MeterProvider], Made]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[MeterProvider, Made] = weakref.WeakKeyDictionary()
        self._for_stand_in: Made | None = None
        self._making = threading.Lock()

    def of(self, meter_provider: MeterProvider | None) -> Made:
        """What belongs to `meter_provider`, else to the global one."""
        everywhere = get_meter_provider()
        provider = meter_provider or everywhere
        with self._making:
            made = self._made.get(provider)
            if made is None and provider is everywhere and self._for_stand_in is not None:
                # The instruments of the stand-in go on as those of the first global provider that is set.
                made, self._for_stand_in = self._for_stand_in, None
                self._made[provider] = made
            if made is None:
                made = self._made[provider] = self._make(provider)
                if is_stand_in(provider):
                    self._for_stand_in = made
        return made


def is_stand_in(meter_provider: MeterProvider) -> bool:
    """Whether it only stands for a global provider that nobody has set yet."""
    # The class has no public name.
    return type(meter_provider).__name__ == "_ProxyMeterProvider"
