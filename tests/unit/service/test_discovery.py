"""Finding domains and plugins, and what is said when one cannot be used."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mapek_runtime.errors import PluginConflict, PluginContractError, PluginError, PluginNotFound
from mapek_runtime.service import discovery
from mapek_runtime.service.builtin.webhook import WebhookSettings
from mapek_runtime.service.discovery import find_domain, find_plugin, installed

MODULE = """
import msgspec
from mapek_runtime import monitor

class Plain:
    async def monitor(self, cycle):
        return []

class Settled:
    name = "settled"
    class settings(msgspec.Struct):
        limit: int = 3
    def __init__(self, settings):
        self.limit = settings.limit
    async def monitor(self, cycle):
        return []

class Greedy:
    def __init__(self, url):
        pass
    async def monitor(self, cycle):
        return []

class Failing:
    def __init__(self):
        raise RuntimeError("no luck")

class BadSettings:
    settings = 3

class Empty:
    pass

class NoDomain:
    name = ""
    settings = int

instance = Plain()
empty = Empty()

@monitor
async def decorated(cycle):
    return []

async def plain_function(cycle):
    return []
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins_here.py").write_text(MODULE)
    (tmp_path / "broken_here.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "raising_here.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "wrong_here.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_class_is_made_anew_for_each_node() -> None:
    source = find_plugin("plugins_here:Plain")

    assert source.name == "Plain"
    assert source.make(None) is not source.make(None)


def test_an_instance_and_a_decorated_function_serve_every_node() -> None:
    for name in ("plugins_here:instance", "plugins_here:decorated"):
        source = find_plugin(name)

        assert source.make(None) is source.make(None)


def test_a_class_with_settings_is_given_its_section() -> None:
    source = find_plugin("plugins_here:Settled")

    assert source.name == "settled"
    assert source.settings is not None
    assert getattr(source.make(source.settings(limit=5)), "limit") == 5  # noqa: B009 - it is untyped


def test_an_installed_plugin_is_found_by_its_name() -> None:
    assert find_plugin("webhook").settings is WebhookSettings


def test_an_installed_domain_is_found_by_its_name() -> None:
    assert find_domain("mesh").name == "mesh"


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("no_such_module:X", PluginNotFound, "there is no module 'no_such_module'"),
        ("plugins_here:Plane", PluginNotFound, "did you mean 'Plain'?"),
        ("plugins_here:", PluginNotFound, "is not MODULE:NAME"),
        ("webhok", PluginNotFound, "did you mean 'webhook'?"),
        ("broken_here:X", PluginError, "No module named 'no_such_module_anywhere'"),
        ("raising_here:X", PluginError, "raising_here.py:2"),
        ("wrong_here:X", PluginError, "wrong_here.py:1"),
        ("plugins_here:plain_function", PluginContractError, "plain function; decorate it"),
        ("plugins_here:BadSettings", PluginContractError, "settings is 3"),
        ("plugins_here:empty", PluginContractError, "has no phase method"),
    ],
)
def test_what_cannot_be_found_or_used_is_said_clearly(name: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        find_plugin(name)

    assert said in str(caught.value)
    assert name.partition(":")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("Greedy", "cannot be made with no arguments"), ("Failing", "RuntimeError: no luck")]
)
def test_a_class_that_cannot_be_made_says_why(name: str, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        find_plugin(f"plugins_here:{name}").make(None)


def test_a_domain_without_its_contract_is_refused() -> None:
    with pytest.raises(PluginContractError) as caught:
        find_domain("plugins_here:NoDomain")

    for words in (
        "name is ''",
        "settings is <class 'int'>",
        "open is None",
        "`open(self, settings, context)`",
    ):
        assert words in str(caught.value)


def test_two_packages_with_one_name_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mesh", value, "mapek.domains") for value in ("a:domain", "b:domain")]
    monkeypatch.setattr(discovery, "entry_points", lambda group: points)

    with pytest.raises(PluginConflict, match=r"named 'mesh'.*a:domain.*b:domain"):
        installed("mapek.domains")
