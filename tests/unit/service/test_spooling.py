"""Whether there is a spool, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapek_runtime.config import Configuration, decode, read_sources
from mapek_runtime.errors import ConfigError
from mapek_runtime.export import MemorySpanExporter, OTLPSpanExporter
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.service.spooling import spool_folder, with_spools


def read(**variables: str) -> Configuration:
    return decode(read_sources(environ=variables))


@pytest.mark.parametrize(
    ("said", "by_default", "there"),
    [
        ("", True, True),
        ("", False, False),
        ("true", False, True),
        ("false", True, False),
    ],
    ids=["a service", "a library", "a library that asks", "a service that says no"],
)
def test_a_service_spools_and_a_library_when_it_asks(
    said: str, by_default: bool, there: bool, tmp_path: Path
) -> None:
    configuration = read(MAPEK_SPOOL_ENABLED=said, MAPEK_STATE=str(tmp_path))

    folder = spool_folder(configuration, {}, by_default=by_default)

    assert folder == (tmp_path / "spool" if there else None)
    assert list(tmp_path.iterdir()) == []


def test_it_may_be_elsewhere(tmp_path: Path) -> None:
    configuration = read(MAPEK_SPOOL_DIRECTORY=str(tmp_path / "a" / "b"))

    assert spool_folder(configuration, {}, by_default=True) == tmp_path / "a" / "b"


@pytest.mark.parametrize(
    "variables",
    [{"MAPEK_SPOOL_ENABLED": "true", "MAPEK_STATE": "{}"}, {"MAPEK_SPOOL_DIRECTORY": "{}/spool"}],
    ids=["asked for", "named"],
)
def test_a_folder_that_was_asked_for_and_cannot_be_had_stops_the_start(
    variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    configuration = read(**{name: text.format(tmp_path / "file") for name, text in variables.items()})

    with pytest.raises(ConfigError) as caught:
        spool_folder(configuration, {}, by_default=True)

    assert str(caught.value).startswith(next(iter(variables)))
    assert f"{str(tmp_path / 'file')!r} is a file" in str(caught.value)


def test_a_folder_that_nobody_asked_for_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    folder = spool_folder(read(MAPEK_STATE=str(tmp_path / "file")), {}, by_default=True)

    assert folder is None
    assert "do not wait on disk" in caplog.text


def test_each_exporter_of_bytes_has_a_spool_of_its_own(tmp_path: Path) -> None:
    addresses = ["http://user:hunter2@a:4318/in?key=hunter2", "http://a:4318/i/n", "http://a-4318/in"]
    plain = [*(OTLPSpanExporter(address) for address in addresses), MemorySpanExporter()]
    configuration = read(MAPEK_SPOOL_DIRECTORY=str(tmp_path), MAPEK_SPOOL_RATE="1000")

    exporters = with_spools(plain, configuration, {}, by_default=True)

    assert [type(exporter) for exporter in exporters] == [SpooledExporter] * 3 + [MemorySpanExporter]
    folders = [exporter.spool.directory for exporter in exporters[:3]]
    assert len(set(folders)) == 3
    assert folders[0].parent == tmp_path
    assert folders[0].name.startswith("http-a-4318-in-")
    assert "hunter2" not in str(folders)
    again = with_spools([OTLPSpanExporter(addresses[0])], configuration, {}, by_default=True)
    assert again[0].spool.directory == folders[0]
    assert exporters[0].rate == 1000
    assert list(tmp_path.iterdir()) == []


def test_without_a_spool_nothing_changes() -> None:
    exporter = OTLPSpanExporter()

    assert with_spools([exporter], read(), {}, by_default=False) == (exporter,)


def test_a_folder_that_nobody_needs_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    exporter = MemorySpanExporter()
    configuration = read(MAPEK_SPOOL_DIRECTORY=str(tmp_path / "file"))

    assert with_spools([exporter], configuration, {}, by_default=True) == (exporter,)
