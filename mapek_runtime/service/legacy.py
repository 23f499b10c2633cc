"""The variables of x0tta6bl4 that no standard knows, read as the standard ones that replace them.

They are deprecated aliases: the standard variable wins, and each alias that is set is answered with
a line that says what to write instead. The agent's thrift ports are gone from OpenTelemetry; Jaeger
takes OTLP since 1.35.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["environment_with", "read_legacy"]

_ENDPOINTS = (
    "MAPEK_EXPORT_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_BY_RATIO = ("traceidratio", "parentbased_traceidratio")
_REMOTE = ("jaeger_remote", "parentbased_jaeger_remote")
_THRIFT_PORTS = ("6831", "6832")


def read_legacy(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The standard variables that the deprecated ones in `environ` stand for, and what to say of each."""
    read = _Reader(environ)
    read.enabled()
    read.sampler_argument()
    read.agent()
    return read.found, tuple(read.said)


@contextmanager
def environment_with(variables: Mapping[str, str]) -> Iterator[None]:
    """Set `variables` in this process's environment inside the block.

    The readers of the SDK look nowhere else.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        # Empty counts as unset, as the specification asks.
        self._set = {name: text.strip() for name, text in environ.items() if text.strip()}
        self.found: dict[str, str] = {}
        self.said: list[str] = []

    def enabled(self) -> None:
        text = self._set.get("OTEL_ENABLED")
        if text is None:
            return
        if text.lower() in {"true", "1", "yes", "on"}:
            self._say("OTEL_ENABLED", text, "and says nothing: tracing is on unless OTEL_SDK_DISABLED=true")
        elif text.lower() not in {"false", "0", "no", "off"}:
            self._say("OTEL_ENABLED", text, "and must be true or false: ignored; set OTEL_SDK_DISABLED=true")
        elif "OTEL_SDK_DISABLED" in self._set:
            self._say("OTEL_ENABLED", text, "and ignored, because OTEL_SDK_DISABLED is set")
        else:
            self._replace("OTEL_ENABLED", text, {"OTEL_SDK_DISABLED": "true"})

    def sampler_argument(self) -> None:
        text = self._set.get("OTEL_SAMPLER_ARG")
        if text is None:
            return
        sampler = self._set.get("OTEL_TRACES_SAMPLER")
        if not _is_share(text):
            self._say(
                "OTEL_SAMPLER_ARG",
                text,
                "and must be a number from 0 to 1: ignored; "
                "set OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG",
            )
        elif "OTEL_TRACES_SAMPLER_ARG" in self._set:
            self._say("OTEL_SAMPLER_ARG", text, "and ignored, because OTEL_TRACES_SAMPLER_ARG is set")
        elif sampler is None:
            # Without a sampler that takes one, the standard's argument would say nothing.
            both = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": text}
            self._replace("OTEL_SAMPLER_ARG", text, both)
        elif sampler.lower() in _BY_RATIO:
            self._replace("OTEL_SAMPLER_ARG", text, {"OTEL_TRACES_SAMPLER_ARG": text})
        elif sampler.lower() in _REMOTE:
            self._replace(
                "OTEL_SAMPLER_ARG", text, {"OTEL_TRACES_SAMPLER_ARG": f"initialSamplingRate={text}"}
            )
        else:
            self._say("OTEL_SAMPLER_ARG", text, f"and ignored: OTEL_TRACES_SAMPLER={sampler} takes no ratio")

    def agent(self) -> None:
        host, port = self._set.get("JAEGER_AGENT_HOST"), self._set.get("JAEGER_AGENT_PORT")
        standard = next((name for name in _ENDPOINTS if name in self._set), None)
        if port is not None and port not in {*_THRIFT_PORTS, "4317", "4318"}:
            self._say(
                "JAEGER_AGENT_PORT",
                port,
                "and ignored: spans go by OTLP, to 4318 (http/protobuf) or 4317 (grpc); "
                "another port is set in OTEL_EXPORTER_OTLP_ENDPOINT",
            )
        if host is None:
            if port is not None:
                self._say("JAEGER_AGENT_PORT", port, "and ignored without JAEGER_AGENT_HOST")
        elif any(letter in host for letter in "/@ "):
            self._say(
                "JAEGER_AGENT_HOST",
                host,
                "and must be the name of a host: ignored; set OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:4318",
            )
        else:
            instead = self._strategies(host)
            if standard is None:
                instead = self._endpoint(host, port) | instead
            if instead:
                self._replace("JAEGER_AGENT_HOST", host, instead)
            else:
                self._say("JAEGER_AGENT_HOST", host, f"and ignored, because {standard} is set")

    def _strategies(self, host: str) -> dict[str, str]:
        """Where a sampler that is told by a server asks it: on that host, unless another is set."""
        server = f"http://{_in_address(host)}:5778"
        named = self._set.get("OTEL_TRACES_SAMPLER", "").lower()
        argument = self.found.get("OTEL_TRACES_SAMPLER_ARG", self._set.get("OTEL_TRACES_SAMPLER_ARG", ""))
        if named in _REMOTE and "endpoint=" not in argument:
            return {"OTEL_TRACES_SAMPLER_ARG": ",".join(filter(None, (f"endpoint={server}", argument)))}
        if self._set.get("MAPEK_SAMPLER_TYPE") == "remote" and "MAPEK_SAMPLER_ENDPOINT" not in self._set:
            return {"MAPEK_SAMPLER_ENDPOINT": server}
        return {}

    def _endpoint(self, host: str, port: str | None) -> dict[str, str]:
        chosen = next((self._set[name].lower() for name in _PROTOCOLS if name in self._set), None)
        protocol = chosen or ("grpc" if port == "4317" else "http/protobuf")
        otlp = f"http://{_in_address(host)}:{4317 if protocol == 'grpc' else 4318}"
        standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp}
        if chosen is None and protocol == "grpc":
            standard["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
        return standard

    def _replace(self, name: str, text: str, standard: Mapping[str, str]) -> None:
        self.found |= standard
        instead = " ".join(f"{key}={value}" for key, value in standard.items())
        self._say(name, text, f"and read as {instead}; set that instead")

    def _say(self, name: str, text: str, what: str) -> None:
        self.said.append(f"{name}={text} is deprecated {what}")


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
