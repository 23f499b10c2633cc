"""The state folder and the halt file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapek_runtime import Knowledge, Runtime
from mapek_runtime.config import Settings
from mapek_runtime.errors import ConfigError
from mapek_runtime.service.state import halt, halt_file, knowledge_file, resume, state_folder


@pytest.mark.parametrize(
    ("setting", "xdg", "folder"),
    [
        ("/a", "/b", "/a"),
        ("", "/b", "/b/mapek"),
        ("", "relative", "{home}/.local/state/mapek"),
        ("", "", "{home}/.local/state/mapek"),
    ],
    ids=["setting", "XDG", "relative XDG counts as unset", "home"],
)
def test_where_state_is_kept(setting: str, xdg: str, folder: str) -> None:
    expected = Path(folder.format(home=Path.home()))

    assert state_folder(Settings(state=setting), {"XDG_STATE_HOME": xdg}) == expected


def test_the_loop_reads_why_it_was_halted(tmp_path: Path) -> None:
    runtime = Runtime(_Watcher(), knowledge=Knowledge(), halt_file=halt_file(tmp_path))
    assert runtime.halted() is None

    halt(tmp_path, "works on the switch")

    assert (runtime.halted() or "").startswith("works on the switch (since ")
    assert resume(tmp_path)
    assert runtime.halted() is None
    assert not resume(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="file/halt cannot be written"):
        halt(tmp_path / "file", "x")


@pytest.mark.parametrize("node", ["../../etc/passwd", "..", ".", "a/b", "node-1", "дом", "a b"])
def test_the_knowledge_of_any_node_stays_in_its_folder(node: str, tmp_path: Path) -> None:
    path = knowledge_file(tmp_path, node)

    assert path.resolve().parent == (tmp_path / "knowledge").resolve()
    assert path.suffix == ".sqlite"


class _Watcher:
    async def monitor(self, cycle: object) -> list[object]:
        return []
