"""Two plugins that watch sites together: workers look at them, and a master says who looks at which.

Every site is looked at by one worker, and no worker has two sites more than another. The worker tells what
it watches as a fact; the master tells what it shall watch as a goal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping

import msgspec

from mapek_runtime import Action, Cycle, Evidence, Finding, Observation, Outcome
from mapek_runtime.errors import EngineUnavailable
from mapek_runtime.loop.domain import DomainContext, Goals, Messenger

_PATIENCE = 2.0
WATCHED = "sites.watched"
"""The fact: what a worker watches."""


def goal_of(worker: str) -> str:
    """The goal: what a worker shall watch."""
    return f"sites.watch {worker}"


def share(sites: Collection[str], watched: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Each site to one of the workers in `watched`, evenly, and with as few changes as that takes."""
    most = -(-len(sites) // len(watched))
    shares: dict[str, list[str]] = {}
    free = sorted(sites)
    for worker in sorted(watched):
        shares[worker] = [site for site in sorted(watched[worker]) if site in free][:most]
        free = [site for site in free if site not in shares[worker]]
    for site in free:
        shares[min(shares, key=lambda worker: (len(shares[worker]), worker))].append(site)
    while True:
        least, fullest = (pick(shares, key=lambda worker: len(shares[worker])) for pick in (min, max))
        if len(shares[fullest]) - len(shares[least]) < 2:
            return {worker: sorted(shares[worker]) for worker in shares}
        shares[least].append(shares[fullest].pop())


async def seconds_to_answer(site: str, who: str) -> float | None:
    """How long a site (HOST:PORT) takes to answer a request over HTTP; None where it does not."""
    host, _, port = site.rpartition(":")
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"HEAD / HTTP/1.0\r\nHost: {site}\r\nUser-Agent: {who}\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return time.perf_counter() - began if line.startswith(b"HTTP/") else None


class Worker:
    """Looks at the sites that it is told to watch. It decides nothing but to do as it is told."""

    name = "worker"
    handles = ("watch",)

    def __init__(self) -> None:
        self.sites: list[str] = []
        self.told: list[str] = []
        self.wanted: list[str] = []

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """How long its sites take to answer. A goal that came after this cycle began has started the next."""
        name = goal_of(cycle.node_id)
        before, self.told = self.told, str(cycle.knowledge.goal(name) or "").split()
        if self.told == before or f"goal {name}" in {trigger.reason for trigger in cycle.triggers}:
            self.wanted = self.told
        seconds = await asyncio.gather(*(seconds_to_answer(site, cycle.node_id) for site in self.sites))
        return [
            Observation(name="site.seconds", value=_PATIENCE if each is None else each, unit="s", target=site)
            for site, each in zip(self.sites, seconds, strict=True)
        ]

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Whether the master wants something else of it."""
        if self.wanted == self.sites:
            return ()
        return (Finding(target=cycle.node_id, problem="sites.told", anomaly=False),)

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        """Do as it is told."""
        return [
            Action(name="watch", target=finding.target, finding=finding)
            for finding in cycle.findings
            if finding.problem == "sites.told"
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Watch these from now on."""
        self.sites = self.wanted
        return Outcome(action=action, success=True, changed=f"watches {' '.join(self.sites) or 'nothing'}")

    async def learn(self, cycle: Cycle) -> None:
        """Tell what it watches."""
        cycle.knowledge.remember(WATCHED, " ".join(self.sites))


class MasterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What there is to watch."""

    sites: tuple[str, ...]
    """HOST:PORT of each."""


class Master:
    """Gives each site to one of the workers that live: a plugin of the slow loop where the leader is."""

    name = "master"
    settings = MasterSettings
    handles = ("assign",)

    def __init__(self, settings: MasterSettings) -> None:
        self.sites = settings.sites
        self._below: DomainContext | None = None

    def oversee(self, context: DomainContext) -> None:
        """Whom it speaks for, and how."""
        self._below = context

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """Each worker that does not watch what it should, by what all of them have told."""
        told = self._told(cycle)
        return [
            Finding(
                target=worker,
                problem="sites.share",
                evidence=(Evidence(metric="worker.sites", value=len(told[worker]), threshold=len(sites)),),
                message=f"{worker} should watch {' '.join(sites) or 'nothing'}",
            )
            for worker, sites in share(self.sites, told).items()
            if sites != told[worker]
        ]

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        """Say so to each of them."""
        shares = share(self.sites, self._told(cycle))
        return [
            Action(
                name="assign",
                target=finding.target,
                finding=finding,
                parameters={"sites": " ".join(shares[finding.target])},
            )
            for finding in cycle.findings
            if finding.target in shares
        ]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Set the goal of one worker."""
        assert self._below is not None
        goals = self._below.find(Goals)
        if goals is None:
            return Outcome(action=action, success=False, error="nobody keeps goals here")
        sites = str(action.parameters["sites"])
        goals.set_goal(self._me(), goal_of(action.target), sites)
        return Outcome(
            action=action, success=True, changed=f"{action.target} shall watch {sites or 'nothing'}"
        )

    def _told(self, cycle: Cycle) -> dict[str, list[str]]:
        """What each worker that lives watches."""
        assert self._below is not None
        messenger = self._below.find(Messenger)
        if messenger is None:
            raise EngineUnavailable("nobody knows who lives; add mesh to domains")
        alive = {self._me(), *messenger.reachable(self._me())}
        facts = cycle.knowledge.facts_elsewhere(WATCHED)
        return {worker: sorted(str(facts.get(worker, "")).split()) for worker in sorted(alive)}

    def _me(self) -> str:
        assert self._below is not None
        return self._below.nodes[0]
