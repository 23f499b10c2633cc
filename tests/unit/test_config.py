"""Settings: where values come from, and what is said when they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from mapek_runtime.config import (
    Configuration,
    LoopSettings,
    Settings,
    Value,
    decode,
    describe_type,
    leaves,
    read_sources,
)
from mapek_runtime.errors import ConfigError


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section of a domain."""

    power: Annotated[int, msgspec.Meta(ge=1)] = 5
    """How strong."""
    peers: dict[str, str] = {}
    token: Annotated[str, msgspec.Meta(extra={"secret": True}, max_length=4)] = ""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    least: int = 0
    most: int = 1

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, above most, {self.most}")


def read(
    tmp_path: Path,
    text: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[Any, str]] | None = None,
    sections: Mapping[str, type[msgspec.Struct]] | None = None,
    **options: Any,
) -> Configuration:
    file = None
    if text is not None:
        file = tmp_path / "mapek.toml"
        file.write_text(text)
    return decode(read_sources(file=file, environ=environ or {}, flags=flags), sections, **options)


def test_without_sources_everything_is_default(tmp_path: Path) -> None:
    configuration = read(tmp_path)

    assert configuration.settings == Settings()
    assert configuration.origin("loop.interval") == "default"


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("file", {"text": "[export]\ndelay = 1"}),
    ("OTEL", {"environ": {"OTEL_BSP_SCHEDULE_DELAY": "2000"}}),
    ("MAPEK", {"environ": {"OTEL_BSP_SCHEDULE_DELAY": "2000", "MAPEK_EXPORT_DELAY": "3"}}),
    ("flag", {"environ": {"MAPEK_EXPORT_DELAY": "3"}, "flags": {"export.delay": (4, "--delay")}}),
]


@pytest.mark.parametrize(
    ("number", "layers"), list(enumerate(d for _, d in LAYERS)), ids=[n for n, _ in LAYERS]
)
def test_a_stronger_layer_wins_over_the_file(number: int, layers: dict[str, Any], tmp_path: Path) -> None:
    configuration = read(tmp_path, **{"text": "[export]\ndelay = 1", **layers})

    assert configuration.settings.export.delay == number + 1


def test_every_value_remembers_its_source(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        "[loop]\ninterval = 0.5\n[loop.guard]\ncooldown = 9",
        {"OTEL_SERVICE_NAME": "shop", "MAPEK_LOOP_JITTER": "0.1"},
        {"run.seed": (7, "--seed")},
    )

    assert configuration.origins == {
        "loop.interval": str(tmp_path / "mapek.toml"),
        "loop.guard.cooldown": str(tmp_path / "mapek.toml"),
        "service_name": "OTEL_SERVICE_NAME",
        "loop.jitter": "MAPEK_LOOP_JITTER",
        "run.seed": "--seed",
    }
    assert configuration.settings.loop == LoopSettings(
        interval=0.5, jitter=0.1, guard=msgspec.structs.replace(LoopSettings().guard, cooldown=9.0)
    )


def test_a_preset_is_stronger_than_a_default_and_weaker_than_a_file(tmp_path: Path) -> None:
    preset = {"loop.interval": Value(0.1, "demonstration")}

    assert read(tmp_path, presets=preset).settings.loop.interval == 0.1
    assert read(tmp_path, presets=preset).origin("loop.interval") == "demonstration"
    assert read(tmp_path, "[loop]\ninterval = 2", presets=preset).settings.loop.interval == 2.0


WRONG: dict[str, tuple[str, list[str]]] = {
    "unknown key": ("[loop]\nintervall = 1", ["[loop] intervall", "did you mean 'interval'"]),
    "unknown nested key": ("[loop.guard]\ncoldown = 1", ["[loop.guard] coldown", "'cooldown'"]),
    "key of another section": ("[loop]\ncooldown = 1", ["[loop] cooldown", "'loop.guard.cooldown'"]),
    "unknown section": ("[lop]\ninterval = 1", ["[lop]", "did you mean [loop]"]),
    "unknown nested section": ("[loop.gard]\nx = 1", ["[loop.gard]", "did you mean [loop.guard]"]),
    "unknown empty section": ("[lopo]", ["lopo", "loop"]),
    "unknown top key": ("domain = []", ["domain", "'domains'"]),
    "wrong type": ("[loop]\ninterval = 'fast'", ["[loop] interval", "'fast'", "a number above 0"]),
    "out of range": ("[loop.guard]\nfleet_share = 1.5", ["fleet_share", "1.5", "a number from 0 to 1"]),
    "not one of": ("[loop]\noverlap = 'wait'", ["overlap", "'wait'", "'skip'"]),
    "a scalar for a section": ("loop = 3", ["loop"]),
    "a section for a scalar": ("[loop.interval]\nx = 1", ["[loop] interval", "{'x': 1}"]),
    "not TOML": ("[loop\ninterval", ["not TOML", "line 1"]),
    "a domain's wrong value": ("[engine]\npower = 0", ["[engine] power", "0", "a whole number from 1"]),
    "a wrong value in a table": ("[engine]\npeers = {a = 1}", ["[engine] peers", "a table of text"]),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_names_file_key_value_and_what_would_be_right(
    text: str, said: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, sections={"engine": Engine})

    assert str(caught.value).startswith(str(tmp_path / "mapek.toml"))
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MAPEK_LOOP_INTERVAL": "fast"}, "MAPEK_LOOP_INTERVAL is 'fast'; it must be a number above 0"),
        ({"MAPEK_RUN_CHAOS": "maybe"}, "MAPEK_RUN_CHAOS is 'maybe'; it must be true or false"),
        ({"MAPEK_LOOP_INTERVALL": "1"}, "did you mean MAPEK_LOOP_INTERVAL?"),
        ({"MAPEK_ENGINE_PEERS": "{a = 1}"}, "MAPEK_ENGINE_PEERS"),
        ({"MAPEK_ENGINE_PEERS": "{a = "}, "MAPEK_ENGINE_PEERS"),
    ],
    ids=["number", "bool", "unknown", "table of the wrong type", "table that is no table"],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, environ=environ, sections={"engine": Engine})

    assert said in str(caught.value)


def test_a_secret_is_not_shown_when_it_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "[engine]\ntoken = 'hunter2'", sections={"engine": Engine})

    assert "hunter2" not in str(caught.value)
    assert "[engine] token" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("mesh,raft", ("mesh", "raft")), (" mesh ", ("mesh",)), ('["a", "b"]', ("a", "b"))],
    ids=["commas", "blanks", "as TOML"],
)
def test_a_list_in_a_variable(text: str, value: tuple[str, ...], tmp_path: Path) -> None:
    assert read(tmp_path, environ={"MAPEK_DOMAINS": text}).settings.domains == value


def test_a_table_in_a_variable_is_written_as_in_toml(tmp_path: Path) -> None:
    environ = {"MAPEK_ENGINE_PEERS": '{node-2 = "10.0.0.2:7001"}'}

    section = read(tmp_path, environ=environ, sections={"engine": Engine}).sections["engine"]

    assert section == Engine(peers={"node-2": "10.0.0.2:7001"})


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert read(tmp_path, environ={"MAPEK_LOOP_INTERVAL": ""}).is_default("loop.interval")


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_BSP_SCHEDULE_DELAY": "soon"},
        {"OTEL_BSP_SCHEDULE_DELAY": "-1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
    ],
    ids=lambda environ: "=".join(*environ.items()),
)
def test_a_wrong_otel_value_warns_and_counts_as_unset(environ: dict[str, str], tmp_path: Path) -> None:
    configuration = read(tmp_path, environ=environ)

    ((name, text),) = environ.items()
    (warning,) = configuration.warnings
    assert name in warning
    assert repr(text) in warning
    assert configuration.settings == Settings()


def test_the_address_for_traces_wins_over_the_general_one(tmp_path: Path) -> None:
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318/"}
    traces = {**general, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/in"}

    assert read(tmp_path, environ=general).settings.export.endpoint == "http://a:4318/v1/traces"
    assert read(tmp_path, environ=traces).settings.export.endpoint == "http://b/in"


def test_the_service_name_of_the_resource_counts_unless_it_is_set_itself(tmp_path: Path) -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=my%20shop"}

    assert read(tmp_path, environ=environ).settings.service_name == "my shop"
    assert read(tmp_path, environ={**environ, "OTEL_SERVICE_NAME": "x"}).settings.service_name == "x"


def test_the_section_of_what_is_installed_and_does_not_run_is_left_alone(tmp_path: Path) -> None:
    configuration = read(tmp_path, "[raft]\nanything = 1", {"MAPEK_RAFT_TERM": "3"}, others={"raft"})

    assert configuration.unused == ("raft",)


def test_a_section_called_like_one_of_the_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[loop\]"):
        read(tmp_path, sections={"loop": Engine})


def test_what_a_struct_itself_refuses_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[checked\]: least is 3, above most, 1"):
        read(tmp_path, "[checked]\nleast = 3", sections={"checked": Checked})


@pytest.mark.parametrize("kind", ["missing", "folder", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "not UTF-8":
        path.write_bytes(b"a = '\xff'")

    with pytest.raises(ConfigError) as caught:
        read_sources(file=path, environ={})

    assert str(path) in str(caught.value)


def test_every_setting_has_a_docstring_and_a_description() -> None:
    for leaf in leaves(Settings):
        assert leaf.doc, leaf.path
        assert describe_type(leaf.type), leaf.path


def test_every_variable_names_one_setting() -> None:
    variables = [leaf.variable for leaf in leaves(Settings)]

    assert len(set(variables)) == len(variables)
