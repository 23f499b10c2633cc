"""The section [sampler]: which sampler it means, what is refused, and what comes before what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import Sampler
from typer.testing import CliRunner

from mapek_runtime.config import Configuration, SamplerSettings, decode, read_sources
from mapek_runtime.errors import ConfigError
from mapek_runtime.service import cli
from mapek_runtime.service.polling import Poller, pause
from mapek_runtime.service.sampling import (
    RemoteArgument,
    jaeger_remote,
    make_sampler,
    read_remote_argument,
    strategy_url,
)
from mapek_runtime.trace.sampling.remote import find_remote

SHOP = Resource({"service.name": "shop"})


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
    ):
        monkeypatch.delenv(name, raising=False)


def read(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, flag: str | None = None
) -> Configuration:
    file = tmp_path / "mapek.toml"
    file.write_text(text)
    flags = {"sampler.type": (flag, "--sampler")}
    return decode(read_sources(file=file, environ=environ or {}, flags=flags))


def root_of(sampler: Sampler) -> str:
    """The description of the sampler that decides on roots, below a `ParentBased`."""
    description = sampler.get_description()
    assert description.startswith("ParentBased{root:")
    return description.removeprefix("ParentBased{root:").partition(",remoteParent")[0]


@pytest.mark.parametrize(
    ("section", "root"),
    [
        ({}, "AlwaysOnSampler"),
        ({"type": "const"}, "AlwaysOnSampler"),
        ({"type": "const", "param": 1}, "AlwaysOnSampler"),
        ({"type": "const", "param": 0}, "AlwaysOffSampler"),
        ({"type": "probabilistic", "param": 0.1}, "TraceIdRatioBased{0.1}"),
        ({"type": "probabilistic"}, "TraceIdRatioBased{1.0}"),
        ({"type": "probability", "param": 0.1}, "ProbabilitySampler{0.1}"),
        ({"type": "probability", "param": 0}, "AlwaysOffSampler"),
        ({"type": "adaptive", "param": 2.5}, "AdaptiveSampler{2.5/s}"),
        ({"type": "adaptive"}, "AdaptiveSampler{10/s}"),
        ({"type": "remote"}, "JaegerRemoteSampler{probabilistic 0.001}"),
        ({"type": "remote", "param": 0.5}, "JaegerRemoteSampler{probabilistic 0.5}"),
    ],
)
def test_each_type_means_its_sampler(section: dict[str, object], root: str) -> None:
    settings = SamplerSettings(**section)  # type: ignore[arg-type]

    assert root_of(make_sampler(settings, SHOP)) == root


def test_a_remote_sampler_asks_for_the_service_where_it_is_told_to() -> None:
    settings = SamplerSettings(type="remote", endpoint="http://jaeger:5778", interval=5)

    remote = find_remote(make_sampler(settings, SHOP))

    assert remote is not None
    assert isinstance(remote.source, Poller)
    assert (remote.service_name, remote.source.url, remote.source.interval) == (
        "shop",
        "http://jaeger:5778/sampling",
        5,
    )


def test_the_section_of_the_guide_is_read(tmp_path: Path) -> None:
    configuration = read(tmp_path, 'sampler = {type = "probabilistic", param = 0.1}')

    assert root_of(make_sampler(configuration.settings.sampler, SHOP)) == "TraceIdRatioBased{0.1}"


@pytest.mark.parametrize(
    ("environ", "flag", "type_", "origin"),
    [
        ({}, None, "const", "mapek.toml"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, None, "otel", "OTEL_TRACES_SAMPLER"),
        (
            {"OTEL_TRACES_SAMPLER": "always_off", "MAPEK_SAMPLER_TYPE": "adaptive"},
            None,
            "adaptive",
            "MAPEK_SAMPLER_TYPE",
        ),
        ({"MAPEK_SAMPLER_TYPE": "adaptive"}, "remote", "remote", "--sampler"),
    ],
    ids=["file", "OTEL over file", "MAPEK over OTEL", "flag over MAPEK"],
)
def test_the_stronger_layer_chooses(
    environ: dict[str, str], flag: str | None, type_: str, origin: str, tmp_path: Path
) -> None:
    configuration = read(tmp_path, '[sampler]\ntype = "const"', environ, flag)

    assert configuration.settings.sampler.type == type_
    assert configuration.origin("sampler.type").endswith(origin)


def test_the_variable_of_opentelemetry_is_read_where_it_has_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")

    assert make_sampler(SamplerSettings(), SHOP).get_description() == "TraceIdRatioBased{0.25}"
    assert root_of(make_sampler(SamplerSettings(type="const"), SHOP)) == "AlwaysOnSampler"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            'type = "probabilist"',
            "[sampler] type is 'probabilist'; it must be one of 'adaptive', 'const', 'otel'",
        ),
        ('type = "const"\nparam = 0.5', "[sampler]: param is 0.5; with type 'const' it must be 0 or 1"),
        (
            'type = "probabilistic"\nparam = 2',
            "[sampler]: param is 2; with type 'probabilistic' it must be a number from 0 to 1",
        ),
        ('type = "adaptive"\nparam = 0', "with type 'adaptive' it must be a number above 0"),
        ("param = -1", "[sampler] param is -1; it must be a number from 0"),
        ('endpoint = "jaeger:5778"', "[sampler] endpoint is 'jaeger:5778'; it must be"),
        ("interval = 0", "[sampler] interval is 0; it must be"),
        ("parm = 1", "[sampler] parm: there is no such setting; did you mean 'param'?"),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_value_and_what_is_right(
    section: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, f"[sampler]\n{section}")

    assert str(refused.value).startswith(str(tmp_path / "mapek.toml"))
    assert said in str(refused.value)


def test_values_from_two_places_that_do_not_go_together_name_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, '[sampler]\ntype = "const"', {"MAPEK_SAMPLER_PARAM": "0.5"})

    places = f"{tmp_path / 'mapek.toml'}, MAPEK_SAMPLER_PARAM"
    assert str(refused.value).startswith(f"{places}: [sampler]: param is 0.5")


def test_an_endpoint_that_is_no_address_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="endpoint is 'http://jaeger:99999'; it must be an address"):
        make_sampler(SamplerSettings(type="remote", endpoint="http://jaeger:99999"), SHOP)


def test_check_shows_the_sampler_that_a_run_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mapek.toml"
    file.write_text('sampler = {type = "probabilistic", param = 0.1}')

    def check() -> str:
        return CliRunner().invoke(cli.app, ["check", "--config", str(file), "--state", str(tmp_path)]).stdout

    by_file = check()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote")
    by_variable = check()

    assert f'sampler.type = "probabilistic"    # {file}' in by_file
    assert f"sampler.param = 0.1    # {file}" in by_file
    assert "sampler: ParentBased{root:TraceIdRatioBased{0.1}," in by_file
    assert 'sampler.type = "otel"    # OTEL_TRACES_SAMPLER' in by_variable
    assert "sampler: ParentBased{root:JaegerRemoteSampler{probabilistic 0.001}," in by_variable


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        (None, RemoteArgument()),
        ("", RemoteArgument()),
        (
            "endpoint=http://jaeger:5778,pollingIntervalMs=5000,initialSamplingRate=0.25",
            RemoteArgument(url="http://jaeger:5778/sampling", interval=5, initial_rate=0.25),
        ),
        (" initialSamplingRate = 1 ,", RemoteArgument(initial_rate=1)),
    ],
)
def test_the_argument_of_the_specification_is_read(text: str | None, argument: RemoteArgument) -> None:
    assert read_remote_argument(text) == argument


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.25", "there is no '0.25'"),
        ("endpoint=jaeger", "endpoint is 'jaeger'; it must be an address such as"),
        ("endpoint", "endpoint is ''"),
        ("pollingIntervalMs=0", "pollingIntervalMs is '0'; it must be milliseconds from 1"),
        ("pollingIntervalMs=fast", "pollingIntervalMs is 'fast'"),
        ("initialSamplingRate=2", "initialSamplingRate is '2'; it must be a number from 0 to 1"),
        ("initialSamplingRate=nan", "initialSamplingRate is 'nan'"),
        ("=5", "'=5' has no name"),
    ],
)
def test_a_wrong_argument_is_logged_once_and_counts_as_unset(
    text: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = jaeger_remote(f"initialSamplingRate=0.5,{text}")

    assert sampler.get_description() == "JaegerRemoteSampler{probabilistic 0.001}"
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert "it is ignored" in record.getMessage()


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "unknown_service"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=till"}, "till"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=till", "OTEL_SERVICE_NAME": "shop"}, "shop"),
    ],
)
def test_without_a_provider_the_service_is_that_of_the_environment(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)

    assert jaeger_remote().service_name == name


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://jaeger:5778", "http://jaeger:5778/sampling"),
        ("https://jaeger/", "https://jaeger/sampling"),
        ("http://jaeger:5778/api/sampling", "http://jaeger:5778/api/sampling"),
        ("http://[::1]:5778", "http://[::1]:5778/sampling"),
    ],
)
def test_an_endpoint_is_an_address_with_a_path(endpoint: str, url: str) -> None:
    assert strategy_url(endpoint) == url


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:14250", "http://localhost:5778/sampling"),
        ("http://[::1]:5779", "http://[::1]:5778/sampling"),
    ],
)
def test_a_port_for_grpc_is_read_as_its_neighbour_for_http_and_says_so(
    endpoint: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert strategy_url(endpoint) == url
    (record,) = caplog.records
    assert "gRPC" in record.getMessage()


def test_questions_are_spread_around_the_interval() -> None:
    assert [pause(60, 0, chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx([54, 60, 66])


def test_after_a_failure_it_is_asked_sooner_and_then_ever_later() -> None:
    assert [pause(60, failures, 1.0) for failures in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]
    assert pause(0.1, 5, 1.0) == 0.1
