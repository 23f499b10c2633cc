"""Log lines stay few, and none of what they stand for is forgotten."""

from __future__ import annotations

import logging

import pytest

from mapek_runtime.export.notice import Notices


def test_a_subject_is_told_at_most_once_in_the_interval_with_the_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    notices = Notices(logging.getLogger("test"), interval=10, clock=lambda: now)

    for moment in (0.0, 1.0, 9.9, 10.0, 30.0):
        now = moment
        notices.warn("full", "spans dropped at %s", "the ring", count=5)

    assert [record.getMessage() for record in caplog.records] == [
        "spans dropped at the ring (5 since the last line about this)",
        "spans dropped at the ring (15 since the last line about this)",
        "spans dropped at the ring (5 since the last line about this)",
    ]


def test_subjects_do_not_silence_one_another(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(logging.getLogger("test"))

    notices.warn("a", "first")
    notices.warn("b", "second")

    assert len(caplog.records) == 2
