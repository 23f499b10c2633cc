"""The catalogue of declared spans: what the packages that are installed here can emit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapek_runtime.trace import SpanGroup

from .discovery import installed, load

__all__ = ["SPANS", "Attribute", "SpanEntry", "as_markdown", "catalogue"]

SPANS = "mapek.spans"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a span."""

    key: str
    type: str


@dataclass(frozen=True, slots=True)
class SpanEntry:
    """One declared span."""

    name: str
    declared_by: str
    attributes: tuple[Attribute, ...]
    doc: str


def catalogue(package: str | None = None) -> Sequence[SpanEntry]:
    """Every span of the entry points `mapek.spans`, by name; only those of one package when named.

    Raises `PluginError` for a module that cannot be imported.
    """
    entries: dict[str, SpanEntry] = {}
    for name, point in sorted(installed(SPANS).items()):
        if package is not None and (point.dist is None or point.dist.name != package):
            continue
        module = load(point, "span group")
        for value in vars(module).values():
            if isinstance(value, SpanGroup):
                for method, spec in value.specs.items():
                    entries[spec.name] = SpanEntry(
                        spec.name, f"{name}.{method}", _attributes(spec), " ".join(spec.doc.split())
                    )
    return [entries[name] for name in sorted(entries)]


def as_markdown(entries: Sequence[SpanEntry]) -> str:
    """The catalogue as `domains/README.md` holds it."""
    lines = [
        "# Span catalogue",
        "",
        "Every span that the runtime and its domains open by name. Written by `mapek spans --markdown`; a",
        "test checks that it is current.",
        "",
        "Names are `component.operation`, the kind is INTERNAL. The signature of each declaration is its",
        "schema: attributes keep their type, and a value that is only known at the end is set before the",
        "span ends.",
    ]
    component = ""
    for entry in entries:
        group = entry.name.partition(".")[0]
        if group != component:
            component = group
            lines += [
                "",
                f"## {group}",
                "",
                "| span | declared by | attributes | when |",
                "|---|---|---|---|",
            ]
        attributes = ", ".join(f"`{each.key}` {each.type}" for each in entry.attributes)
        doc = entry.doc.replace("|", "\\|")
        lines.append(f"| `{entry.name}` | `{entry.declared_by}` | {attributes} | {doc} |")
    return "\n".join(lines) + "\n"


def _attributes(spec: Any) -> tuple[Attribute, ...]:
    found = {key: _type_name(spec.types[parameter]) for parameter, key in spec.keys.items()}
    constants: Mapping[str, Any] = spec.constants
    found |= {key: f"= {value!r}" for key, value in constants.items()}
    found |= dict.fromkeys(spec.derived, "derived")
    if spec.elapsed is not None:
        found[spec.elapsed] = "float"
    return tuple(Attribute(key, kind) for key, kind in found.items())


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
