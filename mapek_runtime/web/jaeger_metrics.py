"""What Jaeger's Monitor tab asks for: durations, calls and errors of services and operations over time.

Read from the store's counts by minute, so that a step is whole minutes whatever was asked. Of each
operation the store gives three percentiles; others, and those of several operations together, are
estimated from them (see `percentile_of`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from mapek_runtime.errors import QueryError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.model import SPAN_KINDS, Latency
from mapek_runtime.store.rollup import percentile

from .answering import json_bytes
from .parameters import HOUR, MILLISECOND, SECOND, Parameters

__all__ = ["JaegerMetrics", "percentile_of"]

_MINUTE = 60 * SECOND
_STEP = 5 * SECOND
_MOST_SERVICES = 32
_Measure = Callable[[Sequence[Latency], float], float]
"""A value of one step: from its rows and its seconds."""


class JaegerMetrics:
    """The handlers under `/api/metrics`."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def latencies(self, request: web.Request) -> web.Response:
        share = Parameters(request.query).share("quantile")
        if share is None:
            raise QueryError("parameter 'quantile' is required: a number from 0 to 1, such as 0.95")

        def measure(rows: Sequence[Latency], _seconds: float) -> float:
            return percentile_of(rows, share) / MILLISECOND

        return await self._family(request, "latencies", f"{share:g}th quantile latency, in ms", measure)

    async def calls(self, request: web.Request) -> web.Response:
        return await self._family(request, "call_rate", "calls a second", _calls)

    async def errors(self, request: web.Request) -> web.Response:
        return await self._family(request, "error_rate", "share of the calls that failed", _errors)

    async def _family(self, request: web.Request, name: str, about: str, measure: _Measure) -> web.Response:
        asked = Parameters(request.query)
        services = dict.fromkeys(asked.every("service"))
        if not services:
            raise QueryError("unable to parse param 'service': please provide at least one service name")
        if len(services) > _MOST_SERVICES:
            raise QueryError(f"parameter 'service' was given {len(services)} times; at most {_MOST_SERVICES}")
        kinds = {_kind(each) for each in asked.every("spanKind")} or {"server"}
        by_operation = asked.flag("groupByOperation")
        given = asked.unix("endTs", MILLISECOND)
        end = time.time_ns() if given is None else given
        start = max(0, end - asked.units("lookback", MILLISECOND, HOUR))
        # Over which time a rate is taken is the step's here.
        asked.units("ratePer", MILLISECOND, _MINUTE)
        step = math.ceil(asked.units("step", MILLISECOND, _STEP) / _MINUTE) * 60.0
        rows = [
            row
            for service in services
            for row in await self._store.latencies(service=service, start=start, end=end, step=step)
            if row.operation.kind in kinds
        ]

        def encoded() -> bytes:
            return msgspec.json.encode(
                {
                    "name": f"service_operation_{name}" if by_operation else f"service_{name}",
                    "type": "GAUGE",
                    "help": about,
                    "metrics": _metrics(rows, by_operation, end, measure),
                }
            )

        return json_bytes(await asyncio.to_thread(encoded))


def percentile_of(rows: Sequence[Latency], share: float) -> float:
    """The duration, in nanoseconds, that `share` of the spans of these operations together do not exceed."""
    together: Counter[int] = Counter()
    for row in rows:
        together.update(row.counts)
    return percentile(together, share)


def _calls(rows: Sequence[Latency], seconds: float) -> float:
    return sum(row.spans for row in rows) / seconds


def _errors(rows: Sequence[Latency], _seconds: float) -> float:
    return sum(row.errors for row in rows) / sum(row.spans for row in rows)


def _metrics(
    rows: Iterable[Latency], by_operation: bool, end: int, measure: _Measure
) -> list[dict[str, Any]]:
    series: dict[tuple[str, str], dict[int, list[Latency]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.spans:
            key = (row.operation.service, row.operation.name if by_operation else "")
            series[key][row.start].append(row)
    return [
        {
            "labels": [
                {"name": "service_name", "value": service},
                *([{"name": "operation", "value": operation}] if by_operation else []),
            ],
            "metricPoints": [
                _point(start, measure(steps[start], _seconds(steps[start], end))) for start in sorted(steps)
            ],
        }
        for (service, operation), steps in sorted(series.items())
    ]


def _seconds(rows: Sequence[Latency], end: int) -> float:
    """How long a step was: the last one may not be over."""
    return max(1.0, min(rows[0].seconds, (end - rows[0].start) / SECOND))


def _point(start: int, value: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(start // SECOND, UTC)
    return {"gaugeValue": {"doubleValue": value}, "timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}


def _kind(text: str) -> str:
    kind = text.lower().removeprefix("span_kind_")
    if kind not in SPAN_KINDS:
        raise QueryError(
            f"unable to parse param 'spanKind': unsupported span kind: {text[:64]!r}; "
            f"write one of {', '.join(SPAN_KINDS)}"
        )
    return kind
