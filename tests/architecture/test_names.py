"""The names that others build on, and those that each module gives out."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import mapek_runtime

ROOT = Path(__file__).parents[2]
FACADE = {
    "Action",
    "BatchSpanProcessor",
    "Cycle",
    "Evidence",
    "Finding",
    "Insight",
    "Key",
    "Knowledge",
    "NodeId",
    "OTLPGrpcSpanExporter",
    "OTLPSpanExporter",
    "Observation",
    "Outcome",
    "Rejection",
    "Runtime",
    "Settings",
    "SpanGroup",
    "SpooledExporter",
    "TracerProvider",
    "Trigger",
    "analyze",
    "execute",
    "learn",
    "monitor",
    "plan",
    "traced",
    "tracing",
}
TESTING = {
    "AutojumpClock",
    "Node",
    "Recorder",
    "Tree",
    "check_plugin",
    "run_cycle",
    "tree",
    "unix_time_ns",
}


def modules() -> dict[str, Path]:
    """Every module of the two packages, by name."""
    found = {}
    for base, package in ((ROOT, "mapek_runtime"), (ROOT / "domains", "mapek_domains")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if parts[-1] != "__main__":
                found[name] = path
    return found


MODULES = modules()


def test_the_public_names_of_the_facade_are_pinned() -> None:
    assert set(mapek_runtime.__all__) == FACADE


def test_the_public_names_of_the_test_tools_are_pinned() -> None:
    assert set(importlib.import_module("mapek_runtime.testing").__all__) == TESTING


@pytest.mark.parametrize("name", sorted(FACADE))
def test_each_name_of_the_facade_can_be_imported(name: str) -> None:
    assert getattr(mapek_runtime, name) is not None
    assert name in dir(mapek_runtime)


def test_a_name_the_facade_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'mapek_runtime' has no attribute 'Runtimes'"):
        _ = mapek_runtime.Runtimes


@pytest.mark.parametrize("module", MODULES)
def test_a_module_gives_out_what_it_says(module: str) -> None:
    found = importlib.import_module(module)

    # A module without `__all__` gives out nothing: an empty package, or one loaded for its effect.
    names = getattr(found, "__all__", [])
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_everything_it_gives_out(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not any(_registers(decorator) for decorator in node.decorator_list)
    }

    names = set(getattr(importlib.import_module(module), "__all__", []))

    assert public - names == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_for(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text("utf-8"))

    assert ast.get_docstring(tree)


def _registers(decorator: ast.expr) -> bool:
    """Whether it hands a function to a program's commands: nobody imports such a function."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr in {"command", "callback"}
