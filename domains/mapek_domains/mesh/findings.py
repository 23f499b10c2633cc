"""What is said of a link, with the evidence: by the thresholds of `detect`, or by a learned model.

Each finding carries what was measured, and the threshold that was in force. Pure.
"""

from __future__ import annotations

from mapek_runtime import Evidence, Finding

from .detect import THRESHOLD, LinkState, harmful_loss, run_limit
from .engine import LinkReading
from .judge import Opinion

__all__ = ["by_model", "by_thresholds", "recovered"]


def by_thresholds(reading: LinkReading, rules: tuple[str, ...]) -> Finding:
    """A link that breaks rules of `meter.alarming`."""
    limit = run_limit(reading.baseline_loss)
    harmful = harmful_loss(reading.baseline_loss)
    evidence: list[Evidence] = []
    for way, missed, score, loss in (
        ("in", reading.missed_in, reading.score_in, reading.loss_in),
        ("out", reading.missed_out, reading.score_out, reading.loss_out),
    ):
        if f"dead.{way}" in rules:
            evidence.append(
                Evidence(
                    metric=f"link.missed_{way}", value=missed, threshold=limit, unit="{probe}",
                    rule=f"in a row; up to {reading.baseline_loss:.2%} loss is normal here",
                )
            )  # fmt: skip
        if f"lossy.{way}" in rules:
            evidence += (
                Evidence(metric=f"link.score_{way}", value=score, threshold=THRESHOLD, rule="cumulative sum"),
                Evidence(metric=f"link.loss_{way}", value=loss, threshold=harmful, rule="since the change"),
            )
    dead = any(rule.startswith("dead") for rule in rules)
    ways = " and ".join(sorted({rule.partition(".")[2] for rule in rules}))
    if dead:
        confidence = 1.0 - max(reading.baseline_loss, 1e-4) ** max(reading.missed_in, reading.missed_out)
        message = f"{max(reading.missed_in, reading.missed_out)} probes missed in a row ({ways})"
    else:
        confidence = 1.0 - 2.0 ** -max(reading.score_in, reading.score_out)
        message = f"{max(reading.loss_in, reading.loss_out):.0%} of the probes are lost ({ways})"
    return Finding(
        target=reading.link,
        problem="link.dead" if dead else "link.lossy",
        confidence=max(confidence, 0.0),
        severity=1.0 if dead else max(reading.loss_in, reading.loss_out),
        evidence=tuple(evidence),
        message=message,
    )


def by_model(link: str, opinion: Opinion) -> Finding:
    """A link that only the learned model calls bad."""
    window, usual = opinion.window, opinion.usual
    loss, rtt = window.loss(), window.rtt()
    if opinion.problem == "link.slow":
        measured = Evidence(
            metric="link.rtt", value=rtt, threshold=usual.rtt, unit="s", rule="of the newest 16; usual here"
        )
        message = f"a round trip takes {rtt * 1000:.1f} ms, and {usual.rtt * 1000:.1f} ms is usual"
        severity = 1.0 - usual.rtt / rtt if rtt > usual.rtt else 0.0
    else:
        normal = max(usual.loss_in, usual.loss_out)
        measured = Evidence(
            metric="link.loss", value=loss, threshold=normal, rule="of the newest 64 probes; usual here"
        )
        message = f"{loss:.0%} of the newest 64 probes are lost, and up to {normal:.1%} is usual"
        severity = loss
    return Finding(
        target=link,
        problem=opinion.problem,
        confidence=opinion.judgement.score,
        severity=severity,
        evidence=(*_by_score(opinion), measured),
        message=message,
    )


def _by_score(opinion: Opinion) -> tuple[Evidence, ...]:
    """The score, the threshold that was agreed upon, and the features that speak loudest."""
    judgement = opinion.judgement
    return (
        Evidence(
            metric="fl.score",
            value=judgement.score,
            threshold=judgement.threshold,
            rule=f"model of round {judgement.version}",
        ),
        *(
            Evidence(metric=f"fl.{name}", value=value, threshold=0.0, rule="what the score rests on")
            for name, value in opinion.loudest
        ),
    )


def recovered(reading: LinkReading, why: str) -> Finding:
    """A drained link that may be used again, and in words why."""
    return Finding(
        target=reading.link,
        problem="link.recovered",
        anomaly=False,
        severity=0.0,
        evidence=(
            Evidence(
                metric="link.good",
                value=reading.good,
                threshold=LinkState.GOOD_PROBES,
                unit="{probe}",
                rule=f"in a row, or {LinkState.CALM:g} s without an alarm; fewer where no other way is left",
            ),
        ),
        message=f"{reading.link} may be used again: {why}",
    )
