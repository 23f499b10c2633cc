"""Which sampler a configuration means, and the samplers behind `OTEL_TRACES_SAMPLER=jaeger_remote`.

Strategies are asked for over HTTP, Jaeger's port 5778. The specification's `endpoint=` is one for
gRPC: the gRPC ports of Jaeger are read as their neighbour on the same host, with a line that says so.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace.sampling import (
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
)

from mapek_runtime.config import SamplerSettings, Settings
from mapek_runtime.errors import ConfigError
from mapek_runtime.trace.sampling import (
    AdaptiveSampler,
    JaegerRemoteSampler,
    ProbabilitySampler,
    sampler_from_environment,
)
from mapek_runtime.trace.sampling.remote import INITIAL_RATE
from mapek_runtime.trace.sampling.threshold import LEAST_RATIO

from .polling import Poller

__all__ = [
    "RemoteArgument",
    "describe_sampler",
    "jaeger_remote",
    "make_sampler",
    "parentbased_jaeger_remote",
    "read_remote_argument",
    "strategy_url",
]

logger = logging.getLogger(__name__)

_DEFAULT_BUDGET = 10.0
_DEFAULT_ENDPOINT = "http://localhost:5778"
_DEFAULT_INTERVAL_MS = 60_000.0
_HTTP_PORT = 5778
_GRPC_PORTS = {14250, 5779}


def make_sampler(settings: SamplerSettings, resource: Resource) -> Sampler:
    """The sampler that is set; children follow their parent but where `OTEL_TRACES_SAMPLER` says else.

    Reads files, so not on a running loop. Raises `ConfigError` for an endpoint that is no address.
    """
    param = settings.param
    match settings.type:
        case "otel":
            return sampler_from_environment(resource)
        case "const":
            return DEFAULT_OFF if param == 0 else DEFAULT_ON
        case "probabilistic":
            return ParentBasedTraceIdRatio(1.0 if param is None else param)
        case "probability":
            share = 1.0 if param is None else param
            # A share that no threshold can say is less than one trace in 7e16.
            return ParentBased(ProbabilitySampler(share)) if share >= LEAST_RATIO else DEFAULT_OFF
        case "adaptive":
            budget = _DEFAULT_BUDGET if param is None else param
            return ParentBased(AdaptiveSampler(budget, operations=settings.operations))
        case "remote":
            try:
                url = strategy_url(settings.endpoint or _DEFAULT_ENDPOINT)
            except ValueError as error:
                raise ConfigError(f"[sampler] {error}") from None
            return ParentBased(
                JaegerRemoteSampler(
                    str(resource.attributes.get(SERVICE_NAME) or "unknown_service"),
                    source=Poller(url, settings.interval),
                    initial_rate=INITIAL_RATE if param is None else param,
                )
            )


def describe_sampler(settings: Settings) -> str:
    """The sampler that a run would have, in its own words; asks no server."""
    return make_sampler(settings.sampler, Resource({SERVICE_NAME: settings.service_name})).get_description()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteArgument:
    """What `OTEL_TRACES_SAMPLER_ARG` says to a Jaeger remote sampler."""

    url: str = f"{_DEFAULT_ENDPOINT}/sampling"
    interval: float = _DEFAULT_INTERVAL_MS / 1000
    """Seconds from one question to the next."""
    initial_rate: float = INITIAL_RATE


def jaeger_remote(argument: str | None = None) -> JaegerRemoteSampler:
    """`OTEL_TRACES_SAMPLER=jaeger_remote`: the entry point, for our provider and for the SDK's.

    `argument` is `OTEL_TRACES_SAMPLER_ARG`; one that is wrong is logged and counts as unset.
    """
    read = RemoteArgument()
    try:
        read = read_remote_argument(argument)
    except ValueError as error:
        logger.warning("OTEL_TRACES_SAMPLER_ARG is %r: %s; it is ignored", argument, error)
    attributes = OTELResourceDetector().detect().attributes
    return JaegerRemoteSampler(
        str(os.environ.get("OTEL_SERVICE_NAME") or attributes.get(SERVICE_NAME) or "unknown_service"),
        source=Poller(read.url, read.interval),
        initial_rate=read.initial_rate,
    )


def parentbased_jaeger_remote(argument: str | None = None) -> ParentBased:
    """`OTEL_TRACES_SAMPLER=parentbased_jaeger_remote`: the same for roots; children follow."""
    return ParentBased(jaeger_remote(argument))


def read_remote_argument(text: str | None) -> RemoteArgument:
    """Read `endpoint=URL,pollingIntervalMs=N,initialSamplingRate=R`, each of them optional.

    Raises ValueError that says what is wrong.
    """
    url, interval, rate = RemoteArgument().url, _DEFAULT_INTERVAL_MS, INITIAL_RATE
    for part in (text or "").split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        match key:
            case "":
                if value:
                    raise ValueError(f"{part.strip()!r} has no name before the =")
            case "endpoint":
                url = strategy_url(value)
            case "pollingIntervalMs":
                interval = _number(key, value, 1, 1e10, "milliseconds from 1")
            case "initialSamplingRate":
                rate = _number(key, value, 0, 1, "a number from 0 to 1")
            case _:
                raise ValueError(
                    f"there is no {key!r}; there are endpoint, pollingIntervalMs and initialSamplingRate"
                )
    return RemoteArgument(url=url, interval=interval / 1000, initial_rate=rate)


def strategy_url(endpoint: str) -> str:
    """The address to ask at; raises ValueError when `endpoint` is no http:// or https:// address."""
    wrong = f"endpoint is {endpoint!r}; it must be an address such as {_DEFAULT_ENDPOINT}"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(wrong)
    where = parts.netloc
    if port in _GRPC_PORTS:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        where = f"{host}:{_HTTP_PORT}"
        logger.warning(
            "%s is a port of Jaeger's for gRPC; strategies are asked for over HTTP, at %s", port, where
        )
    return urlunsplit((parts.scheme, where, parts.path.rstrip("/") or "/sampling", "", ""))


def _number(key: str, text: str, least: float, most: float, right: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"{key} is {text!r}; it must be {right}")
    return number
