"""The lab's plan, settings and register, without touching the system."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapek_domains.mesh.lab import SIX_NODES, BabelSettings, Daemon, registry, rights
from mapek_domains.mesh.lab.commands import app
from mapek_domains.mesh.lab.registry import Claim, entries
from mapek_runtime.errors import ConfigError, EngineUnavailable


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "labs")
    return tmp_path / "labs"


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rights, "_SBIN", ())


def test_the_lab_has_three_ways_of_three_hops_between_its_far_corners() -> None:
    def ways(path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if path[-1] == "n6":
            return [path]
        steps = (plan.peer(path[-1]) for plan in SIX_NODES.of(path[-1]))
        return [way for step in steps if step not in path for way in ways((*path, step))]

    shortest = [way for way in ways(("n1",)) if len(way) == 4]

    assert len(SIX_NODES.links) == 7
    assert len(shortest) == 3
    assert sum("n2" in way for way in shortest) == 2


def test_both_ends_of_a_link_are_in_one_subnet_of_four_addresses() -> None:
    for plan in SIX_NODES.links:
        assert plan.address(plan.a) == f"10.1.{plan.number}.1"
        assert plan.address(plan.b) == f"10.1.{plan.number}.2"
        assert plan.interface(plan.a) == f"to-{plan.b}"


def test_a_prefix_leads_back_to_its_node() -> None:
    for node in SIX_NODES.nodes:
        assert SIX_NODES.node_of(f"{SIX_NODES.identity(node)}/32") == node


@pytest.mark.parametrize(
    "prefix", ["10.255.0.7/32", "10.255.0.0/32", "10.255.0.1/24", "fd00::1/128", "10.255.0.²/32"]
)
def test_another_prefix_is_no_node(prefix: str) -> None:
    assert SIX_NODES.node_of(prefix) is None


def test_an_unknown_link_is_refused_with_the_links_there_are() -> None:
    with pytest.raises(ValueError, match="no link 'n1~n6'; there are n1~n2, "):
        SIX_NODES.link("n1~n6")


@pytest.mark.parametrize(
    "bad", [{"hello": 0.0}, {"update": -1.0}, {"hello": float("nan")}, {"smoothing": -1}]
)
def test_a_setting_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must lie in"):
        BabelSettings(**bad)  # type: ignore[arg-type]


def test_every_file_of_a_daemon_is_its_own() -> None:
    folder = Path("/somewhere")
    line = Daemon("ns", folder, "n1", ("to-n2",), BabelSettings()).command_line()

    files = [Path(line[line.index(flag) + 1]) for flag in ("-I", "-S", "-L", "-G")]
    assert len(set(files)) == 4
    assert all(file.parent == folder for file in files)
    assert line[line.index("-c") + 1] == "/dev/null"
    # Or every /30 would be announced as well.
    assert line[-2] == "redistribute local deny"
    assert line[-1] == "to-n2"


def test_a_folder_whose_sockets_could_not_be_bound_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose a shorter state folder"):
        Daemon("ns", Path("/" + "x" * 120), "n1", (), BabelSettings())


def test_a_pid_file_that_names_another_process_is_not_believed(tmp_path: Path) -> None:
    daemon = Daemon("ns", tmp_path, "n1", (), BabelSettings())
    (tmp_path / "n1.pid").write_text("1")

    assert daemon.pid() is None


@pytest.mark.usefixtures("register")
def test_a_lab_that_is_held_cannot_be_taken() -> None:
    claim = Claim.new(("n1",), Path("/somewhere"), remove_folder=False)

    assert list(entries()) == [claim.entry.token]
    assert Claim.take(claim.entry.token) is None
    claim.release()


@pytest.mark.usefixtures("register")
def test_a_lab_that_nobody_holds_can_be_taken() -> None:
    claim = Claim.new(("n1", "n2"), Path("/somewhere"), remove_folder=True)
    claim.keep()
    claim.release()

    again = Claim.take(claim.entry.token)

    assert again is not None
    assert again.entry == claim.entry
    assert again.entry.kept
    again.forget()
    assert list(entries()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"token": "abc"}', b'{"token": "000000", "nodes": ["../x"], "folder": "/"}'],
    ids=["empty", "torn", "short", "hostile"],
)
def test_an_entry_that_cannot_be_read_is_left_alone(register: Path, content: bytes) -> None:
    register.mkdir()
    (register / "000000").write_bytes(content)

    assert Claim.take("000000") is None
    assert (register / "000000").exists()


@pytest.mark.usefixtures("nothing_installed")
def test_missing_programs_are_named_with_their_packages_and_the_default() -> None:
    with pytest.raises(
        EngineUnavailable,
        match=r"babeld, ip, nft, ping; apt-get install babeld iproute2 nftables iputils-ping",
    ) as refused:
        rights.require()

    assert "UDP mesh" in str(refused.value)


@pytest.mark.usefixtures("nothing_installed")
def test_up_without_its_programs_ends_with_2_and_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["up", "--state", str(tmp_path / "s")])

    assert result.exit_code == 2
    assert "not installed: babeld" in result.output


def test_status_without_a_lab_ends_with_2_and_says_how_to_get_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--state", str(tmp_path / "none")])

    assert result.exit_code == 2
    assert "`mapek lab up` builds one" in result.output


def test_a_state_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"token": 1}')

    result = CliRunner().invoke(app, ["status", "--state", str(tmp_path)])

    assert result.exit_code == 2
    assert "lab.json" in result.output
    assert "$.token" in result.output
