"""`webhook`: executes actions by posting them to a URL.

httpx carries the trace context along, so the trace of the cycle goes on in the service that is
called: `mape_k.execute`, the client's span, the server's span.
"""

from __future__ import annotations

from typing import Annotated

import httpx
import msgspec

from mapek_runtime.errors import ConfigError
from mapek_runtime.loop import Action, Cycle, Outcome

__all__ = ["Webhook", "WebhookSettings"]

_SHOWN = 200


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Posts actions to a URL."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]+")] | None = None
    """Where actions are posted to; needed when the plugin runs."""
    actions: tuple[str, ...] = ()
    """Names of the actions that are posted; empty: those that no other plugin executes."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds that a request may take."""
    headers: Annotated[dict[str, str], msgspec.Meta(extra={"secret": True})] = {}
    """Further headers, such as an authorization; never shown."""


class Webhook:
    """Execute: any answer of 200 to 299 is success.

    The body is a JSON object: `node`, `cycle`, `action`, `target`, `reason`, `parameters`, and
    `problem` where there is a finding. A posted action is not repeated: the service that is called
    may have acted before it failed.
    """

    name = "webhook"
    settings = WebhookSettings

    def __init__(self, settings: WebhookSettings) -> None:
        if settings.url is None:
            raise ConfigError(
                "[webhook] url is missing; it must be the http:// or https:// address that takes the actions"
            )
        self.handles = settings.actions
        self._url = settings.url
        self._settings = settings

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Post one action."""
        body = {
            "node": cycle.node_id,
            "cycle": cycle.number,
            "action": action.name,
            "target": action.target,
            "reason": action.reason,
            "parameters": dict(action.parameters),
        }
        if action.finding is not None:
            body["problem"] = action.finding.problem
        try:
            async with httpx.AsyncClient(
                timeout=self._settings.timeout, headers=self._settings.headers
            ) as client:
                answer = await client.post(self._url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome(action=action, success=False, error=f"{type(error).__name__}: {error}")
        if not answer.is_success:
            return Outcome(
                action=action,
                success=False,
                error=f"{answer.status_code} {answer.reason_phrase}: {answer.text[:_SHOWN]}",
            )
        return Outcome(action=action, success=True, changed=answer.text[:_SHOWN] or f"{answer.status_code}")
