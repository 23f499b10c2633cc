"""What a sampler will always say, so that the hot path need not ask it.

The SDK's samplers are used as they are. For the common ones (always on, always off, and
`ParentBased` over anything with its default delegates) the answer for a span with a parent, or for
every span, follows from the sampler alone.
"""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    StaticSampler,
)

__all__ = ["Shortcut", "shortcut"]


class Shortcut(NamedTuple):
    """`root`, `child`: True records and samples, False drops, None asks the sampler.

    `follow`: a child does as its parent did.
    """

    root: bool | None
    child: bool | None
    follow: bool


def shortcut(sampler: Sampler) -> Shortcut:
    """What can be known of `sampler` in advance."""
    fixed = _fixed(sampler)
    if fixed is not None:
        return Shortcut(fixed, fixed, follow=False)
    if type(sampler) is ParentBased and (
        sampler._remote_parent_sampled is ALWAYS_ON
        and sampler._remote_parent_not_sampled is ALWAYS_OFF
        and sampler._local_parent_sampled is ALWAYS_ON
        and sampler._local_parent_not_sampled is ALWAYS_OFF
    ):
        return Shortcut(_fixed(sampler._root), None, follow=True)
    return Shortcut(None, None, follow=False)


def _fixed(sampler: Sampler) -> bool | None:
    if type(sampler) is not StaticSampler:
        return None
    if sampler._decision is Decision.RECORD_AND_SAMPLE:
        return True
    if sampler._decision is Decision.DROP:
        return False
    return None
