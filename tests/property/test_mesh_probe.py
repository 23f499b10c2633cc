"""Probes and detectors under any order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mapek_domains.mesh.detect import Detector, Normal, run_limit
from mapek_domains.mesh.probe import LinkProbe, Probe

arrivals = st.lists(
    st.tuples(st.sampled_from(["send", "deliver", "drop", "repeat", "sleep"]), st.integers(0, 5))
)
u32 = st.integers(1, 0xFFFF_FFFF)


@given(arrivals)
def test_every_verdict_is_about_one_probe_and_never_about_more_than_were_sent(
    events: list[tuple[str, int]],
) -> None:
    now = 0.0
    a, b = LinkProbe(1, now), LinkProbe(2, now)
    flying: list[Probe] = []
    sent = 0
    for what, which in events:
        now += 0.05
        if what == "send":
            flying.append(a.next_probe(now))
            sent += 1
            a.heard(b.next_probe(now), now)
        elif what == "sleep":
            b.overslept(now)
        elif flying:
            frame = flying[which % len(flying)] if what == "repeat" else flying.pop(which % len(flying))
            if what != "drop":
                b.heard(frame, now)
        a.tick(now)
        b.tick(now)

    assert len(b.verdicts_in) <= sent
    assert len(a.verdicts_out) <= sent
    assert b.missed_in(now) >= 0
    assert a.missed_out <= sent


lies = st.builds(
    Probe,
    epoch=u32,
    seq=u32,
    sent_us=st.integers(0, 1 << 62),
    interval_us=st.integers(0, 0xFFFF_FFFF),
    overslept=st.booleans(),
    heard_epoch=st.sampled_from([0, 5, 6]),
    heard_seq=st.integers(0, 0xFFFF_FFFF),
    heard_bitmap=st.integers(0, (1 << 64) - 1),
    echo_us=st.integers(0, 1 << 62),
    hold_us=st.integers(0, 1 << 62),
)


@given(st.lists(lies, max_size=20))
def test_no_lie_in_a_probe_breaks_its_reader(frames: list[Probe]) -> None:
    probe = LinkProbe(5, 0.0)
    now = 0.0
    for frame in frames:
        now += 0.01
        probe.next_probe(now)
        probe.heard(frame, now)
        probe.tick(now)

    assert len(probe.verdicts_in) <= 300 * max(len(frames), 1)
    assert len(probe.verdicts_out) <= len(frames)
    assert probe.rtt is None or 0.0 <= probe.rtt < 60.0


@given(st.lists(st.booleans(), max_size=400))
def test_a_detector_stays_within_its_bounds(verdicts: list[bool]) -> None:
    detector = Detector()
    for arrived in verdicts:
        detector.feed(arrived)

        assert detector.score >= 0.0
        assert 0.0 <= detector.loss <= 1.0
        assert 4 <= run_limit(detector.baseline) <= 20
    assert detector.probes == len(verdicts)


@given(st.integers(0, 600), st.integers(0, 600))
def test_what_is_normal_is_a_share(lost: int, more: int) -> None:
    normal = Normal().after(lost, lost + more)

    assert 0.0 <= normal.lost <= normal.total
    assert 0.0 <= normal.upper <= 1.0
