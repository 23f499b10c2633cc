"""Finding domains and plugins: by entry point, and by MODULE:NAME."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

import msgspec

from mapek_runtime.errors import PluginConflict, PluginContractError, PluginError, PluginNotFound
from mapek_runtime.loop import Domain, Registry

__all__ = ["DOMAINS", "PLUGINS", "PluginSource", "find_domain", "find_plugin", "installed", "load"]

DOMAINS = "mapek.domains"
PLUGINS = "mapek.plugins"

_WHERE = {DOMAINS: "domain", PLUGINS: "plugin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSource:
    """Something plugins can be made of, and the section of the configuration that it reads."""

    name: str
    settings: type[msgspec.Struct] | None
    make: Callable[[msgspec.Struct | None], object]
    """Make one for a node; it is given the section where `settings` is not None."""


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; raises `PluginConflict` when two packages claim one name."""
    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=group):
        other = found.get(each.name)
        # One package may be found twice, as a checkout and as an installed copy.
        if other is not None and other.value != each.value:
            raise PluginConflict(
                f"two installed packages have a {_WHERE.get(group, group)} named {each.name!r}: "
                f"{_package(other)} ({other.value}) and {_package(each)} ({each.value}); uninstall one, "
                "or name the one you mean as MODULE:NAME"
            )
        found[each.name] = each
    return found


def find_domain(name: str) -> Domain:
    """The domain of that name, or at MODULE:NAME; raises a `PluginError` that says what is wrong."""
    found = _find(DOMAINS, name)
    if isinstance(found, type):
        found = _call(f"domain {name!r}", found)
    wrong = [
        f"{attribute} is {getattr(found, attribute, None)!r}"
        for attribute, right in (
            ("name", lambda v: isinstance(v, str) and v),
            ("settings", lambda v: isinstance(v, type) and issubclass(v, msgspec.Struct)),
            ("open", callable),
        )
        if not cast("Callable[[Any], object]", right)(getattr(found, attribute, None))
    ]
    if wrong:
        raise PluginContractError(
            f"domain {name!r}: {'; '.join(wrong)}; a domain has `name: str`, "
            "`settings: type[msgspec.Struct]` and `open(self, settings, context)`, an async context manager"
        )
    return cast("Domain", found)


def find_plugin(name: str) -> PluginSource:
    """The plugin of that name, or at MODULE:NAME; raises a `PluginError` that says what is wrong.

    A class is made anew for each node; an instance or decorated function serves all of them. A
    class that declares `settings`, a struct, is given its section: `[name]`, by its attribute `name`.
    """
    found = _find(PLUGINS, name)
    if not isinstance(found, type):
        if inspect.isfunction(found):
            raise PluginContractError(
                f"plugin {name!r} is a plain function; decorate it with one of mapek_runtime's monitor, "
                'analyze, plan, execute("action") or learn'
            )
        called = str(getattr(found, "name", "") or type(found).__name__)
        try:
            Registry([found])
        except PluginContractError as error:
            raise PluginContractError(f"{name}: {error}") from None
        return PluginSource(name=called, settings=None, make=lambda _section: found)
    made: type = found
    called = getattr(made, "name", "")
    # `name` may be a property, which only an instance can answer.
    called = called if isinstance(called, str) and called else made.__name__
    settings = getattr(made, "settings", None)
    if settings is not None and not (isinstance(settings, type) and issubclass(settings, msgspec.Struct)):
        raise PluginContractError(
            f"plugin {name!r}: settings is {settings!r}; it must be a msgspec.Struct class, or be left out"
        )

    def make(section: msgspec.Struct | None) -> object:
        return _call(f"plugin {name!r}", made, *(() if settings is None else (section,)))

    return PluginSource(name=called, settings=settings, make=make)


def load(entry: EntryPoint, what: str) -> Any:
    """What an entry point names; raises `PluginError` with the cause."""
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"{what} {entry.name!r} of {_package(entry)} {_failed(entry.value, error)}"
        ) from error


def _find(group: str, name: str) -> Any:
    what = _WHERE[group]
    if ":" in name:
        return _import(what, name)
    known = installed(group)
    entry = known.get(name)
    if entry is None:
        raise PluginNotFound(
            f"there is no {what} {name!r}; {_nearest(name, known)}one's own is named as MODULE:NAME"
        )
    return load(entry, what)


def _import(what: str, name: str) -> Any:
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise PluginNotFound(f"{what} {name!r} is not MODULE:NAME, such as 'my_plugins:Thermometer'")
    # As `python -m` does: what lies in the current folder can be named without being installed.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise PluginNotFound(
                f"{what} {name!r}: there is no module {error.name!r}; it is sought in {here} and among the "
                "installed packages"
            ) from None
        raise PluginError(f"{what} {name!r} {_failed(module_name, error)}") from error
    except Exception as error:
        raise PluginError(f"{what} {name!r} {_failed(module_name, error)}") from error
    for step in path.split("."):
        try:
            found = getattr(found, step)
        except AttributeError:
            names = [each for each in dir(found) if not each.startswith("_")]
            raise PluginNotFound(
                f"{what} {name!r}: {module_name} has no {step!r}; {_nearest(step, names).rstrip('; ')}"
            ) from None
    return found


def _call(what: str, made: type, *arguments: object) -> object:
    try:
        return made(*arguments)
    except TypeError as error:
        given = "its settings" if arguments else "no arguments"
        raise PluginContractError(
            f"{what}: {made.__qualname__} cannot be made with {given}: {error}"
        ) from error
    except Exception as error:
        raise PluginError(f"{what}: {made.__qualname__}() failed: {type(error).__name__}: {error}") from error


def _failed(module: str, error: Exception) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})" if place is not None else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({error.filename}:{error.lineno})"
    return f"cannot be imported from {module}: {type(error).__name__}: {error}{where}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    if near:
        return f"did you mean {near[0]!r}? "
    return f"there are {', '.join(sorted(known)) or 'none'}; "


def _package(entry: EntryPoint) -> str:
    return str(entry.dist.name) if entry.dist is not None else "an unknown package"
