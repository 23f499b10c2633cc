"""Log lines stay few, and none of what they stand for is forgotten."""

from __future__ import annotations

import logging
import os
import signal
import threading

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
        "spans dropped at the ring (count 5)",
        "spans dropped at the ring (count 15 since the last such line)",
        "spans dropped at the ring (count 5 since the last such line)",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_can_warn_though_its_parent_was_just_warning() -> None:
    notices = Notices(logging.getLogger("test"))

    def in_another_thread() -> None:
        with notices._lock:
            held.set()
            forked.wait(20)

    held, forked = threading.Event(), threading.Event()
    thread = threading.Thread(target=in_another_thread)
    thread.start()
    held.wait(20)
    child = os.fork()
    if not child:
        logging.disable(logging.CRITICAL)
        signal.alarm(20)
        notices.warn("a", "first")
        os._exit(0)
    forked.set()
    thread.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_subjects_do_not_silence_one_another(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(logging.getLogger("test"))

    notices.warn("a", "first")
    notices.warn("b", "second")

    assert len(caplog.records) == 2
