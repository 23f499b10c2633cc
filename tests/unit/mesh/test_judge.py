"""When a model of what is normal is heard, and what it is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mapek_domains.mesh.engine import LinkReading
from mapek_domains.mesh.features import DELAY, FEATURES, KIND, LOSS
from mapek_domains.mesh.judge import LinkJudge, Opinion
from mapek_domains.mesh.window import MOST_RTTS, MOST_VERDICTS, Window
from mapek_runtime.loop.domain import Judgement

ALL = (1 << MOST_VERDICTS) - 1
EVERY_TENTH = ALL & ~sum(1 << place for place in range(0, MOST_VERDICTS, 10))


class Model:
    """Says of a reading that it is as far from normal as its worst feature, of 4."""

    def __init__(self) -> None:
        self.here = True
        self.taught: list[bool | None] = []
        self.version = 3

    def judge(self, node_id: str, kind: str, features: Sequence[float]) -> Judgement | None:
        assert (node_id, kind, len(features)) == ("n1", KIND, len(FEATURES))
        worst = max(*features[LOSS], *features[DELAY])
        return Judgement(score=min(worst / 4.0, 1.0), threshold=0.3, version=self.version)

    def observe(self, _node_id: str, _kind: str, features: Sequence[float], *, normal: bool | None) -> None:
        assert len(features) == len(FEATURES)
        self.taught.append(normal)


class Links:
    """Two links of one node, read ten times a second."""

    def __init__(self) -> None:
        self.model = Model()
        self.judge = LinkJudge("n1", lambda: self.model if self.model.here else None)
        self.now = 100.0
        self.seen = 0
        self.drained = False
        self.well: bool | None = True

    def read(self, seconds: float, *, came: int = ALL, rtt: float = 0.001) -> Opinion | None:
        """The last opinion of the first link."""
        opinion = None
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.seen += 2
            window = Window(came, self.seen, ALL, self.seen, (rtt,) * min(self.seen, MOST_RTTS), self.seen)
            well = replace(window, came_in=ALL, rtts=(0.001,) * len(window.rtts))
            readings = [self._reading("n2", window), self._reading("n3", well)]
            opinions = self.judge.judge(
                self.now, readings, {readings[0].link: self.well, readings[1].link: True}
            )
            opinion = opinions.get("n1~n2")
        return opinion

    def _reading(self, peer: str, window: Window) -> LinkReading:
        return LinkReading(
            link=f"n1~{peer}",
            peer=peer,
            loss_in=0.0,
            loss_out=0.0,
            rtt=0.001,
            silence=0.0,
            missed_in=0,
            missed_out=0,
            score_in=0.0,
            score_out=0.0,
            baseline_loss=0.0,
            probes=2 * window.seen_in,
            good=0,
            drained=self.drained and peer == "n2",
            drained_here=self.drained and peer == "n2",
            peer_alive=True,
            window=window,
        )


def test_without_a_model_nothing_is_said_and_nothing_learned() -> None:
    links = Links()
    links.model.here = False

    assert links.read(20.0) is None
    assert links.model.taught == []


def test_a_link_is_not_judged_before_it_is_known_what_is_usual_on_it() -> None:
    links = Links()

    assert links.read(3.0) is None
    assert links.read(7.0) is not None


def test_a_normal_link_is_judged_normal_and_teaches_both_sorts_of_examples() -> None:
    links = Links()
    opinion = links.read(20.0)

    assert opinion is not None
    assert (opinion.problem, opinion.near) == ("", False)
    assert {True, False} == set(links.model.taught)


@pytest.mark.parametrize(
    ("came", "rtt", "problem"), [(EVERY_TENTH, 0.001, "link.lossy"), (ALL, 0.03, "link.slow")], ids=str
)
def test_trouble_is_named_when_it_lasts_for_a_moment(came: int, rtt: float, problem: str) -> None:
    links = Links()
    links.read(20.0)
    at_once = links.read(0.1, came=came, rtt=rtt)
    later = links.read(0.3, came=came, rtt=rtt)

    assert at_once is not None
    assert at_once.near
    assert not at_once.problem
    assert later is not None
    assert later.problem == problem
    assert later.loudest[0][0] in FEATURES[LOSS if problem == "link.lossy" else DELAY]


def test_what_was_heard_is_heard_until_the_link_is_well_and_keeps_its_name() -> None:
    links = Links()
    links.read(20.0)
    links.read(1.0, rtt=0.03)
    # Below its threshold, and yet not well; and a loss that came to it does not make it another problem.
    less = links.read(0.5, came=EVERY_TENTH, rtt=0.0027)
    well = links.read(0.1)

    assert less is not None
    assert less.problem == "link.slow"
    assert well is not None
    assert well.problem == ""


def test_what_only_the_model_calls_abnormal_teaches_nothing() -> None:
    links = Links()
    links.read(20.0)
    links.model.taught.clear()
    links.read(20.0, rtt=0.03)
    of_the_bad_link = links.model.taught.count(None)

    assert of_the_bad_link >= 5
    # Eight of each window are taught by the link that is well; the bad one adds no example.
    assert len(links.model.taught) - of_the_bad_link == 8 * of_the_bad_link


def test_what_breaks_a_rule_is_an_example_of_what_is_not_normal() -> None:
    links = Links()
    links.read(20.0)
    links.model.taught.clear()
    links.well = False
    links.read(4.0, came=EVERY_TENTH)

    assert None not in links.model.taught


def test_what_was_before_a_link_came_into_use_again_is_not_held_against_it() -> None:
    links = Links()
    links.read(20.0)
    links.read(2.0, came=EVERY_TENTH)
    links.drained = True
    bad = links.read(2.0, came=EVERY_TENTH)
    links.drained = False
    used_again = links.read(0.5, came=EVERY_TENTH)
    and_still_bad = links.read(8.0, came=EVERY_TENTH)

    assert bad is not None
    assert bad.problem == "link.lossy"
    assert used_again is not None
    assert not used_again.problem
    assert and_still_bad is not None
    assert and_still_bad.problem == "link.lossy"


def test_what_a_rule_was_broken_by_before_the_link_was_known_is_not_held_against_it() -> None:
    links = Links()
    links.well = False
    links.read(2.0, came=0)
    links.well = True
    opinions = [links.read(0.1, came=(1 << 2 * reading) - 1) for reading in range(1, 100)]
    said = [opinion for opinion in opinions if opinion is not None]

    # The newest 128 probes begin before what was good.
    assert opinions[55] is not None
    assert not any(opinion.near for opinion in said)


def test_what_all_links_show_is_not_trouble_of_one() -> None:
    links = Links()
    links.read(20.0)
    window = Window(EVERY_TENTH, links.seen + 2, ALL, links.seen + 2, (0.03,) * MOST_RTTS, links.seen + 2)
    both = [links._reading("n2", window), links._reading("n3", window)]
    for _ in range(10):
        links.now += 0.1
        opinions = links.judge.judge(links.now, both, {reading.link: True for reading in both})

    assert [opinion.problem for opinion in opinions.values()] == ["", ""]
