"""What `OTEL_TRACES_EXPORTER` and `OTEL_EXPORTER_OTLP_*` say of where spans go.

A name that is unknown is left out and a value that is wrong counts as unset, each with a line that says
what would be right, as OpenTelemetry's specification asks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from .address import ADDRESS, without_secrets

__all__ = ["read_export"]

EXPORTERS = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
INSECURE = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
FULL_ENDPOINT, BASE_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_PATH = "/v1/traces"

_KNOWN = ("otlp", "otlp-sdk", "console", "memory", "none")
_ABSENT = {
    "zipkin": "Zipkin's exporter is deprecated and none is here; send otlp to a collector that speaks Zipkin",
    "jaeger": "Jaeger takes OTLP; it must be otlp, with OTEL_EXPORTER_OTLP_ENDPOINT",
    "otlp/stdout": "nothing here writes OTLP to standard output; console writes a line a span",
    "logging": "that is the old name of console; it must be console",
    "otlp_proto_http": "it must be otlp-sdk, with OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    "otlp_proto_grpc": "it must be otlp-sdk, with OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
}
"""Names that others know, and what to do here instead."""


def read_export(
    environ: Mapping[str, str], tree: Mapping[str, Any]
) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """By dotted path what the variables say and which says so; and the warnings.

    What an address means depends on the protocol, which the file, `tree`, or `MAPEK_*` may set too.
    """
    found: dict[str, tuple[Any, str]] = {}
    names, warnings = _read_exporters(environ)
    if names is not None:
        found["export.exporter"] = (names[0] if len(names) == 1 else names, EXPORTERS)
    protocol, variable, said = _read_protocol(environ)
    warnings += said
    if protocol:
        found["export.protocol"] = (protocol, variable)
    else:
        section = tree.get("export")
        protocol = section.get("protocol", "") if isinstance(section, dict) else ""
    endpoint, variable, said = _read_endpoint(environ, environ.get("MAPEK_EXPORT_PROTOCOL") or protocol)
    warnings += said
    if endpoint:
        found["export.endpoint"] = (endpoint, variable)
    return found, warnings


def _read_exporters(environ: Mapping[str, str]) -> tuple[tuple[str, ...] | None, list[str]]:
    """The exporters that are named and known, None when there is no such, and what to say of the others."""
    written = [name.strip() for name in environ.get(EXPORTERS, "").split(",") if name.strip()]
    # Named twice, one would export everything twice.
    names = list(dict.fromkeys(name.lower() for name in written))
    found = [name for name in names if name in _KNOWN]
    warnings = [
        f"{EXPORTERS} names {name!r}, which is ignored: {_instead(name)}"
        for name in names
        if name not in _KNOWN
    ]
    if len(found) > 1 and "none" in found:
        found.remove("none")
        others = ", ".join(found)
        warnings.append(f"{EXPORTERS} names 'none', which is ignored: it must stand alone, without {others}")
    return tuple(found) or None, warnings


def _instead(name: str) -> str:
    if name in _ABSENT:
        return _ABSENT[name]
    near = difflib.get_close_matches(name, _KNOWN, 1)
    return f"did you mean {near[0]}?" if near else "it must be of otlp, otlp-sdk, console, memory or none"


def _read_protocol(environ: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """The protocol, the variable that says so, both empty when none does, and what to say of a wrong one."""
    warnings: list[str] = []
    for name in PROTOCOLS:
        text = environ.get(name, "").strip()
        match text.lower():
            case "":
                continue
            case "http/protobuf" | "grpc" as protocol:
                return protocol, name, warnings
            case "http/json":
                warnings.append(f"{name} is {text!r}; OTLP is not sent as JSON here; http/protobuf is used")
                return "http/protobuf", name, warnings
            case _:
                warnings.append(f"{name} is {text!r}; it must be http/protobuf or grpc; it is ignored")
    return "", "", warnings


def _read_endpoint(environ: Mapping[str, str], protocol: str) -> tuple[str, str, list[str]]:
    """The full address for the protocol, the variable that says so, and what to say of a wrong one."""
    warnings: list[str] = []
    for name in (FULL_ENDPOINT, BASE_ENDPOINT):
        text = environ.get(name, "").strip()
        if not text:
            continue
        if protocol == "grpc" and re.fullmatch(r"[^\s/:]+:\d+|\[[^\s/]+\]:\d+", text):
            # gRPC's own form. Whether TLS is spoken there is said by a variable that only counts here.
            text = f"{'http' if _is_insecure(environ) else 'https'}://{text}"
        if not re.match(ADDRESS, text, re.IGNORECASE):
            shown = without_secrets(text)
            warnings.append(f"{name} is {shown!r}; it must be {_example(name, protocol)}; it is ignored")
            continue
        if name == BASE_ENDPOINT and protocol != "grpc" and not text.lower().startswith("unix:"):
            path, query, rest = text.partition("?")
            text = f"{path.rstrip('/')}{TRACES_PATH}{query}{rest}"
        return text, name, warnings
    return "", "", warnings


def _example(name: str, protocol: str) -> str:
    if protocol == "grpc":
        return "an address such as http://localhost:4317"
    return f"an address such as http://localhost:4318{TRACES_PATH if name == FULL_ENDPOINT else ''}"


def _is_insecure(environ: Mapping[str, str]) -> bool:
    texts: list[Any] = [environ.get(name, "").strip() for name in INSECURE]
    return next((text.lower() == "true" for text in texts if text), False)
