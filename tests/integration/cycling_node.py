"""A node of the five-process test: `python -m tests.integration.cycling_node INDEX CYCLES COLLECTOR`.

Runs real cycles that decide for themselves, serves HTTP, and calls the other nodes in some of its
cycles. It talks to whoever started it in JSON lines: it says its port; is told all ports; says each
cycle it has run; is told to stop; and says the terms of the law.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from mapek_runtime import (
    Action,
    BatchSpanProcessor,
    Cycle,
    Finding,
    Observation,
    OTLPSpanExporter,
    Outcome,
    Runtime,
    TracerProvider,
)
from mapek_runtime.config import GuardSettings, LoopSettings
from mapek_runtime.service.instrument import instrumented
from mapek_runtime.trace import use_provider
from mapek_runtime.trace.leaving import install_leaving
from mapek_runtime.trace.sampling import CycleSampler

__all__ = ["KINDS", "RATIO"]

RATIO = 0.01
KINDS = {
    # what happens in the cycle: (share, what is found, when it calls another node)
    "quiet": (0.80, "", ""),
    "quiet, calls": (0.06, "", "monitor"),
    "anomaly": (0.02, "anomaly", ""),
    "anomaly, then calls": (0.03, "anomaly", "execute"),
    "calls, then anomaly": (0.03, "anomaly", "monitor"),
    "action": (0.01, "action", ""),
    "action, then calls": (0.01, "action", "execute"),
    "error": (0.02, "error", ""),
    "calls, then error": (0.02, "error", "monitor"),
}


class Worker:
    """Plugins that do in each cycle what its kind says."""

    def __init__(self, index: int, session: aiohttp.ClientSession, ports: list[int]) -> None:
        self._rng = random.Random(index)
        self._session = session
        self._mine = ports[index]
        self._others = [port for port in ports if port != self._mine]
        self._quiet = True
        self.ran: list[dict[str, Any]] = []

    async def monitor(self, cycle: Cycle) -> list[Observation]:
        rng = self._rng
        (kind,) = rng.choices(list(KINDS), [share for share, _, _ in KINDS.values()])
        assert cycle.span_context is not None
        trace = f"{cycle.span_context.trace_id:032x}"
        self.ran.append({"trace": trace, "kind": kind, "calls": 0})
        await self._call_in("monitor")
        if KINDS[kind][1] == "error":
            raise RuntimeError("the sensor is away")
        return [Observation(name="load", value=rng.random())]

    async def analyze(self, cycle: Cycle) -> list[Finding]:
        found = KINDS[self.ran[-1]["kind"]][1]
        if not found:
            return []
        return [Finding(target=f"t{cycle.number}", problem="busy", anomaly=found == "anomaly")]

    async def plan(self, cycle: Cycle) -> list[Action]:
        found, calls = KINDS[self.ran[-1]["kind"]][1:]
        if found != "action" and calls != "execute":
            return []
        return [Action(name="ease", target=cycle.findings[0].target, finding=cycle.findings[0])]

    async def execute(self, action: Action, cycle: Cycle) -> Outcome:
        await self._call_in("execute")
        return Outcome(action=action, success=True)

    async def _call_in(self, phase: str) -> None:
        told = self.ran[-1]
        if KINDS[told["kind"]][2] != phase:
            return
        # Every other one is called back by the node that it calls, in the same trace.
        back = self._rng.random() < 0.5
        url = f"http://127.0.0.1:{self._rng.choice(self._others)}/"
        async with self._session.get(url, params={"back": self._mine} if back else {}) as response:
            response.raise_for_status()
        told["calls"] += 1 + back


async def serve(request: web.Request) -> web.Response:
    back = request.query.get("back")
    if back is not None:
        session = request.app[_SESSION]
        async with session.get(f"http://127.0.0.1:{back}/") as response:
            response.raise_for_status()
    return web.Response(text="served")


_SESSION = web.AppKey("session", aiohttp.ClientSession)


def say(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def asked(lines: Iterator[str]) -> Any:
    return json.loads(await asyncio.to_thread(next, lines))


async def main(index: int, cycles: int, collector: str) -> None:
    sampler, holds = CycleSampler.over(DEFAULT_ON, quiet_ratio=RATIO)
    provider = TracerProvider(
        sampler, Resource.create({"service.name": f"node-{index}"}), shutdown_on_exit=False
    )
    processor = BatchSpanProcessor(OTLPSpanExporter(collector), schedule_delay_millis=200, holds=holds)
    provider.add_span_processor(processor)
    take_back = install_leaving()
    unbalanced: list[str] = []

    def look(_cycle: Cycle) -> None:
        statistics = processor.statistics()
        if not statistics.balanced:
            unbalanced.append(str(statistics))

    with use_provider(provider), instrumented(provider):
        lines = iter(sys.stdin)
        app = web.Application()
        app.router.add_get("/", serve)
        async with aiohttp.ClientSession() as session:
            app[_SESSION] = session
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            say(port=runner.addresses[0][1])
            worker = Worker(index, session, (await asked(lines))["ports"])
            guard = GuardSettings(
                cooldown=0, actions_per_minute=100_000, fleet_share=1.0, max_failures=100_000
            )
            settings = LoopSettings(interval=3600, guard=guard)
            async with Runtime(worker, node_id=f"node-{index}", settings=settings, on_cycle=look) as runtime:
                while len(worker.ran) < cycles:
                    runtime.trigger("next")
                    await runtime.wait()
            say(ran=worker.ran)
            # The others may still call.
            await asked(lines)
            await runner.cleanup()
    take_back()
    delivered = await processor.ashutdown(5)
    law = processor.statistics()
    say(
        law={
            "ended": law.ended,
            "exported": law.exported,
            "dropped": dict(law.dropped),
            "left": law.held + law.queued + law.in_flight + law.spooled,
            "balanced": law.balanced,
        },
        unbalanced=unbalanced,
        delivered=delivered,
    )
    await provider.ashutdown(1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
