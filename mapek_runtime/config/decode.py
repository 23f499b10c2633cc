"""From layers to settings: unknown keys refused, values read by their types, each with its origin.

A wrong value stops the start with the file or variable, the key, the value and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from mapek_runtime.errors import ConfigError

from .schema import Leaf, describe_type, is_list, is_struct, leaves, takes_text, takes_words, variable_of
from .settings import Settings
from .sources import Sources, Value

__all__ = ["Configuration", "decode"]

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that is set, and where each value came from."""

    settings: Settings
    sections: Mapping[str, msgspec.Struct] = field(default_factory=dict)
    """The section of each domain and plugin that has one, by its name."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted path → where the value came from; a path that is not here has its default."""
    unused: tuple[str, ...] = ()
    """Sections that were given for domains and plugins that are installed and do not run."""
    warnings: tuple[str, ...] = ()

    def origin(self, path: str) -> str:
        """Where the value of `path` came from: a file, a variable, a flag, or `default`."""
        return self.origins.get(path, "default")

    def is_default(self, path: str) -> bool:
        """Whether nobody set `path`."""
        return path not in self.origins


def decode(
    sources: Sources,
    sections: Mapping[str, type[msgspec.Struct]] | None = None,
    *,
    others: Collection[str] = (),
    presets: Mapping[str, Value] | None = None,
    strict: bool = True,
) -> Configuration:
    """Read all layers into settings; raises `ConfigError` for what is unknown or wrong.

    `sections` are the structs of what runs, `others` the names of what is installed and does not:
    their sections are left alone. `presets` are weaker than every source, and stronger than the
    defaults. Without `strict` every section that is not the runtime's own is
    left alone, which is how the names of what is to run are found at first.
    """
    sections = sections or {}
    for name in sections:
        if name in Settings.__struct_fields__:
            raise ConfigError(
                f"a domain or plugin has the section [{name}], which is the runtime's own; rename it"
            )
    known: dict[str, Leaf] = {leaf.path: leaf for leaf in leaves(Settings)}
    for name, struct in sections.items():
        known |= {leaf.path: leaf for leaf in leaves(struct, name)}
    skip = set(others) - set(sections)
    unused: list[str] = []
    values: dict[str, Value] = dict(presets or {})

    for path, value in _file_values(sources, known, sections):
        top = path.partition(".")[0]
        if path in known:
            values[path] = value
        elif not strict and top not in Settings.__struct_fields__:
            continue
        elif top in skip:
            unused.append(top)
        else:
            raise _unknown(value.origin, path, known, skip)
    values |= {path: value for path, value in sources.otel.items() if path in known}
    by_variable = {variable_of(path): path for path in known}
    for name, text in sources.variables.items():
        if name in by_variable:
            values[by_variable[name]] = Value(text, name, text=True)
        elif strict and not any(name.startswith(variable_of(top) + "_") for top in skip):
            raise _unknown_variable(name, text, by_variable)
    values |= sources.flags

    converted = {path: _convert(known[path], value) for path, value in values.items()}
    origins = {path: value.origin for path, value in values.items()}
    return Configuration(
        settings=_build(Settings, "", converted, sources, origins),
        sections={
            name: _build(struct, name, converted, sources, origins) for name, struct in sections.items()
        },
        origins=origins,
        unused=tuple(dict.fromkeys(unused)),
        warnings=sources.warnings,
    )


def _file_values(
    sources: Sources, known: Mapping[str, Leaf], sections: Mapping[str, type[msgspec.Struct]]
) -> Iterator[tuple[str, Value]]:
    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
        for key, raw in tree.items():
            path = f"{prefix}.{key}" if prefix else key
            if isinstance(raw, dict) and path not in known:
                if not raw and not _is_section(path, sections):
                    yield path, Value(raw, str(sources.file))
                yield from walk(raw, path)
            else:
                yield path, Value(raw, str(sources.file))

    return walk(sources.tree, "")


def _is_section(path: str, sections: Mapping[str, type[msgspec.Struct]]) -> bool:
    kind: Any = Settings
    steps = path.split(".")
    if steps[0] in sections:
        kind = sections[steps.pop(0)]
    for step in steps:
        fields = {each.name: each.type for each in msgspec.structs.fields(kind)}
        kind = fields.get(step)
        if not is_struct(kind):
            return False
    return True


def _unknown(origin: str, path: str, known: Iterable[str], others: Collection[str]) -> ConfigError:
    section, _, key = path.rpartition(".")
    tops = {each.partition(".")[0] for each in known} | set(others)
    top = path.partition(".")[0]
    if section and top not in tops:
        near = difflib.get_close_matches(top, sorted(tops), 1)
        hint = f"did you mean [{near[0]}]?" if near else f"the sections are {_listed(tops - _plain(known))}"
        return ConfigError(
            f"{origin}: [{section}] {key}: there is no section [{top}]; {hint} "
            "(the section of a domain or plugin counts only while it runs)"
        )
    paths = {each.rpartition(".")[0] for each in known} - {""}
    if section and section not in paths:
        near = difflib.get_close_matches(section, sorted(paths), 1)
        hint = f"did you mean [{near[0]}]?" if near else f"the sections are {_listed(paths)}"
        return ConfigError(f"{origin}: there is no section [{section}]; {hint}")
    siblings = {each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == section}
    if not section:
        siblings |= tops
    near = difflib.get_close_matches(key, sorted(siblings), 1)
    if not near:
        # It may stand in the wrong section.
        near = [each for each in known if each.rpartition(".")[2] == key][:1]
    hint = (
        f"did you mean {near[0]!r}?" if near else f"it has {_listed(e.rpartition('.')[2] for e in siblings)}"
    )
    where = f"[{section}] {key}" if section else key
    return ConfigError(f"{origin}: {where}: there is no such setting; {hint}")


def _unknown_variable(name: str, text: str, known: Collection[str]) -> ConfigError:
    near = difflib.get_close_matches(name, sorted(known), 1)
    hint = f"did you mean {near[0]}?" if near else "`mapek check` lists every setting"
    return ConfigError(f"{name}={text!r}: there is no such setting; {hint}")


def _plain(known: Iterable[str]) -> set[str]:
    return {path for path in known if "." not in path}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _convert(leaf: Leaf, value: Value) -> Any:
    try:
        if value.text:
            return _from_text(leaf, str(value.raw))
        return msgspec.convert(value.raw, leaf.type)
    except (msgspec.ValidationError, ValueError) as error:
        section, _, key = leaf.path.rpartition(".")
        if value.origin == leaf.variable or value.origin.startswith("-"):
            where = value.origin
        else:
            where = f"{value.origin}: " + (f"[{section}] {key}" if section else key)
        place = str(error).partition(" - at ")[2].strip("`$")
        shown = _shown(leaf, value)
        raise ConfigError(
            f"{where} is {shown}; it must be {describe_type(leaf.type)}"
            + (f" (wrong at {place})" if place else "")
        ) from None


def _shown(leaf: Leaf, value: Value) -> str:
    """The value as it was written, without what is secret in it."""
    if leaf.secret:
        return "a secret"
    words = _words(leaf, str(value.raw)) if value.text else None
    if words is None and leaf.discreet and value.text and str(value.raw).lstrip().startswith(("[", "{")):
        return "a list that is not shown"
    shown = leaf.shown(value.raw if words is None else words)
    return repr(shown if words is None else ",".join(shown))


def _words(leaf: Leaf, text: str) -> list[str] | None:
    """The parts of `a,b`, where that may stand for a list."""
    if text.lstrip().startswith("[") or not takes_words(leaf.type):
        return None
    words = [part.strip() for part in text.split(",") if part.strip()]
    # One alone may be what the setting takes besides a list.
    return None if len(words) == 1 and not is_list(leaf.type) else words


def _from_text(leaf: Leaf, text: str) -> Any:
    """A variable, read by the type of its setting; what is no scalar is written as in TOML."""
    words = _words(leaf, text)
    if words is not None:
        return msgspec.convert(words, leaf.type, strict=False)
    if not takes_text(leaf.type) and text.lstrip().startswith(("[", "{")):
        try:
            return msgspec.convert(tomllib.loads(f"value = {text}")["value"], leaf.type)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(str(error)) from None
    return msgspec.convert(text, leaf.type, strict=False)


def _build(
    struct: type[S],
    prefix: str,
    values: Mapping[str, Any],
    sources: Sources,
    origins: Mapping[str, str],
) -> S:
    chosen: dict[str, Any] = {}
    for each in msgspec.structs.fields(struct):
        path = f"{prefix}.{each.name}" if prefix else each.name
        if is_struct(each.type):
            chosen[each.name] = _build(each.type, path, values, sources, origins)
        elif path in values:
            chosen[each.name] = values[path]
        elif each.required:
            raise ConfigError(
                f"{sources.file or 'configuration'}: [{prefix}] {each.name} is missing; "
                f"it must be {describe_type(each.type)} (or set {variable_of(path)})"
            )
    try:
        return struct(**chosen)
    except (ValueError, TypeError) as error:
        paths = (f"{prefix}.{name}" if prefix else name for name in struct.__struct_fields__)
        where = ", ".join(dict.fromkeys(origins[path] for path in paths if path in origins))
        raise ConfigError(f"{where or 'configuration'}: [{prefix}]: {error}") from None
