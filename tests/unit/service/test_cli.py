"""The command line: check, halt and resume, and command groups that cannot be loaded."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mapek_runtime.service import cli, discovery


@pytest.fixture(autouse=True)
def plain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def mapek(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments)


def test_check_prints_each_value_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mapek.toml"
    file.write_text('[loop]\ninterval = 0.5\n[mesh]\nlisten = "127.0.0.1:0"\n')
    monkeypatch.setenv("MAPEK_LOOP_JITTER", "0.1")

    result = mapek("check", "--config", str(file))

    assert result.exit_code == 0, result.output
    assert f"loop.interval = 0.5    # {file}" in result.stdout
    assert "loop.jitter = 0.1    # MAPEK_LOOP_JITTER" in result.stdout
    assert f'mesh.listen = "127.0.0.1:0"    # {file}' in result.stdout
    assert 'loop.overlap = "skip"    # default' in result.stdout
    assert "nodes: node-1; domains: mesh, raft, crdt, fl; plugins: none" in result.stdout


def test_check_does_not_show_secrets(tmp_path: Path) -> None:
    file = tmp_path / "mapek.toml"
    file.write_text('[webhook]\nurl = "http://x/"\nheaders = {authorization = "hunter2"}\n')

    result = mapek("check", "--config", str(file), "--plugin", "webhook")

    assert result.exit_code == 0, result.output
    assert "webhook.headers = (secret)" in result.stdout
    assert "hunter2" not in result.output


def test_a_plugin_of_the_command_line_joins_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mapek.toml"
    file.write_text('plugins = ["webhook"]\n[webhook]\nurl = "http://x/"\n')

    result = mapek("check", "--config", str(file), "--plugin", "http_probe")

    assert result.exit_code == 0, result.output
    assert f'plugins = ["webhook", "http_probe"]    # {file}, --plugin' in result.stdout


def test_check_names_everything_that_cannot_be_loaded() -> None:
    result = mapek("check", "--domains", "mush", "--plugin", "webhok", "--plugin", "nowhere:X")

    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [word in line for word, line in zip(("'mush'", "'webhok'", "'nowhere:X'"), lines, strict=True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("[loop]\nintervall = 1", "did you mean 'interval'?"), ("[mesh]\nloss = 2", "a number from 0 to 1")],
    ids=["unknown key", "wrong value of a domain"],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_wrong_file_is_one_line_and_exit_2(command: str, text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mapek.toml"
    file.write_text(text)

    result = mapek(command, "--config", str(file))

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"mapek: {file}: ")
    assert said in line


def test_a_plugin_that_lacks_its_setting_says_which(tmp_path: Path) -> None:
    result = mapek("check", "--plugin", "webhook")

    assert result.exit_code == 2
    assert "[webhook] url is missing" in result.stderr


def test_halt_and_resume_agree_on_the_file(tmp_path: Path) -> None:
    halted = mapek("halt", "--reason", "works", "--state", str(tmp_path / "s"))
    checked = mapek("check", "--state", str(tmp_path / "s"))
    resumed = mapek("resume", "--state", str(tmp_path / "s"))
    again = mapek("resume", "--state", str(tmp_path / "s"))

    assert "halted" in halted.stdout
    assert "the loops are halted" in checked.stdout
    assert resumed.stdout == "resumed\n"
    assert again.stdout.startswith("the loops were not halted")


def test_a_command_group_that_cannot_be_loaded_does_not_break_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.entry_points
    broken = EntryPoint("broken", "no_such_module:app", "mapek.commands")

    def points(group: str) -> EntryPoints:
        return EntryPoints([*real(group=group), broken]) if group == "mapek.commands" else real(group=group)

    monkeypatch.setattr(discovery, "entry_points", points)

    shown = mapek("--help")
    called = mapek("broken", "up", "--fast")

    assert shown.exit_code == 0
    assert "Cannot be loaded" in shown.stdout
    assert "lab" in shown.stdout
    assert called.exit_code == 2
    assert "no_such_module" in called.stderr
    assert mapek("halt", "--help").exit_code == 0
