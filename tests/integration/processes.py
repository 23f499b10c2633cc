"""`mapek run` as several processes on one machine, each of them one node, with links that can be cut.

A process is configured by a file, as an operator would do it, and looked at from outside: by its JSON
lines, by what it exports, and by how it ends. The links are relays of the test, see `relays`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .collector import Collector, collector
from .relays import Relays, relays
from .running import environment

__all__ = ["RING", "Exported", "Machine", "NodeProcess", "exported", "machine", "toml"]

RING = (
    *(("node-1", "node-2"), ("node-2", "node-3"), ("node-3", "node-4"), ("node-4", "node-5")),
    *(("node-1", "node-5"), ("node-1", "node-3"), ("node-2", "node-4")),
)
"""Five nodes: a ring, and two chords across it."""

OBSERVER = "tests.integration.observer:domain"
LIMIT = 90.0
"""Seconds that anything is waited for: five interpreters may have to share one core."""
_ROOT = Path(__file__).parents[2]

Event = dict[str, Any]


def toml(sections: Mapping[str, Any]) -> str:
    """A configuration file; what is a mapping becomes a section."""
    lines = [f"{key} = {_value(value)}" for key, value in sections.items() if not isinstance(value, Mapping)]
    for key, value in sections.items():
        if isinstance(value, Mapping):
            lines.append(f"\n[{key}]")
            lines += [f"{name} = {_value(each)}" for name, each in value.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_value(each)}" for name, each in value.items()) + "}"
    # JSON's texts, numbers, truths and lists are TOML's.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


class NodeProcess:
    """One `mapek run`: what it said so far, and its end."""

    def __init__(self, name: str, process: Process, log: IO[bytes]) -> None:
        self.name = name
        self.process = process
        self.events: list[Event] = []
        self._log = log
        self._news = asyncio.Event()
        self.ended = False

    @classmethod
    async def start(cls, name: str, folder: Path, file: Path, **environ: str) -> NodeProcess:
        """Start one by a configuration file; let `listen` run beside it."""
        log = await asyncio.to_thread((folder / f"{name}.log").open, "ab")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--config", str(file)),
            stdout=PIPE,
            stderr=log,
            cwd=folder,
            env=environment(folder, **environ),
            limit=1 << 20,
        )
        log.close()
        return cls(name, process, log)

    async def listen(self) -> None:
        """Read its lines until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))
            self._news.set()
        await self.process.wait()
        self.ended = True
        self._news.set()

    def said(self, event: str, **fields: Any) -> list[Event]:
        """Its events of that name with these fields."""
        return [
            each
            for each in self.events
            if each["event"] == event and all(each.get(key) == value for key, value in fields.items())
        ]

    def last(self, event: str, key: str) -> Any:
        """What it said last under that key; None when it has said nothing."""
        found = self.said(event)
        return found[-1][key] if found else None

    async def until(self, holds: Callable[[NodeProcess], object], what: str) -> None:
        """Wait for what it will have said."""
        try:
            async with asyncio.timeout(LIMIT):
                while not holds(self):
                    assert not self.ended, f"{self.name} has ended, and not: {what}\n{self.errors()}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name}, not within {LIMIT:g} s: {what}\n{self.events[-20:]}\n{self.errors()}"
            ) from None

    def errors(self) -> str:
        """The end of what it wrote on standard error."""
        return Path(self._log.name).read_text("utf-8", "replace")[-4000:]

    def stall(self) -> None:
        """Let it stand still, as on a host that has no time for it."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after a stall."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Let it die at once, where it has not ended; a process that is stalled dies too."""
        if self.process.returncode is None:
            self.process.kill()

    async def kill(self) -> None:
        """Let it die at once, as by a power cut, and wait until it has."""
        self.end()
        await self._over()

    async def stop(self) -> Event:
        """Stop it as a service manager does; its summary."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        await self._over()
        assert self.process.returncode == 0, self.errors()
        assert self.events[-1]["event"] == "summary", self.events[-5:]
        return self.events[-1]

    async def _over(self) -> None:
        async with asyncio.timeout(LIMIT):
            while not self.ended:
                self._news.clear()
                await self._news.wait()


class Machine:
    """The processes of a test, their links, and the collector that they export to."""

    def __init__(self, folder: Path, links: Relays, sink: Collector, group: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.links = links
        self.sink = sink
        self.nodes: dict[str, NodeProcess] = {}
        self._group = group
        self._reading: list[asyncio.Task[None]] = []

    async def start(self, name: str, domains: Sequence[str] = ("mesh",), **sections: Any) -> NodeProcess:
        """Start a node, or start it again; `sections` are further ones of its configuration."""
        settings = {
            "service_name": name,
            "domains": [*domains, OBSERVER],
            "state": str(self.folder / name),
            "node": {"id": name},
            "loop": {"interval": 0.2},
            "export": {"delay": 0.5},
            "store": {"enabled": False},
            "web": {"enabled": False},
            "mesh": {"listen": "127.0.0.1:0", "peers": self.links.peers(name)},
            **sections,
        }
        file = self.folder / f"{name}.toml"
        await asyncio.to_thread(file.write_text, toml(settings), "utf-8")
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        log = await asyncio.to_thread((self.folder / f"{name}.log").open, "ab")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--config", str(file)),
            stdout=PIPE,
            stderr=log,
            cwd=self.folder,
            env=environment(self.folder, PYTHONPATH=path, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=self.sink.url),
            limit=1 << 20,
        )
        log.close()
        node = self.nodes[name] = NodeProcess(name, process, log)
        self._reading.append(self._group.create_task(node.listen(), name=f"events of {name}"))
        return node

    async def until(self, holds: Callable[[NodeProcess], object], what: str, *but: str) -> None:
        """Wait until it holds for every process, except some."""
        for name, node in self.nodes.items():
            if name not in but:
                await node.until(holds, what)

    async def stop(self) -> dict[str, Event]:
        """Stop every process that still runs; their summaries."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(node.stop()) for name, node in self.nodes.items() if not node.ended
            }
        return {name: task.result() for name, task in tasks.items()}

    async def close(self) -> None:
        """End what still runs."""
        for node in self.nodes.values():
            node.end()
        for task in self._reading:
            # Until the last line is read: the pipes are closed then.
            await asyncio.wait((task,))


@asynccontextmanager
async def machine(folder: Path, pairs: Sequence[tuple[str, str]] = RING) -> AsyncIterator[Machine]:
    """Where processes can be started; nothing of them is left when the block is."""
    failure: Exception | None = None
    async with relays(pairs) as links, collector() as sink:
        async with asyncio.TaskGroup() as group:
            made = Machine(folder, links, sink, group)
            try:
                yield made
            except Exception as error:  # noqa: BLE001 - raised again below, and not as a group
                failure = error
            finally:
                await made.close()
        if failure is not None:
            raise failure


class Exported(NamedTuple):
    """A span as the collector has it; `node` is the process that it came from."""

    node: str
    trace: str
    id: str
    parent: str
    name: str
    attributes: dict[str, Any]


def exported(sink: Collector) -> list[Exported]:
    """Every span that has come."""
    found = []
    for body in sink.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            node = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value")
                        for a in span.attributes
                    }
                    found.append(
                        Exported(
                            node, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                            span.name, attributes,
                        )
                    )  # fmt: skip
    return found
