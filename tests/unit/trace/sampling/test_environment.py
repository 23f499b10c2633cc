"""`OTEL_TRACES_SAMPLER`: the SDK's names as the SDK reads them, and those that packages provide."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider as StockProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, Sampler

from mapek_runtime import TracerProvider
from mapek_runtime.trace.sampling import JaegerRemoteSampler, sampler_from_environment
from mapek_runtime.trace.sampling.remote import find_remote

PLUGIN = """\
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

def given(argument):
    given.argument = argument
    return ALWAYS_OFF

def broken(argument):
    raise RuntimeError("broken on purpose")

def wrong(argument):
    return 5
"""
ENTRY_POINTS = """\
[opentelemetry_traces_sampler]
given = sampler_for_tests:given
broken = sampler_for_tests:broken
wrong = sampler_for_tests:wrong
missing = sampler_for_tests:missing
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that provides samplers."""
    (tmp_path / "sampler_for_tests.py").write_text(PLUGIN)
    metadata = tmp_path / "sampler_for_tests-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sampler-for-tests\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def named(monkeypatch: pytest.MonkeyPatch, name: str | None, argument: str | None = None) -> Sampler:
    for variable, value in (("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    return sampler_from_environment()


@pytest.mark.parametrize("argument", [None, "0.25", "much", "2", ""])
@pytest.mark.parametrize(
    "name",
    [
        None,
        "always_on",
        "ALWAYS_OFF",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ],
)
def test_the_names_of_the_sdk_mean_what_they_mean_there(
    name: str | None,
    argument: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = named(monkeypatch, name, argument)
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()

    stock = StockProvider(shutdown_on_exit=False).sampler

    assert type(ours) is type(stock)
    assert ours.get_description() == stock.get_description()
    assert said == [record.getMessage() for record in caplog.records]


def test_an_empty_name_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert named(monkeypatch, " ") is DEFAULT_ON
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("xray", "not supported here"),
        ("no_such", "no such sampler; there are always_off"),
    ],
)
def test_a_name_that_nobody_provides_is_one_warning_and_the_default(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert named(monkeypatch, name) is DEFAULT_ON

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"OTEL_TRACES_SAMPLER is {name!r}: " in record.getMessage()
    assert reason in record.getMessage()
    assert "using parentbased_always_on" in record.getMessage()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("name", ["given", " Given "])
def test_a_sampler_of_an_installed_package_gets_the_argument(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(monkeypatch, name, "a=b") is ALWAYS_OFF

    import sampler_for_tests  # type: ignore[import-not-found]

    assert sampler_for_tests.given.argument == "a=b"


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "RuntimeError: broken on purpose"),
        ("wrong", "gave a int, which is no Sampler"),
        ("missing", "AttributeError"),
    ],
)
def test_a_package_that_fails_is_one_warning_and_the_default(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert named(monkeypatch, name) is DEFAULT_ON

    (record,) = caplog.records
    assert reason in record.getMessage()


@pytest.mark.parametrize("name", ["jaeger_remote", "parentbased_jaeger_remote"])
def test_a_plain_provider_samples_as_a_jaeger_server_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "initialSamplingRate=0.25")

    sampler = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False).sampler

    remote = find_remote(sampler)
    assert isinstance(remote, JaegerRemoteSampler)
    assert (sampler is remote) == (name == "jaeger_remote")
    assert remote.service_name == "shop"
    assert remote.get_description() == "JaegerRemoteSampler{probabilistic 0.25}"


def test_a_sampler_that_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "jaeger_remote")

    assert TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).sampler is ALWAYS_OFF
