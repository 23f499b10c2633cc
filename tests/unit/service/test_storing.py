"""Whether spans are kept, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapek_runtime.config import Configuration, decode, read_sources
from mapek_runtime.errors import ConfigError
from mapek_runtime.export import MemorySpanExporter, OTLPSpanExporter
from mapek_runtime.export.spool import SpooledExporter
from mapek_runtime.service.exporters import make_exporters
from mapek_runtime.service.storing import open_store, store_path
from mapek_runtime.service.tracing import open_tracing
from mapek_runtime.store import TraceStore


def read(**variables: str) -> Configuration:
    return decode(read_sources(environ=variables))


@pytest.mark.parametrize(
    ("said", "exporter", "by_default", "there"),
    [
        ("", "auto", True, True),
        ("", "auto", False, False),
        ("true", "auto", False, True),
        ("false", "auto", True, False),
        ("", "none", True, False),
        ("true", "none", True, True),
        ("", "console", True, True),
    ],
)
def test_a_service_keeps_spans_and_a_library_when_it_asks(
    said: str, exporter: str, by_default: bool, there: bool, tmp_path: Path
) -> None:
    configuration = read(MAPEK_STORE_ENABLED=said, MAPEK_STATE=str(tmp_path), MAPEK_EXPORT_EXPORTER=exporter)

    path = store_path(configuration, {}, by_default=by_default)

    assert path == (tmp_path / "traces.sqlite" if there else None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MAPEK_STORE_ENABLED": "true", "MAPEK_STATE": "{}/file"}, "is a file"),
        ({"MAPEK_STORE_PATH": "{}/file/traces.sqlite"}, "is a file"),
        ({"MAPEK_STORE_PATH": "{}"}, "it is a folder"),
    ],
    ids=["asked for", "named", "a folder"],
)
def test_a_file_that_was_asked_for_and_cannot_be_had_stops_the_start(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    configuration = read(**{name: text.format(tmp_path) for name, text in variables.items()})

    with pytest.raises(ConfigError) as caught:
        store_path(configuration, {}, by_default=True)

    assert str(caught.value).startswith(next(iter(variables)))
    assert said in str(caught.value)


def test_a_file_that_nobody_asked_for_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    path = store_path(read(MAPEK_STATE=str(tmp_path / "file")), {}, by_default=True)

    assert path is None
    assert "spans are not kept" in caplog.text


async def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "traces.sqlite"
    file.write_bytes(b"a letter to a friend, and nothing that a database would be made of\n" * 20)
    before = file.read_bytes()

    async with open_store(read(MAPEK_STATE=str(tmp_path)), {}, by_default=True) as store:
        assert store is None
    with pytest.raises(ConfigError, match="MAPEK_STORE_ENABLED"):
        async with open_store(
            read(MAPEK_STATE=str(tmp_path), MAPEK_STORE_ENABLED="true"), {}, by_default=True
        ):
            raise AssertionError("it was opened")

    assert "spans are not kept" in caplog.text
    assert file.read_bytes() == before


async def test_with_a_store_auto_means_the_store_alone(tmp_path: Path) -> None:
    configuration = read(MAPEK_STATE=str(tmp_path))
    async with (
        open_store(configuration, {}, by_default=True) as store,
        open_tracing(configuration, instrument=False, store=store, spool=True) as opened,
    ):
        assert isinstance(store, TraceStore)
        assert opened.exporters == (store,)
        opened.provider.get_tracer("test").start_span("kept").end()
        await opened.provider.aforce_flush(5)
        operations = [each.name for each in await store.operations()]

    assert operations == ["kept"]
    assert opened.statistics().exported == 1


@pytest.mark.parametrize(
    ("settings", "stored", "made"),
    [
        ({}, False, [MemorySpanExporter]),
        ({}, True, []),
        ({"MAPEK_EXPORT_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True, [OTLPSpanExporter]),
        ({"MAPEK_EXPORT_EXPORTER": "memory"}, True, [MemorySpanExporter]),
        ({"MAPEK_EXPORT_EXPORTER": "none"}, True, []),
    ],
)
def test_what_stands_beside_the_store_is_what_was_named(
    settings: dict[str, str], stored: bool, made: list[type]
) -> None:
    exporters = make_exporters(read(**settings).settings.export, console=None, stored=stored)  # type: ignore[arg-type]

    assert [type(each) for each in exporters] == made


async def test_a_collector_gets_every_span_as_well_and_only_it_is_spooled(tmp_path: Path) -> None:
    configuration = read(MAPEK_STATE=str(tmp_path), MAPEK_EXPORT_ENDPOINT="http://127.0.0.1:1/v1/traces")
    async with (
        open_store(configuration, {}, by_default=True) as store,
        open_tracing(configuration, instrument=False, store=store, spool=True) as opened,
    ):
        kinds = [type(each) for each in opened.exporters]

    assert kinds == [SpooledExporter, TraceStore]
