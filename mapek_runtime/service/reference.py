"""The reference of all settings, from the structs' docstrings, as `docs/configuration.md` holds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from mapek_runtime.config import Leaf, Settings, describe_type, leaves

from .discovery import DOMAINS, PLUGINS, find_domain, find_plugin, installed

__all__ = ["reference", "show"]

_HEAD = """\
# Configuration

Every setting, with its default. Written by `mapek check --reference`; a test checks that it is current.

A value is taken from the first of these that has it: a flag of `mapek run`, the variable
`MAPEK_<SECTION>_<KEY>`, an `OTEL_*` variable, the TOML file given with `--config`, the default.
`mapek check` prints each value in force with where it came from.

* Unknown keys and values of the wrong type stop the start, with the file or variable, the key, the
  value, and what would be right. A wrong `OTEL_*` value warns and counts as unset, as OpenTelemetry's
  specification asks.
* In a variable, a list is written `a,b` or as in TOML, a table as in TOML.
* Without a configuration file and without `node.count`, five nodes run in one process as a
  demonstration. A demonstration's `loop.interval` is 0.1 unless set.
* Limits and resource are OpenTelemetry's own variables: `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`,
  `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED` and the others.
* `OTEL_TRACES_SAMPLER` may be `always_on`, `always_off`, `traceidratio` or `jaeger_remote`, each also
  with `parentbased_` before it, or what another package provides. With `jaeger_remote`,
  `OTEL_TRACES_SAMPLER_ARG` is `endpoint=http://localhost:5778,pollingIntervalMs=60000,initialSamplingRate=0.001`;
  the server is asked over HTTP. `xray` is not supported and counts as unset, with a warning.
* `OTEL_TRACES_EXPORTER` is a list of `otlp`, `otlp-sdk`, `console` and `memory`, or `none`, in any case;
  what else it names is ignored, with a warning. `OTEL_EXPORTER_OTLP_PROTOCOL` is `http/protobuf` or
  `grpc`; `http/json` warns, and `http/protobuf` is used.
* Headers, certificates, compression and timeout of the export are `OTEL_EXPORTER_OTLP_*`. The timeout is
  in milliseconds, as specified, for `otlp-sdk` too, which by itself would read seconds. A collector in
  `export.copies` is not sent these headers; it has its own.
"""


def reference(package: str) -> str:
    """Markdown for the runtime's settings and the sections of what `package` brings along."""
    parts = [_HEAD]
    parts += _sections(Settings, leaves(Settings))
    for group, find in ((DOMAINS, find_domain), (PLUGINS, find_plugin)):
        for name, entry in sorted(installed(group).items()):
            if entry.dist is None or entry.dist.name != package:
                continue
            owner: Any = find(name)
            if owner.settings is not None:
                parts += _sections(owner.settings, leaves(owner.settings, owner.name), owner.name)
    return "\n".join(parts)


def show(value: Any) -> str:
    """A value as TOML writes it; what is unset is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(show(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {show(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sections(struct: type[Any], found: Iterable[Leaf], prefix: str = "") -> Iterator[str]:
    """One section for the struct and one for each struct inside it."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in found:
        groups.setdefault(leaf.path.rpartition(".")[0], []).append(leaf)
    for name, members in groups.items():
        yield _section(name, _struct_at(struct, name.removeprefix(prefix).removeprefix(".")), members)


def _struct_at(kind: type[Any], path: str) -> type[Any]:
    for step in path.split(".") if path else ():
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == step)
    return kind


def _section(name: str, struct: type[Any], found: list[Leaf]) -> str:
    doc = " ".join((struct.__doc__ or "").split())
    lines = [f"## [{name}]" if name else "## Without a section", "", doc, ""]
    lines += ["| key | value | default | variable | what |", "|---|---|---|---|---|"]
    for leaf in found:
        default = show(leaf.default)
        cells = (
            f"`{leaf.path.rpartition('.')[2]}`",
            describe_type(leaf.type),
            f"`{default}`" if default else "unset",
            f"`{leaf.variable}`",
            leaf.doc,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
