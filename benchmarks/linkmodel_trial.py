"""Training and trying detectors of bad links, on meshes that run on a clock of their own.

A detector is trained in meshes with faults that nobody tells it of, and tried in others. In each it reads
what the autonomic loop of each node reads. An alarm about a link, at either end, while a fault is on it
finds the fault; one that begins while there was no fault on it, or on one of its ends, for the referee's
grace is false.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mapek_domains.fl.aggregate import Update, aggregate
from mapek_domains.fl.learner import Weights
from mapek_domains.fl.normality import LinkNormality
from mapek_domains.fl.settings import FlSettings
from mapek_domains.mesh.detect import THRESHOLD
from mapek_domains.mesh.engine import LinkReading
from mapek_domains.mesh.features import DELAY, LOSS
from mapek_domains.mesh.judge import LinkJudge, Opinion
from mapek_domains.mesh.meter import alarming
from mapek_domains.mesh.schedule import MIXES, fault_schedule
from mapek_runtime.loop.domain import Fault, Judgement, Normality

from .linkmodel_world import EVERY, World

__all__ = [
    "ByHand",
    "Detector",
    "Trial",
    "fault_class",
    "model_detector",
    "set_by_hand",
    "share_what_was_learned",
    "thresholds",
    "train",
    "try_out",
]

Detector = Callable[[str, float, Sequence[LinkReading]], set[str]]
"""(node, time, its links) → the links that it calls bad."""

_GRACE = 1.5
_ROUND = 10.0  # s
_EVERYBODY = "everybody"


def thresholds(_node: str, _now: float, readings: Sequence[LinkReading]) -> set[str]:
    """The fixed thresholds of `detect`."""
    return {reading.link for reading in readings if alarming(reading)}


class _Closed:
    """A model that judges and does not learn any more."""

    def __init__(self, model: Normality, node: str | None) -> None:
        self._model = model
        self._node = node

    def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        return self._model.judge(self._node or node_id, kind, features)

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        """Nothing is learned."""


class _Examined(LinkJudge):
    """One whose model learns nothing: no examples are made for it."""

    def _teach(self, *_given: object) -> None:
        pass


class _Pooled:
    """Everybody's readings in one place, as if they might leave their nodes."""

    def __init__(self, model: Normality) -> None:
        self._model = model

    def judge(self, _node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        return self._model.judge(_EVERYBODY, kind, features)

    def observe(self, _node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        self._model.observe(_EVERYBODY, kind, features, normal=normal)


def model_detector(model: Normality, *, pooled: bool = False) -> Detector:
    """What Analyze finds with the model beside the thresholds."""
    closed = _Closed(model, _EVERYBODY if pooled else None)
    judges: dict[str, _Examined] = {}

    def detect(node: str, now: float, readings: Sequence[LinkReading]) -> set[str]:
        judge = judges.setdefault(node, _Examined(node, lambda: closed))
        return thresholds(node, now, readings) | _heard(judge.judge(now, readings, _well(readings)))

    return detect


class ByHand:
    """Two fixed thresholds on the features of the model: what would be had without learning weights.

    `shown` meshes without faults, it sees how far their links go; it allows `margin` times as much.
    """

    def __init__(self) -> None:
        self.margin = 0.0
        self._loss = self._delay = 0.0

    def judge(self, _node_id: str, _kind: str, features: Sequence[float]) -> Judgement:
        loss, delay = max(features[LOSS]), max(features[DELAY])
        if not self.margin:
            self._loss, self._delay = max(self._loss, loss), max(self._delay, delay)
            return Judgement(score=0.0, threshold=0.5, version=1)
        over = max(loss / self._loss, delay / self._delay) / self.margin
        return Judgement(score=min(over / 2.0, 1.0), threshold=0.5, version=1)

    def observe(self, node_id: str, kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        """Nothing is learned."""

    def allowing(self, margin: float) -> ByHand:
        """The same with another margin."""
        other = ByHand()
        other.margin, other._loss, other._delay = margin, self._loss, self._delay
        return other


_MARGINS = (1.1, 1.5, 2.0, 3.0)


def set_by_hand(seed: int, *, seconds: float, mix: str) -> ByHand:
    """Thresholds for the features, as low as never alarm falsely in meshes of that seed."""
    shown = ByHand()
    try_out({"": model_detector(shown)}, seed, seconds=seconds, varied=True, mix=None)
    false_alarms: Counter[float] = Counter()
    for varied in (False, True):
        detectors = {str(margin): model_detector(shown.allowing(margin)) for margin in _MARGINS}
        for name, trial in try_out(detectors, seed, seconds=seconds, varied=varied, mix=mix).items():
            false_alarms[float(name)] += trial.false_alarms
    return shown.allowing(next((each for each in _MARGINS if not false_alarms[each]), _MARGINS[-1]))


def train(
    seed: int, *, seconds: float, varied: bool, mix: str, pooled: bool = False
) -> tuple[LinkNormality, Weights]:
    """A model that the nodes of a mesh have learned while faults came and went, round by round."""
    model = LinkNormality(FlSettings(), random.Random(seed))
    world = World(seed, varied=varied)
    learner: Normality = _Pooled(model) if pooled else model
    judges = {node: LinkJudge(node, lambda: learner) for node in world.nodes}
    clients = (_EVERYBODY,) if pooled else world.nodes
    weights, number, due = model.initial(), 0, _ROUND
    faults = fault_schedule(seed, seconds, world.nodes, world.links, mix=MIXES[mix])
    for read in world.run(seconds, faults):
        for node, readings in read.nodes.items():
            judges[node].judge(read.at, readings, _well(readings))
        if read.at >= due:
            due += _ROUND
            number += 1
            weights = share_what_was_learned(model, clients, weights, number)
    return model, weights


def share_what_was_learned(
    model: LinkNormality, clients: Sequence[str], weights: Weights, number: int
) -> Weights:
    """One round of learning: the model that it made, which the clients use from then on."""
    updates = []
    for place, client in enumerate(clients):
        if model.local(client):
            trained, samples, _ = model.train(client, weights, 1, 1000 * number + place)
            updates.append(Update(trained, samples))
    if not updates:
        return weights
    made = aggregate(updates, weights, most_weight=2.0).weights
    for client in clients:
        model.adopt(client, made, number)
    return made


@dataclass
class Trial:
    """What became of the faults of some meshes under one detector."""

    delays: dict[str, list[float | None]] = field(default_factory=dict)
    """By class of fault: seconds until it was found, None where it was not."""
    false_alarms: int = 0
    beside: float = 0.0
    """Seconds in which there was an alarm and no fault: those of false alarms, and after a fault's end."""
    link_hours: float = 0.0

    def add(self, other: Trial) -> None:
        """Count another trial in."""
        for name, delays in other.delays.items():
            self.delays.setdefault(name, []).extend(delays)
        self.false_alarms += other.false_alarms
        self.beside += other.beside
        self.link_hours += other.link_hours

    def found(self, sort: str = "") -> tuple[int, int]:
        """How many faults were found, of how many: of classes that begin so."""
        delays = [delay for name, each in self.delays.items() if name.startswith(sort) for delay in each]
        return sum(delay is not None for delay in delays), len(delays)

    def as_json(self) -> dict[str, object]:
        """For machines."""
        found, of = self.found()
        return {
            "found": found,
            "faults": of,
            "false_alarms": self.false_alarms,
            "seconds_beside_faults": round(self.beside, 1),
            "link_hours": round(self.link_hours, 2),
            "delays": self.delays,
        }


def try_out(
    detectors: Mapping[str, Detector], seed: int, *, seconds: float, varied: bool, mix: str | None
) -> dict[str, Trial]:
    """Let detectors read the same mesh; `mix` None has no faults at all."""
    world = World(seed, varied=varied)
    faults: Sequence[Fault] = ()
    if mix is not None:
        faults = fault_schedule(seed, seconds, world.nodes, world.links, mix=MIXES[mix])
    found: dict[str, dict[int, float]] = {name: {} for name in detectors}
    trials = {name: Trial(link_hours=seconds / 3600.0 * len(world.links)) for name in detectors}
    ringing: Counter[tuple[str, str, str]] = Counter()
    for read in world.run(seconds, faults):
        for node, readings in read.nodes.items():
            here = {
                reading.link: [f for f in faults if _on(f, reading.link, read.at)] for reading in readings
            }
            for name, detect in detectors.items():
                bad = detect(node, read.at, readings)
                for link, present in here.items():
                    before = ringing[name, node, link]
                    ringing[name, node, link] = link in bad
                    if link not in bad:
                        continue
                    if not present:
                        trials[name].false_alarms += not before
                        trials[name].beside += EVERY
                    # Under two faults at once nobody can say which was found.
                    if len(present) == 1 and read.at <= present[0].at + present[0].duration:
                        found[name].setdefault(present[0].number, read.at - present[0].at)
    for name, trial in trials.items():
        for fault in faults:
            if fault.at + fault.duration <= seconds and not _hidden(fault, faults):
                trial.delays.setdefault(fault_class(fault), []).append(found[name].get(fault.number))
    return trials


def fault_class(fault: Fault) -> str:
    """How a fault is listed."""
    ways = ", one way" if fault.parameters.get("one_way") else ""
    if fault.kind == "link.loss":
        loss = fault.parameters["loss"]
        bounds = next(b for b in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 1.0)) if loss < b[1])
        return f"loss {bounds[0]:.0%} to {min(bounds[1], 0.7):.0%}{ways}"
    if fault.kind == "link.slow":
        delay = fault.parameters["delay"] + fault.parameters["jitter"] / 2.0
        return f"delay {'10 to 30' if delay < 0.03 else '30 to 100'} ms{ways}"
    return fault.kind


def _on(fault: Fault, link: str, at: float) -> bool:
    return fault.at <= at <= fault.at + fault.duration + _GRACE and _touches(fault, link)


def _touches(fault: Fault, link: str) -> bool:
    return fault.target == link or fault.target in link.split("~")


def _hidden(fault: Fault, faults: Sequence[Fault]) -> bool:
    """Whether a crash of one of its ends overlaps with a fault of a link."""
    return any(
        other is not fault
        and _touches(other, fault.target)
        and other.at < fault.at + fault.duration
        and fault.at < other.at + other.duration + _GRACE
        for other in faults
    )


def _heard(opinions: Mapping[str, Opinion]) -> set[str]:
    return {link for link, opinion in opinions.items() if opinion.problem}


def _well(readings: Sequence[LinkReading]) -> dict[str, bool | None]:
    """What the watcher would say: see `mesh.watch`."""
    well: dict[str, bool | None] = {}
    for reading in readings:
        calm = max(reading.score_in, reading.score_out) < THRESHOLD / 3
        well[reading.link] = False if alarming(reading) else True if calm else None
    return well
