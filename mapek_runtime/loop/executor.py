"""Carrying out admitted actions: each by the plugin that claims it, those on different targets together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from opentelemetry.trace import StatusCode

from mapek_runtime.errors import PluginContractError

from . import explain
from .agreement import Agreement
from .guard import GuardRails
from .model import Action, Cycle, Outcome, Rejection
from .phase import Failures
from .plugin import Part, Registry
from .repair import Repairs

__all__ = ["Executor"]


class Executor:
    """Runs the actions of a cycle and notes what is to be verified later."""

    def __init__(self, registry: Registry, rails: GuardRails, repairs: Repairs, agreement: Agreement) -> None:
        self._registry = registry
        self._rails = rails
        self._repairs = repairs
        self._agreement = agreement

    async def run(self, cycle: Cycle, span: Any, failures: Failures) -> None:
        """Carry out `cycle.actions`; what fails is an outcome, not an exception.

        What the other nodes do not agree to is no action of this cycle any more: it is rejected.
        """
        outcomes: list[Outcome] = []
        refused: list[Rejection] = []
        try:
            if len(cycle.actions) == 1:
                await self._one(outcomes, refused, cycle, cycle.actions[0], span, failures)
            else:
                async with asyncio.TaskGroup() as group:
                    for action in cycle.actions:
                        group.create_task(self._one(outcomes, refused, cycle, action, span, failures))
        finally:
            # Also when the limit ran out or the cycle was cancelled: what was done was done.
            cycle.outcomes = tuple(outcomes)
            if refused:
                others = [rejection.action for rejection in refused]
                cycle.actions = tuple(action for action in cycle.actions if action not in others)
                cycle.rejections = (*cycle.rejections, *refused)
                explain.rejections(span, refused)
            success = len(outcomes) == len(cycle.actions) and all(o.success for o in outcomes)
            span.set(actions_executed=len(outcomes), success=success)
            explain.outcomes(span, outcomes)
            if not success:
                cycle.success = False
                span.set_status(StatusCode.ERROR, explain.failed_actions(cycle))

    async def _one(
        self,
        outcomes: list[Outcome],
        refused: list[Rejection],
        cycle: Cycle,
        action: Action,
        span: Any,
        failures: Failures,
    ) -> None:
        loop = asyncio.get_running_loop()
        part = self._registry.executor(action.name)
        if part is None:
            outcomes.append(
                Outcome(
                    action=action,
                    success=False,
                    error=f"no plugin executes {action.name!r}; name it in the `handles` of one",
                )
            )
            return
        call: Callable[[Cycle, Action], Awaitable[Any]] = part.call
        if action.parameters.get("undo") and hasattr(part.owner, "undo"):
            call = part.owner.undo
        answer = await self._agreement.ask(action)
        if isinstance(answer, tuple):
            rule, reason = answer
            refused.append(Rejection(action=action, rule=rule, reason=reason))
            return
        began = loop.time()
        try:
            outcome = await call(cycle, action)
            if not isinstance(outcome, Outcome):
                raise PluginContractError(
                    f"plugin {part.plugin!r}: execute returned {outcome!r}; it must return an Outcome"
                )
        except Exception as error:  # noqa: BLE001 - the isolation of a failing plugin
            failures.append(("execute", part.plugin, error))
            outcome = Outcome(action=action, success=False, error=f"{type(error).__name__}: {error}")
        except asyncio.CancelledError:
            # It may have had its effect: the rails count it, or a hanging action would have no limit.
            cut_off = "cut off: the limit of Execute ran out, or the cycle was cancelled"
            outcome = Outcome(action=action, success=False, error=cut_off)
            self._note(outcomes, replace(outcome, duration=loop.time() - began), part, span)
            raise
        # The rails go by what was planned, whatever the plugin put into its outcome.
        self._note(outcomes, replace(outcome, action=action, duration=loop.time() - began), part, span)
        if answer is not None and not outcome.success:
            await self._agreement.give_back(answer)

    def _note(self, outcomes: list[Outcome], outcome: Outcome, part: Part, span: Any) -> None:
        action, now = outcome.action, asyncio.get_running_loop().time()
        outcomes.append(outcome)
        self._rails.acted(action, now, success=outcome.success)
        if not outcome.success:
            self._rails.failed(action.target, now)
        elif not action.parameters.get("undo"):
            verify = getattr(part.owner, "verify", None)
            self._repairs.began(action, now, verify, span.get_span_context(), plugin=part.plugin)
