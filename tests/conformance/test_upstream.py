"""Upstream's own tests, run on our classes.

A test that fails is run again on the stock classes: what fails there as well fails because of this
environment. `README.md` says how to run one of them by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.expected import deviations
from tests.conformance.run import SUITES, Report, run
from tests.conformance.upstream import Unavailable

pytestmark = pytest.mark.slow


@pytest.fixture(params=SUITES, scope="module")
def suite(request: pytest.FixtureRequest) -> str:
    """The name of each suite in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Report]]]:
    """The suites that are asked for, two at a time: the longest of them mostly waits."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = {item.callspec.params.get("suite") for item in items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(run, each, tmp_path_factory.mktemp(name))
            for name, each in SUITES.items()
            if name in asked
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def report(suite: str, reports: dict[str, Future[Report]]) -> Report:
    """What the suite says of our classes; skipped where the suite cannot be had."""
    try:
        return reports[suite].result()
    except Unavailable as error:
        pytest.skip(str(error))


def check(suite: str, report: Report, folder: Path) -> None:
    """Fail where a test of the report failed that the list does not name and the stock SDK passes."""
    unexpected = report.failed() - deviations(suite).keys()
    if timed := unexpected.intersection(SUITES[suite].timed):
        unexpected -= timed - run(SUITES[suite], folder / "again", tests=sorted(timed)).failed()
    if unexpected:
        stock = run(SUITES[suite], folder / "stock", subject="stock", tests=sorted(unexpected))
        unexpected -= stock.failed()

    told = "\n\n".join(f"{test}\n{report.reasons[test]}" for test in sorted(unexpected))
    assert not unexpected, f"{len(unexpected)} tests of upstream fail with our classes only:\n{told}"


def test_what_the_stock_sdk_passes_passes(suite: str, report: Report, tmp_path: Path) -> None:
    check(suite, report, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("slow", [name for name, each in SUITES.items() if each.slow])
def test_what_takes_long_passes_too(slow: str, tmp_path: Path) -> None:
    try:
        report = run(SUITES[slow], tmp_path / "ours", tests=SUITES[slow].slow)
    except Unavailable as error:
        pytest.skip(str(error))

    assert report.outcomes.keys() == set(SUITES[slow].slow)
    check(slow, report, tmp_path)
    check_deviations(slow, report, set(SUITES[slow].slow))


def check_deviations(suite: str, report: Report, among: set[str]) -> None:
    """Fail where one of these passes, or is not there, although the list says that it fails."""
    outcomes = {
        test: report.outcomes.get(test, "not in the suite") for test in among & deviations(suite).keys()
    }
    assert outcomes == dict.fromkeys(outcomes, "failed")


def test_the_list_of_deviations_holds_nothing_that_passes(suite: str, report: Report) -> None:
    check_deviations(suite, report, deviations(suite).keys() - set(SUITES[suite].slow))


def test_the_suite_was_run_on_our_classes(suite: str, report: Report) -> None:
    stock = [name for name in report.built if name.startswith("stock ")]

    assert "passed" in report.outcomes.values()
    assert all(report.built.get(name) for name in SUITES[suite].subjects), report.built
    assert stock == []
    assert report.in_place, "a reload has brought the stock classes back"
