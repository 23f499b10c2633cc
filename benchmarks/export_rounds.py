"""How `benchmarks.export` measures: rounds in which every sender has its turn, in rotating order.

Each sender gets a process of its own in every round, the collector is another process, and what is
compared is compared within a round. Knows how to run and to count, not what the figures mean.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from . import export_senders as senders
from .export_load import Job, Run
from .receiver import Received

__all__ = ["BLACK_HOLE", "HEALTHY", "REFUSED", "SLOW", "Case", "Collectors", "Measured", "Result", "Spread"]

HEALTHY, SLOW, REFUSED, BLACK_HOLE = "healthy", "slow", "refused", "black hole"
SLOW_SECONDS = 0.3
START_LIMIT = 60.0
"""Seconds that a process may take beside its load and its shutdown."""


class Spread(NamedTuple):
    """The median of the rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table: the same load for several senders."""

    title: str
    senders: tuple[str, ...]
    seconds: float
    rounds: int
    collector: str = HEALTHY
    producers: int = 1
    rate: float = 0.0
    bursts: bool = False
    uvloop: bool = False
    cap: float = 60.0
    keep_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one sender did in one round, and what arrived of it."""

    number: int
    run: Run
    received: Received

    @property
    def delivered(self) -> int:
        """Spans that arrived, each counted once."""
        return self.received.spans - self.received.repeated

    @property
    def created_per_s(self) -> float:
        """While the load lasted."""
        return self.run.created / self.run.load_s

    @property
    def delivered_per_s(self) -> float:
        """From the beginning of the load to the end of the shutdown."""
        return self.delivered / (self.run.load_s + self.run.tail_s)

    @property
    def lost_percent(self) -> float:
        """Of the spans that were created, whoever lost them."""
        return 100 * (1 - self.delivered / self.run.created)

    @property
    def cpu(self) -> float:
        """The share of a core that the load took."""
        return self.run.cpu_load_s / self.run.load_s

    @property
    def cpu_us_per_span(self) -> float:
        """Microseconds of CPU time of the whole process, load and tail, for each span created."""
        return 1e6 * self.run.cpu_s / self.run.created

    @property
    def gc(self) -> float:
        """The share of the load that the garbage collector took."""
        return self.run.gc_s / self.run.load_s

    @property
    def receiver_busy(self) -> float:
        """The share of a core that the collector took from its first request to its last."""
        return self.received.cpu_s / self.received.busy_s if self.received.busy_s else 0.0

    @property
    def receiving(self) -> float:
        """From the first request to the last, as a share of load and shutdown."""
        return self.received.busy_s / (self.run.load_s + self.run.tail_s)


FIGURES = tuple(name for name, found in vars(Result).items() if isinstance(found, property))
ARRIVED = frozenset({"delivered", "delivered_per_s", "lost_percent", "receiver_busy", "receiving"})
"""Figures that say nothing of what never reaches for the wire."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of a case, by sender, and why there are none of some."""

    case: Case
    results: dict[str, list[Result]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def spread(self, sender: str, figure: Callable[[Result], float]) -> Spread | None:
        """A figure of a sender over its rounds."""
        return Spread.of([figure(result) for result in self.results.get(sender, ())])

    def added(self, sender: str, to: str, figure: Callable[[Result], float]) -> Spread | None:
        """By how much a figure of one sender is above that of another in the same round."""
        return Spread.of([figure(mine) - figure(other) for mine, other in self.pairs(sender, to)])

    def pairs(self, one: str, other: str) -> list[tuple[Result, Result]]:
        """The results of two senders in the rounds that both have."""
        others = {result.number: result for result in self.results.get(other, ())}
        return [(mine, others[mine.number]) for mine in self.results.get(one, ()) if mine.number in others]

    def as_json(self) -> dict[str, Any]:
        """The figures with their spread, and everything, each round by itself."""
        return {
            "case": asdict(self.case),
            "figures": {
                sender: {name: Spread.of([getattr(result, name) for result in results]) for name in FIGURES}
                for sender, results in self.results.items()
            },
            "rounds": {
                sender: [
                    {"round": result.number, **asdict(result.run), "received": asdict(result.received)}
                    for result in results
                ]
                for sender, results in self.results.items()
            },
            "failures": self.failures,
        }


class Collectors:
    """A healthy collector in a process of its own, a slow one, and two that are dead."""

    def __init__(self, http: int, grpc: int, refused: int, black_hole: int) -> None:
        self._http = http
        self._grpc = grpc
        self._dead = {REFUSED: refused, BLACK_HOLE: black_hole}

    @classmethod
    @contextmanager
    def serving(cls) -> Iterator[Collectors]:
        """Serve until the block ends."""
        with ExitStack() as stack:
            # Bound and not listening: connections are refused, and nobody else gets the port.
            refusing = stack.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            # The kernel takes the connection; nobody ever reads.
            hole = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
            receiver = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.receiver"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert receiver.stdin is not None
            assert receiver.stdout is not None
            stack.callback(receiver.stdin.close)
            ports = json.loads(receiver.stdout.readline())
            yield cls(ports["http"], ports["grpc"], refusing.getsockname()[1], hole.getsockname()[1])

    def measure(self, case: Case, tell: Callable[[str], None]) -> Measured:
        """Run every sender once a round; `tell` is given a line for each."""
        measured = Measured(case)
        able = []
        for sender in case.senders:
            if reason := senders.missing(sender):
                measured.failures[sender] = reason
            else:
                able.append(sender)
                measured.results[sender] = []
        for number in range(case.rounds):
            shift = number % len(able) if able else 0
            for sender in able[shift:] + able[:shift]:
                began = time.perf_counter()
                try:
                    result = self._run(case, sender, number)
                except (subprocess.SubprocessError, ValueError) as error:
                    measured.failures[sender] = said = _why(error)
                else:
                    measured.results[sender].append(result)
                    said = f"{result.run.created:,} created, {result.delivered:,} delivered"
                tell(
                    f"{case.title}, round {number + 1}/{case.rounds}, {sender}: {said} "
                    f"({time.perf_counter() - began:.1f} s)"
                )
        return measured

    def _run(self, case: Case, sender: str, number: int) -> Result:
        self._ask("reset", f"?delay={SLOW_SECONDS if case.collector == SLOW else 0}&ids={case.keep_ids:d}")
        alive = self._grpc if senders.over_grpc(sender) else self._http
        job = Job(
            sender=sender,
            port=self._dead.get(case.collector, alive),
            seconds=case.seconds,
            producers=case.producers,
            rate=case.rate,
            bursts=case.bursts,
            uvloop=case.uvloop,
            cap=case.cap,
        )
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.export_load", json.dumps(asdict(job))],
            capture_output=True,
            text=True,
            check=True,
            timeout=case.seconds + case.cap + START_LIMIT,
        )
        # A sender whose shutdown was given up has requests on the way still; what arrives later
        # was not delivered.
        received = Received(**self._ask("count"))
        return Result(number=number, run=Run(**json.loads(done.stdout)), received=received)

    def _ask(self, what: str, query: str = "") -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/{what}{query}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr).strip().splitlines()
        return f"its process failed: {lines[-1] if lines else error}"
    return f"its process failed: {type(error).__name__}"
