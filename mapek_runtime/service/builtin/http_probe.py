"""`http_probe`: a monitor that asks URLs, and finds those that do not answer as they should."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import httpx
import msgspec

from mapek_runtime.loop import Cycle, Evidence, Finding, Observation

__all__ = ["HttpProbe", "HttpProbeSettings"]

_ANSWERED, _LATENCY = "http.answered", "http.latency"


class HttpProbeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probes URLs over HTTP."""

    urls: tuple[Annotated[str, msgspec.Meta(pattern="^https?://[^/]+")], ...] = ()
    """The addresses to ask, with GET."""
    every: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds between two questions to one address; cycles in between see the last answer."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Seconds after which an address counts as not answering."""
    failures: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Questions in a row that must fail before `http.down` is found."""
    slow: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds of latency above which `http.slow` is found; unset: never."""


class HttpProbe:
    """Monitor and Analyze. Each question is an HTTP client span below the monitor phase."""

    name = "http_probe"
    settings = HttpProbeSettings

    def __init__(self, settings: HttpProbeSettings) -> None:
        self._settings = settings
        self._asked = float("-inf")
        self._seen: tuple[Observation, ...] = ()
        self._failed: dict[str, int] = {}

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        """`http.answered` (1 or 0) and, where there was an answer, `http.latency` of each address."""
        if cycle.started - self._asked < self._settings.every:
            return self._seen
        self._asked = cycle.started
        # A client for each round: nothing stays open when the loop ends or a cycle is cancelled.
        async with (
            httpx.AsyncClient(timeout=self._settings.timeout, follow_redirects=True) as client,
            asyncio.TaskGroup() as group,
        ):
            asking = [group.create_task(self._ask(client, url)) for url in self._settings.urls]
        self._seen = tuple(observation for task in asking for observation in task.result())
        return self._seen

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        """`http.down` for an address that does not answer, `http.slow` for one that answers late."""
        settings = self._settings
        findings: list[Finding] = []
        for observation in self._seen:
            url = observation.target
            failed = self._failed.get(url, 0)
            if observation.name == _ANSWERED and failed >= settings.failures:
                evidence = Evidence(
                    metric=_ANSWERED, value=failed, threshold=settings.failures, unit="{failure}",
                    rule="failures in a row",
                )  # fmt: skip
                findings.append(
                    Finding(
                        target=url,
                        problem="http.down",
                        evidence=(evidence,),
                        message=str(observation.attributes.get("error", "")),
                    )
                )
            elif (
                observation.name == _LATENCY
                and settings.slow is not None
                and observation.value > settings.slow
            ):
                evidence = Evidence(
                    metric=_LATENCY, value=observation.value, threshold=settings.slow, unit="s", rule="above"
                )
                findings.append(Finding(target=url, problem="http.slow", severity=0.5, evidence=(evidence,)))
        return findings

    async def _ask(self, client: httpx.AsyncClient, url: str) -> Sequence[Observation]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, error = 0, ""
        try:
            # httpx limits each step of a request; the whole of it is limited here.
            async with asyncio.timeout(self._settings.timeout):
                status = (await client.get(url)).status_code
        except TimeoutError:
            error = f"no answer within {self._settings.timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"{type(failure).__name__}: {failure}"
        latency = loop.time() - began
        if status >= 500:
            error = f"answered {status}"
        self._failed[url] = self._failed.get(url, 0) + 1 if error else 0
        attributes: dict[str, int | str] = {"status": status}
        if error:
            attributes["error"] = error
        seen = [Observation(name=_ANSWERED, value=0.0 if error else 1.0, target=url, attributes=attributes)]
        if status:
            seen.append(Observation(name=_LATENCY, value=latency, unit="s", target=url))
        return seen
