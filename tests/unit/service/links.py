"""Plugins for the feed of the page: a lossy link, a calm one, and a blind monitor."""

from __future__ import annotations

from collections.abc import Sequence

from mapek_runtime import Action, Cycle, Evidence, Finding, Insight, Observation, Outcome, Rejection

__all__ = ["Blind", "Calm", "Link", "RESTART"]

LOSSY = Finding(
    target="a~b",
    problem="link.lossy",
    confidence=0.97,
    evidence=(Evidence(metric="link.loss_in", value=0.42, threshold=0.05),),
    message="42% of the probes are lost (in)",
)
DRAIN = Action(name="drain", target="a~b", finding=LOSSY)
RESTART = Action(name="restart", target="b", finding=LOSSY)


class Link:
    """A link that is always lossy, and what is done about it."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="loss", value=0.42)]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return [LOSSY]

    async def plan(self, cycle: Cycle) -> Sequence[Action | Rejection]:
        return [DRAIN, Rejection(action=RESTART, rule="too much", reason="a restart hurts every link of b")]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return Outcome(action=action, success=not self.error, error=self.error)

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        return [Insight(name="noted", message="not about an action")]


class Calm:
    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return [Observation(name="loss", value=0.0)]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return []


class Blind:
    name = "blind"

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        raise LookupError("no sensor")
