"""Reading a sampling strategy as a Jaeger server writes it: protobuf's JSON form of its own message.

What is wrong in it is refused with a reason, so that whoever polls can keep what was right before.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .strategy import PerOperation, Probabilistic, RateLimiting, Strategy

__all__ = ["parse_strategy"]


def parse_strategy(document: bytes | str) -> Strategy:
    """Read the server's answer; raises ValueError that says what in it is wrong.

    As protobuf's JSON leaves out what is zero, a number that is missing is 0.
    """
    try:
        answer = msgspec.json.decode(document, type=_Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no sampling strategy: {error}") from None
    if answer.operationSampling is not None:
        return answer.operationSampling.strategy()
    if answer.strategyType in {"RATE_LIMITING", 1}:
        if answer.rateLimitingSampling is None:
            raise ValueError(
                "no sampling strategy: strategyType is RATE_LIMITING without rateLimitingSampling"
            )
        return RateLimiting(answer.rateLimitingSampling.maxTracesPerSecond)
    if answer.probabilisticSampling is None:
        raise ValueError(
            "no sampling strategy: it must have operationSampling, rateLimitingSampling "
            "or probabilisticSampling, according to strategyType"
        )
    return Probabilistic(answer.probabilisticSampling.samplingRate)


_Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
_PerSecond = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Share(msgspec.Struct, frozen=True):
    samplingRate: _Rate = 0.0  # noqa: N815 - the server's names


class _Limit(msgspec.Struct, frozen=True):
    maxTracesPerSecond: _PerSecond = 0.0  # noqa: N815


class _Operation(msgspec.Struct, frozen=True):
    operation: str
    probabilisticSampling: _Share | None = None  # noqa: N815


class _Operations(msgspec.Struct, frozen=True):
    defaultSamplingProbability: _Rate = 0.0  # noqa: N815
    defaultLowerBoundTracesPerSecond: _PerSecond = 0.0  # noqa: N815
    defaultUpperBoundTracesPerSecond: _PerSecond = 0.0  # noqa: N815
    perOperationStrategies: tuple[_Operation, ...] | None = None  # noqa: N815

    def strategy(self) -> PerOperation:
        named = {
            each.operation: each.probabilisticSampling.samplingRate
            for each in self.perOperationStrategies or ()
            if each.probabilisticSampling is not None
        }
        return PerOperation(
            default=self.defaultSamplingProbability,
            lower_bound=self.defaultLowerBoundTracesPerSecond,
            upper_bound=self.defaultUpperBoundTracesPerSecond,
            operations=named,
        )


class _Answer(msgspec.Struct, frozen=True):
    strategyType: Literal["PROBABILISTIC", "RATE_LIMITING", 0, 1] = "PROBABILISTIC"  # noqa: N815
    probabilisticSampling: _Share | None = None  # noqa: N815
    rateLimitingSampling: _Limit | None = None  # noqa: N815
    operationSampling: _Operations | None = None  # noqa: N815
