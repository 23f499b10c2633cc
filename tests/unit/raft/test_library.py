"""What is taken from the inside of PySyncObj is there: look here first when its version changes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from pysyncobj import syncobj
from pysyncobj.journal import Journal
from pysyncobj.serializer import Serializer

from mapek_domains.raft import embedded
from mapek_domains.raft.embedded.journal import Journal as OurJournal
from mapek_domains.raft.embedded.replica import Replica
from mapek_domains.raft.embedded.snapshots import Snapshots

FOLDER = Path(embedded.__file__).parent
SOURCE = inspect.getsource(syncobj.SyncObj)


def private_names() -> set[str]:
    """Every name of the library's own private ones that our files use."""
    names = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = (
                node.attr
                if isinstance(node, ast.Attribute)
                else node.name
                if isinstance(node, ast.FunctionDef)
                else ""
            )
            if name.startswith("_SyncObj__"):
                names.add(name.removeprefix("_SyncObj"))
    return names


@pytest.mark.parametrize("name", sorted(private_names()))
def test_a_private_name_that_is_used_is_one_of_the_librarys(name: str) -> None:
    assert f"self.{name}" in SOURCE or f"def {name}(" in SOURCE


@pytest.mark.parametrize(
    "name", ["_SyncObj__sendNextNodeIdx", "_SyncObj__setCurrentTerm", "_SyncObj__doApplyCommand"]
)
def test_what_is_overridden_takes_as_many_arguments_as_before(name: str) -> None:
    ours = inspect.signature(getattr(Replica, name)).parameters
    theirs = inspect.signature(getattr(syncobj.SyncObj, name)).parameters

    assert len(ours) == len(theirs)
    assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(OurJournal, Journal), (Snapshots, Serializer)],
    ids=["journal", "snapshots"],
)
def test_what_stands_in_the_place_of_a_part_has_all_that_the_library_calls(ours: type, theirs: type) -> None:
    called = [
        name
        for name, member in vars(theirs).items()
        if callable(member) and not name.startswith(f"_{theirs.__name__}__") and f".{name}(" in SOURCE
    ]

    assert called
    assert [name for name in called if not hasattr(ours, name)] == []
