"""Every setting, frozen, each with its docstring.

This layer knows only values: no other room reads a file or a variable for its settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ["GuardSettings", "LoopSettings"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guard rails: what keeps a loop that is wrong from doing harm."""

    cooldown: NonNegative = 3.0
    """Seconds after an action on a target before the next one on it."""
    hysteresis: AtLeastOne = 1
    """Cycles in a row that a finding must be made before it is acted upon."""
    actions_per_minute: AtLeastOne = 12
    """Actions within any sixty seconds, over all targets of a node."""
    fleet_share: Share = 0.5
    """Share of the known targets that may be acted upon and not yet restored; at least one may."""
    max_failures: AtLeastOne = 3
    """Failed repairs of a target after which it is left alone and escalated."""
    escalation: NonNegative = 600.0
    """Seconds for which an escalated target is left alone."""


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loop: when a cycle starts, and how long a phase may take."""

    interval: Positive = 1.0
    """Seconds from one cycle to the next, kept without drift."""
    jitter: NonNegative = 0.0
    """Seconds by which a start may be late, at random; the schedule itself does not move."""
    overlap: Literal["skip", "queue", "cancel"] = "skip"
    """What a tick does while a cycle still runs: nothing, one more cycle after it, or end it."""
    monitor_limit: Positive = 10.0
    """Seconds that Monitor may take."""
    analyze_limit: Positive = 10.0
    """Seconds that Analyze may take."""
    plan_limit: Positive = 10.0
    """Seconds that Plan may take."""
    execute_limit: Positive = 30.0
    """Seconds that Execute may take."""
    knowledge_limit: Positive = 10.0
    """Seconds that Knowledge may take."""
    monitor_retries: Count = 0
    """Further attempts at Monitor when every monitor failed."""
    analyze_retries: Count = 0
    """Further attempts at Analyze."""
    plan_retries: Count = 0
    """Further attempts at Plan."""
    retry_delay: NonNegative = 0.05
    """Seconds before the first further attempt; doubled for each one after it."""
    dry_run: bool = False
    """Plan and show, execute nothing."""
    guard: GuardSettings = GuardSettings()
    """The guard rails."""
