"""Where values come from: a TOML file, `OTEL_*`, `MAPEK_*` and flags.

Nothing is judged here but what can be judged without knowing the sections: that the file can be
read, and what an `OTEL_*` variable means. A wrong `OTEL_*` value is a warning and counts as unset,
as OpenTelemetry's specification asks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mapek_runtime.errors import ConfigError

from .exporting import read_export

__all__ = ["Sources", "Value", "read_sources"]


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was written, and where; `text` says that it is still text to be read by its type."""

    raw: Any
    origin: str
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Every layer as it was read, the weakest first."""

    file: Path | None = None
    tree: Mapping[str, Any] = field(default_factory=dict)
    """The file, as TOML gives it."""
    otel: Mapping[str, Value] = field(default_factory=dict)
    """By dotted path."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """`MAPEK_*`, by name."""
    flags: Mapping[str, Value] = field(default_factory=dict)
    """By dotted path."""
    warnings: tuple[str, ...] = ()


def read_sources(
    *,
    file: Path | None = None,
    environ: Mapping[str, str],
    flags: Mapping[str, tuple[Any, str]] | None = None,
) -> Sources:
    """Read every layer; raises `ConfigError` for a file that cannot be read.

    `flags`: dotted path → (value, the flag as it was written). A value of None is a flag not given.
    """
    tree = _read_file(file) if file is not None else {}
    otel, warnings = _read_otel(environ, tree)
    return Sources(
        file=file,
        tree=tree,
        otel=otel,
        # Empty counts as unset, as it does for OTEL_*.
        variables={name: text for name, text in environ.items() if name.startswith("MAPEK_") and text},
        flags={
            path: Value(value, flag) for path, (value, flag) in (flags or {}).items() if value is not None
        },
        warnings=tuple(warnings),
    )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"--config {str(path)!r}: there is no such file; give the path of a TOML file"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"--config {str(path)!r} is a folder; give the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(
            f"--config {str(path)!r} cannot be read: {error.strerror or error}; "
            "it must be a TOML file that this user may read"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"--config {str(path)!r} is not UTF-8 (byte {error.start}); TOML files are UTF-8 text"
        ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: not TOML: {error}; a setting looks like `interval = 0.5` under its [section]"
        ) from None


# OTEL_* → settings. Limits and resource attributes are read by the SDK itself; of the sampler it is only
# said here that OTEL_TRACES_SAMPLER takes the place of what the file says.


def _text(value: str) -> str:
    return value


def _whole(value: str) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(value)
    return number


def _seconds(value: str) -> float:
    milliseconds = float(value)
    if not 0 < milliseconds < float("inf"):
        raise ValueError(value)
    return milliseconds / 1000


def _otel(_value: str) -> str:
    return "otel"


def _metric_exporters(value: str) -> list[str]:
    words = [word.strip().lower() for word in value.split(",") if word.strip()]
    if words == ["none"]:
        return []
    if not words or not {"otlp", "prometheus"}.issuperset(words):
        raise ValueError(value)
    return words


_OTEL: tuple[tuple[str, str, Callable[[str], Any], str], ...] = (
    ("service_name", "OTEL_SERVICE_NAME", _text, "text"),
    ("sampler.type", "OTEL_TRACES_SAMPLER", _otel, "the name of a sampler"),
    ("export.queue_size", "OTEL_BSP_MAX_QUEUE_SIZE", _whole, "a whole number from 1"),
    ("export.batch_size", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _whole, "a whole number from 1"),
    ("export.delay", "OTEL_BSP_SCHEDULE_DELAY", _seconds, "milliseconds above 0"),
    ("export.timeout", "OTEL_BSP_EXPORT_TIMEOUT", _seconds, "milliseconds above 0"),
    ("metrics.exporters", "OTEL_METRICS_EXPORTER", _metric_exporters, "otlp, prometheus, both, or none"),
    ("metrics.interval", "OTEL_METRIC_EXPORT_INTERVAL", _seconds, "milliseconds above 0"),
)
"""Path, variable, reading, what would be right."""


def _read_otel(environ: Mapping[str, str], tree: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    values: dict[str, Value] = {}
    warnings: list[str] = []
    for path, name, read, right in _OTEL:
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            values[path] = Value(read(text), name)
        except ValueError:
            warnings.append(f"{name} is {text!r}; it must be {right}; it is ignored")
    exported, said = read_export(environ, tree)
    values |= {path: Value(raw, name) for path, (raw, name) in exported.items()}
    warnings += said
    if "service_name" not in values:
        for key, value in _resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")):
            if key == "service.name" and value:
                values["service_name"] = Value(value, "OTEL_RESOURCE_ATTRIBUTES")
    return values, warnings


def _resource_attributes(text: str) -> Iterator[tuple[str, str]]:
    for entry in text.split(","):
        key, _, value = entry.partition("=")
        yield key.strip(), unquote(value.strip())
