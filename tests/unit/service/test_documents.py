"""Generated documents are what the program writes today."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapek_runtime.service.catalogue import catalogue
from mapek_runtime.service.cli import app

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("path", "command"),
    [("domains/README.md", "spans --markdown"), ("docs/configuration.md", "check --reference")],
)
def test_the_document_is_current(path: str, command: str) -> None:
    written = CliRunner().invoke(app, command.split())

    assert written.exit_code == 0, written.output
    assert (ROOT / path).read_text("utf-8") == written.stdout, f"run: mapek {command} > {path}"


def test_the_catalogue_has_the_cycle_with_its_types() -> None:
    entries = {entry.name: entry for entry in catalogue()}

    cycle = {attribute.key: attribute.type for attribute in entries["mape_k.cycle"].attributes}
    assert cycle["anomalies_detected"] == "int"
    assert cycle["success"] == "bool"
    assert cycle["duration_ms"] == "float"
    assert all(entry.doc for entry in entries.values())
