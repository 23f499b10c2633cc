"""A plugin of one's own: keep a worker process alive.

Monitor asks whether the process runs, Analyze finds that it died, Plan restarts it (and says why it
rejects waiting), Execute starts a new one. The guard rails are the runtime's: after three restarts
that did not help the worker is left alone and escalated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from mapek_runtime import Action, Cycle, Evidence, Finding, Observation, Outcome, Rejection, SpanGroup

worker = SpanGroup("worker")


@worker.span
def start(command: str, pid: int = 0) -> None:
    """A worker process was started."""


class KeepAlive:
    """Keeps `command` running: `async with KeepAlive("sleep", "60") as plugin: ...`"""

    name = "keep_alive"
    handles = ("restart",)

    def __init__(self, *command: str) -> None:
        self.command = command or ("sleep", "60")
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> KeepAlive:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """1 while the process runs, 0 when it does not."""
        running = self.process is not None and self.process.returncode is None
        return (Observation(name="worker.running", value=float(running), target=self.command[0]),)

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """A process that does not run is a finding."""
        return [
            Finding(
                target=target,
                problem="worker.dead",
                evidence=(Evidence(metric="worker.running", value=value, threshold=1.0, rule="below"),),
            )
            for target, value in cycle.readings("worker.running").items()
            if value < 1
        ]

    async def plan(self, cycle: Cycle) -> Iterable[Action | Rejection]:
        """Restart it; waiting helps nobody."""
        options: list[Action | Rejection] = []
        for finding in cycle.findings:
            wait = Action(name="wait", target=finding.target, finding=finding)
            options += [
                Rejection(action=wait, rule="useless", reason="a dead process does not come back"),
                Action(name="restart", target=finding.target, finding=finding),
            ]
        return options

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Start the process again."""
        process = await self._start()
        return Outcome(action=action, success=True, changed=f"{action.target} runs as {process.pid}")

    async def _start(self) -> asyncio.subprocess.Process:
        async with start(" ".join(self.command)) as span:
            self.process = await asyncio.create_subprocess_exec(*self.command)
            span.set(pid=self.process.pid)
            return self.process
