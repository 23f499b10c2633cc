"""The command `mapek`.

Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong configuration or plugin. What is
wrong is one line on standard error.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.table import Table

from mapek_runtime.config import Configuration, Leaf, Sources, Value, decode, leaves, read_sources
from mapek_runtime.errors import ConfigError, EngineUnavailable, MapekError, PluginError

from .app import Run
from .catalogue import as_markdown, catalogue
from .commands import CommandGroup
from .live import LiveView
from .logs import logging_to_stderr
from .output import JsonLines, Output, PlainLines
from .prepare import Prepared, prepare, problems
from .reference import reference, show
from .sampling import describe_sampler
from .state import halt as halt_loops
from .state import halt_file, state_folder
from .state import resume as resume_loops
from .streams import open_missing_streams

__all__ = ["app", "main"]

PACKAGE = "mapek-runtime"
FAILED, REFUSED = 1, 2

app = typer.Typer(
    name="mapek",
    cls=CommandGroup,
    help="An autonomic loop (MAPE-K) in which every cycle is a trace.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")]
StateFolder = Annotated[
    str | None, typer.Option("--state", metavar="DIR", help="State folder (default: $XDG_STATE_HOME/mapek).")
]
DomainNames = Annotated[
    str | None,
    typer.Option("--domains", metavar="NAMES", help="Domains to start, such as mesh,raft (default: mesh)."),
]
PluginNames = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="NAME", help="A further plugin: installed, or MODULE:NAME; repeatable."),
]


@app.command()
def run(
    config: ConfigFile = None,
    domains: DomainNames = None,
    plugin: PluginNames = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", metavar="N", help="Run a demonstration of N nodes in this process."),
    ] = None,
    chaos: Annotated[bool, typer.Option("--chaos", help="Make faults on purpose.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed gives the same faults.")
    ] = None,
    no_heal: Annotated[
        bool, typer.Option("--no-heal", help="Only watch; the mesh's own link-state protocol stays.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and show, execute nothing.")] = False,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="S", help="End after S seconds, with a summary.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output, the summary last.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Serve there (default: 127.0.0.1:8380)."),
    ] = None,
    no_web: Annotated[bool, typer.Option("--no-web", help="Serve nothing, whatever is set.")] = False,
    state: StateFolder = None,
) -> None:
    """Run the loops: five mesh nodes on loopback, or the node that --config describes."""
    flags = {
        **_common(domains, state),
        "node.count": (nodes, "--nodes"),
        "run.chaos": (chaos or None, "--chaos"),
        "run.seed": (seed, "--seed"),
        "run.heal": (False if no_heal else None, "--no-heal"),
        "loop.dry_run": (dry_run or None, "--dry-run"),
        "run.duration": (duration, "--duration"),
        "run.json": (as_json or None, "--json"),
        "web.listen": (listen, "--listen"),
        "web.enabled": (False if no_web else None, "--no-web"),
    }
    with _refusing():
        prepared = prepare(_sources(config, flags, plugin), os.environ)
    with logging_to_stderr(prepared.settings.log):
        _tell_warnings(prepared.configuration)
        code = _run(prepared)
    raise typer.Exit(code)


@app.command()
def check(
    config: ConfigFile = None,
    domains: DomainNames = None,
    plugin: PluginNames = None,
    state: StateFolder = None,
    as_reference: Annotated[
        bool, typer.Option("--reference", help="Write the reference of all settings, in Markdown.")
    ] = False,
) -> None:
    """Print each setting with where it came from, and say what is wrong."""
    if as_reference:
        with _refusing():
            typer.echo(reference(PACKAGE), nl=False)
        return
    with _refusing():
        sources = _sources(config, _common(domains, state), plugin)
        prepared, wrong = problems(sources, os.environ)
        sampler = "" if prepared is None else describe_sampler(prepared.settings)
    for warning in sources.warnings:
        typer.echo(f"mapek: {warning}", err=True)
    for error in wrong:
        typer.echo(f"mapek: {error}", err=True)
    if prepared is None:
        raise typer.Exit(REFUSED)
    for path, value, origin in _in_force(prepared.configuration):
        typer.echo(f"{path} = {value or '(unset)'}    # {origin}")
    for name in prepared.configuration.unused:
        typer.echo(f"mapek: [{name}] is not used: {name!r} does not run", err=True)
    names = ", ".join(domain.name for domain in prepared.domains) or "none"
    plugins = ", ".join(source.name for source in prepared.plugins) or "none"
    typer.echo(f"nodes: {', '.join(prepared.nodes)}; domains: {names}; plugins: {plugins}")
    typer.echo(f"sampler: {sampler}")
    typer.echo(f"state folder: {prepared.state}")
    if halt_file(prepared.state).exists():
        typer.echo("the loops are halted; `mapek resume` lets them act")


@app.command()
def spans(
    markdown: Annotated[bool, typer.Option("--markdown", help="Write what domains/README.md holds.")] = False,
) -> None:
    """List every span that the installed packages declare."""
    with _refusing():
        if markdown:
            typer.echo(as_markdown(catalogue(PACKAGE)), nl=False)
            return
        entries = catalogue()
    table = Table("span", "attributes", "when")
    for entry in entries:
        table.add_row(entry.name, ", ".join(each.key for each in entry.attributes), entry.doc)
    Console().print(table)


@app.command()
def halt(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Stands on every plan span.")] = "",
    config: ConfigFile = None,
    state: StateFolder = None,
) -> None:
    """Let no loop act from the next cycle on; they go on watching."""
    with _refusing():
        path = halt_loops(_folder(config, state), reason or "no reason given")
    typer.echo(f"halted: {path}; `mapek resume` lets the loops act again")


@app.command()
def resume(config: ConfigFile = None, state: StateFolder = None) -> None:
    """Let the loops act again."""
    with _refusing():
        folder = _folder(config, state)
        was_halted = resume_loops(folder)
    typer.echo("resumed" if was_halted else f"the loops were not halted (there is no {halt_file(folder)})")


def main() -> None:
    """The console script `mapek`."""
    open_missing_streams()
    with _refusing(exit_now=True):
        app(prog_name="mapek")


def _run(prepared: Prepared) -> int:
    logger = structlog.get_logger("mapek")
    try:
        asyncio.run(Run(prepared).run(_output))
    except asyncio.CancelledError:
        typer.echo("mapek: cancelled while closing; not everything was flushed", err=True)
        return FAILED
    except Exception as error:
        refusal = _refusal(error)
        if refusal is not None:
            typer.echo(f"mapek: {refusal}", err=True)
            return REFUSED
        logger.exception("failed while running")
        first = _leaves(error)[0]
        typer.echo(f"mapek: failed while running: {type(first).__name__}: {first}", err=True)
        return FAILED
    return 0


def _output(run: Run) -> Output:
    settings = run.prepared.settings
    if settings.run.json:
        return JsonLines(sys.stdout, run.elapsed)
    if sys.stdout.isatty():
        return LiveView(run, Console(), _title(run.prepared))
    return PlainLines(sys.stdout, run.elapsed)


def _title(prepared: Prepared) -> str:
    settings = prepared.settings
    words = [f"mapek: {len(prepared.nodes)} node{'s' if len(prepared.nodes) > 1 else ''}"]
    if settings.run.chaos:
        words.append(f"chaos, seed {settings.run.seed}")
    if not settings.run.heal:
        words.append("watching only")
    if settings.loop.dry_run:
        words.append("dry run")
    return ", ".join(words)


def _common(domains: str | None, state: str | None) -> dict[str, tuple[Any, str]]:
    names = None if domains is None else [name.strip() for name in domains.split(",") if name.strip()]
    return {"domains": (names, "--domains"), "state": (state, "--state")}


def _sources(config: Path | None, flags: dict[str, tuple[Any, str]], plugin: list[str] | None) -> Sources:
    sources = read_sources(file=config, environ=os.environ, flags=flags)
    if not plugin:
        return sources
    # The one flag that adds to what is set elsewhere instead of taking its place.
    before = decode(sources, strict=False)
    origin = "--plugin" if before.is_default("plugins") else f"{before.origin('plugins')}, --plugin"
    plugins = Value([*before.settings.plugins, *plugin], origin)
    return dataclasses.replace(sources, flags={**sources.flags, "plugins": plugins})


def _folder(config: Path | None, state: str | None) -> Path:
    sources = read_sources(file=config, environ=os.environ, flags={"state": (state, "--state")})
    return state_folder(decode(sources, strict=False).settings, os.environ)


def _in_force(configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    yield from _section("", type(configuration.settings), configuration.settings, configuration)
    for name, section in configuration.sections.items():
        yield from _section(name, type(section), section, configuration)


def _section(
    prefix: str, struct: type[Any], values: Any, configuration: Configuration
) -> Iterator[tuple[str, str, str]]:
    leaf: Leaf
    for leaf in leaves(struct, prefix):
        value = values
        for step in leaf.path.removeprefix(f"{prefix}." if prefix else "").split("."):
            value = getattr(value, step)
        found = leaf.shown(value)
        shown = found if leaf.secret else show(found)
        yield leaf.path, shown, configuration.origin(leaf.path)


def _tell_warnings(configuration: Configuration) -> None:
    logger = structlog.get_logger("mapek")
    for warning in configuration.warnings:
        logger.warning(warning)
    for name in configuration.unused:
        logger.warning("a section is not used: what it belongs to does not run", section=name)


def _refusal(error: BaseException) -> MapekError | None:
    """What of a failure is the fault of configuration or plugin; None when it is something else."""
    found = [
        each for each in _leaves(error) if isinstance(each, ConfigError | PluginError | EngineUnavailable)
    ]
    return found[0] if found else None


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


@contextmanager
def _refusing(*, exit_now: bool = False) -> Iterator[None]:
    try:
        yield
    except (ConfigError, PluginError, EngineUnavailable) as error:
        typer.echo(f"mapek: {error}", err=True)
        if exit_now:
            sys.exit(REFUSED)
        raise typer.Exit(REFUSED) from None


if __name__ == "__main__":
    main()
