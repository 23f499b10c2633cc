"""What is made once for each meter provider, also for one that is set later."""

from __future__ import annotations

import gc
import weakref

from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

from mapek_runtime.trace.meters import PerMeterProvider, is_stand_in


class Made:
    def __init__(self, meter_provider: AnyMeterProvider) -> None:
        self.stand_in = is_stand_in(meter_provider)


def test_it_is_made_once_for_each_provider() -> None:
    made = PerMeterProvider(Made)
    first, second = (MeterProvider(resource=Resource.get_empty()) for _ in range(2))

    assert made.of(first) is made.of(first)
    assert made.of(first) is not made.of(second)
    assert not made.of(first).stand_in


def test_it_is_forgotten_with_its_provider() -> None:
    made = PerMeterProvider(Made)
    provider = MeterProvider(resource=Resource.get_empty())
    gone = weakref.ref(made.of(provider))
    provider.shutdown()
    del provider
    gc.collect()

    assert gone() is None


def test_a_provider_that_was_made_stands_for_no_other() -> None:
    assert not is_stand_in(MeterProvider(resource=Resource.get_empty()))
