"""The sampler that `OTEL_TRACES_SAMPLER` names.

The SDK's reader knows six names and is asked for those. Every other name is looked up among the
entry points of the group `opentelemetry_traces_sampler`, as the SDK's own configurator does; this
package provides `jaeger_remote` and `parentbased_jaeger_remote` there. A name that nobody provides,
`xray` among them, gives one warning and the default, as the specification asks.
"""

from __future__ import annotations

import logging
import os

from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.sampling import (
    _KNOWN_SAMPLERS,
    DEFAULT_ON,
    Sampler,
    _get_from_env_or_default,
)

__all__ = ["sampler_from_environment"]

logger = logging.getLogger(__name__)

_GROUP = "opentelemetry_traces_sampler"
_DEFAULT = "parentbased_always_on"


def sampler_from_environment(resource: Resource | None = None) -> Sampler:
    """The sampler of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; never raises.

    `resource` is that of the provider: a remote sampler asks for its `service.name`. A name that is
    not one of the SDK's makes this read the metadata of the installed packages.
    """
    text = os.environ.get(OTEL_TRACES_SAMPLER, "")
    name = text.strip()
    if not name:
        # Empty counts as unset, as the specification asks; the SDK's reader would warn.
        return DEFAULT_ON
    if text.lower() in _KNOWN_SAMPLERS:
        return _get_from_env_or_default()
    sampler = _provided(name)
    if sampler is None:
        return DEFAULT_ON
    from .remote import find_remote

    remote = find_remote(sampler)
    service = None if resource is None else resource.attributes.get(SERVICE_NAME)
    if remote is not None and isinstance(service, str) and service:
        remote.service_name = service
    return sampler


def _provided(name: str) -> Sampler | None:
    # Here, because most programs name no such sampler and importing this takes longer than all of ours.
    from importlib.metadata import entry_points

    found = entry_points(group=_GROUP)
    # Names are matched without regard to case, but whoever registered one in capitals is found first.
    entry = next(iter((*found.select(name=name), *found.select(name=name.lower()))), None)
    if entry is None:
        what = (
            "AWS X-Ray's centralized sampling is not supported here and no installed package provides it"
            if name.lower() == "xray"
            else f"no such sampler; there are {', '.join(sorted({each.name for each in found}))}"
        )
        logger.warning("%s is %r: %s; using %s", OTEL_TRACES_SAMPLER, name, what, _DEFAULT)
        return None
    try:
        sampler = entry.load()(os.environ.get(OTEL_TRACES_SAMPLER_ARG))
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the program is to start
        logger.warning(
            "%s is %r: %s: %s; using %s", OTEL_TRACES_SAMPLER, name, type(error).__name__, error, _DEFAULT
        )
        return None
    if isinstance(sampler, Sampler):
        return sampler
    logger.warning(
        "%s is %r: %s gave a %s, which is no Sampler; using %s",
        OTEL_TRACES_SAMPLER, name, entry.value, type(sampler).__name__, _DEFAULT,
    )  # fmt: skip
    return None
