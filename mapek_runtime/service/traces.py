"""`mapek traces`: questions to the trace store, answered on the terminal.

The file is read as it is; a run may be writing it, and none need be there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mapek_runtime.config import decode, read_sources
from mapek_runtime.errors import ConfigError, QueryError, StoreError
from mapek_runtime.store import TraceStore
from mapek_runtime.store.otlp_json import to_json
from mapek_runtime.store.query import parse
from mapek_runtime.store.query.syntax import Query

from .moments import moment
from .storing import store_file
from .trace_output import (
    cycle_line,
    print_found,
    print_latencies,
    print_trace,
    span_line,
    span_object,
    statistics_object,
    trace_object,
)
from .trace_tree import grow
from .traces_export import destination, write_spans

__all__ = ["app"]

CYCLES = '{ name = "mape_k.cycle" }'
_LOOK_EVERY = 0.5
_MOST = 10_000
"""Spans that are told of one look: who writes more than that cannot be read along with anyway."""
_WIDE = 180
_FAILED, _REFUSED = 1, 2

app = typer.Typer(
    name="traces", help="Search, show and follow the traces in the store.", no_args_is_help=True
)

StoreFile = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The store (default: that of `mapek run`).")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")]
StateFolder = Annotated[
    str | None, typer.Option("--state", metavar="DIR", help="State folder (default: $XDG_STATE_HOME/mapek).")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="T", help="How long ago (15m, 2h, 1d), or a time in ISO 8601."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="T", help="The end, written as for --since.")]
QueryText = Annotated[
    str,
    typer.Argument(
        metavar="[QUERY]",
        help="""Such as 'name="mape_k.*" AND duration >= 50ms', or TraceQL: '{ span.node_id = "node-1" }'.""",
    ),
]


@app.command()
def search(
    query: QueryText = "",
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000)] = 20,
    spans: Annotated[int, typer.Option("--spans", metavar="N", min=0, help="Spans shown of a trace.")] = 3,
    as_json: AsJson = False,
    store: StoreFile = None,
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """List the newest traces of which the query chooses spans."""

    async def ask(file: TraceStore) -> None:
        found = await file.search(
            _parse(query), limit=limit, spans_per_set=spans, start=_moment(since), end=_moment(until)
        )
        if as_json:
            for trace in found.traces:
                typer.echo(json.dumps(trace_object(trace)))
        else:
            print_found(_console(), found)

    _run(ask, store, config, state)


@app.command()
def show(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE", help="Its id, the beginning of one, or `latest` [of a query].")
    ] = "latest",
    query: Annotated[
        str, typer.Argument(metavar="[QUERY]", help="Of which traces the latest is meant.")
    ] = "",
    offset: Annotated[int, typer.Option("--offset", metavar="N", min=0)] = 0,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="Spans, of a large trace.")
    ] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help="OTLP JSON.")] = False,
    store: StoreFile = None,
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """Draw a trace as a waterfall, and say why a cycle decided as it did."""

    async def ask(file: TraceStore) -> None:
        found = await file.trace(await _trace_id(file, trace, query), offset=offset, limit=limit)
        if found is None:
            raise StoreError(f"there is no trace {trace!r} in {str(file.path)!r}")
        if as_json:
            typer.echo(json.dumps(to_json(found.data)))
        else:
            print_trace(_console(), found, grow(found.data))

    _run(ask, store, config, state)


@app.command()
def tail(
    query: QueryText = CYCLES,
    as_json: AsJson = False,
    store: StoreFile = None,
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """Follow what is stored from now on, a line for each span that the query chooses (default: cycles)."""

    async def ask(file: TraceStore) -> None:
        wanted = _parse(query)
        after, _ = await file.newest()
        while True:
            after, found = await file.newest(after, query=wanted, limit=_MOST)
            for span in reversed(found):
                if as_json:
                    typer.echo(json.dumps(span_object(span)))
                else:
                    typer.echo(cycle_line(span) if span.name == "mape_k.cycle" else span_line(span))
            sys.stdout.flush()
            await asyncio.sleep(_LOOK_EVERY)

    _run(ask, store, config, state)


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Ends in .parquet, or in .jsonl for OTLP JSON lines.")
    ],
    query: QueryText = "",
    since: Since = None,
    until: Until = None,
    store: StoreFile = None,
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """Write the spans that the query chooses into a file, a row each; one that is there is replaced."""

    async def ask(opened: TraceStore) -> None:
        make = destination(file)
        pages = opened.pages(_parse(query), start=_moment(since), end=_moment(until))
        console = Console(stderr=True)
        with Progress(
            BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"),
            console=console, transient=True, disable=not console.is_terminal,
        ) as shown:  # fmt: skip
            task = shown.add_task("", total=1.0)
            try:
                spans = await write_spans(
                    pages,
                    file,
                    make,
                    lambda done, spans: shown.update(task, completed=done, description=f"{spans:,} spans"),
                )
            except asyncio.CancelledError:
                raise StoreError(f"interrupted; {str(file)!r} is as it was before") from None
        typer.echo(f"{spans:,} spans in {file} ({file.stat().st_size / 2**20:.1f} MiB)")

    _run(ask, store, config, state)


@app.command()
def stats(
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
    store: StoreFile = None,
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """Say what is in the store, and how long each operation takes."""

    async def ask(file: TraceStore) -> None:
        start, end = _moment(since), _moment(until)
        rows = await file.latencies(start=start, end=end)
        contents = await file.contents()
        if as_json:
            typer.echo(json.dumps(statistics_object(contents, rows)))
        else:
            print_latencies(_console(), file.path, contents, rows)

    _run(ask, store, config, state)


def _console() -> Console:
    console = Console()
    # Nobody reads a pipe in a window: what is cut off there is lost.
    return console if console.is_terminal else Console(width=max(console.width, _WIDE))


def _run(
    ask: Callable[[TraceStore], Coroutine[Any, Any, None]],
    store: Path | None,
    config: Path | None,
    state: str | None,
) -> None:
    with _telling():
        path = store or _default_store(config, state)
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_asked(ask, path))


async def _asked(ask: Callable[[TraceStore], Coroutine[Any, Any, None]], path: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):
        # As Ctrl-C does: whoever follows has seen enough.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with TraceStore(path, read_only=True) as file:
        await ask(file)


def _default_store(config: Path | None, state: str | None) -> Path:
    sources = read_sources(file=config, environ=os.environ, flags={"state": (state, "--state")})
    return store_file(decode(sources, strict=False), os.environ)


async def _trace_id(file: TraceStore, text: str, query: str) -> str:
    """The id that `text` stands for. Raises `QueryError`."""
    if text == "latest":
        found = await file.search(_parse(query), limit=1)
        if not found.traces:
            raise QueryError("there is no such trace; `mapek traces search` shows what there is")
        return found.traces[0].trace_id
    if query:
        raise QueryError(f"a query goes with `latest`, not with the id {text!r}")
    if len(text) == 32:
        return text
    ids = await file.ids(text)
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise QueryError(f"no trace in {str(file.path)!r} has an id that begins with {text!r}")
    raise QueryError(f"{text!r} is the beginning of more than one id: {', '.join(ids)}")


def _parse(text: str) -> Query:
    return parse(text)


def _moment(text: str | None) -> int | None:
    return None if text is None else moment(text, now=time.time_ns())


@contextmanager
def _telling() -> Iterator[None]:
    """What is wrong is a line on standard error, and the exit code says whose fault it is."""
    try:
        yield
        sys.stdout.flush()
    except QueryError as error:
        pointer = error.pointer()
        typer.echo(f"mapek: {error}" + (f"\n{pointer}" if pointer else ""), err=True)
        raise typer.Exit(_REFUSED) from None
    except (ConfigError, StoreError) as error:
        typer.echo(f"mapek: {error}", err=True)
        raise typer.Exit(_REFUSED if isinstance(error, ConfigError) else _FAILED) from None
    except BrokenPipeError:
        # Whoever read has seen enough; nothing is to be told of it at exit.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as it lives
