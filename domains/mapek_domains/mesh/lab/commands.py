"""`mapek lab up | down | status`: a Babel mesh of six nodes on this machine, to look at and to break."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from mapek_domains.mesh.babel.control import BabelControl
from mapek_runtime.errors import ConfigError, EngineUnavailable

from .daemon import BabelSettings, Daemon
from .lab import Lab, dismantle, sweep
from .registry import Claim
from .rights import enter_user_namespace, in_user_namespace
from .topology import SIX_NODES

__all__ = ["NeighbourStatus", "NodeStatus", "RouteStatus", "app"]

app = typer.Typer(help="A Babel mesh in network namespaces of this machine.", no_args_is_help=True)

_USER_NAMESPACE_RUN = Path("/run")

StateFolder = Annotated[
    Path | None, typer.Option("--state", help="Folder of the lab (default: $XDG_STATE_HOME/mapek/lab).")
]


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `up` leaves for `status` and `down`; the registry may be in a namespace they cannot see."""

    token: str
    nodes: tuple[str, ...]


class NeighbourStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One neighbour as `status --json` shows it."""

    node: str
    interface: str
    reach: str
    rxcost: int
    txcost: int
    cost: int


class RouteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One route in force."""

    destination: str
    next_hop: str
    metric: int


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node; without a `pid` its daemon does not run."""

    node: str
    namespace: str
    address: str
    pid: int | None
    interfaces: tuple[str, ...] = ()
    neighbours: tuple[NeighbourStatus, ...] = ()
    routes: tuple[RouteStatus, ...] = ()


@app.command()
def up(
    state: StateFolder = None,
    hello: Annotated[float, typer.Option(help="Babel's hello interval in seconds.")] = 1.0,
    update: Annotated[float, typer.Option(help="Babel's update interval in seconds.")] = 4.0,
    link_detect: Annotated[bool, typer.Option(help="Let babeld watch the carrier.")] = False,
    smoothing: Annotated[int, typer.Option(help="Half-life of Babel's metric smoothing in seconds.")] = 0,
) -> None:
    """Build the lab and leave it running."""
    folder = _folder(state)
    try:
        settings = BabelSettings(hello=hello, update=update, link_detect=link_detect, smoothing=smoothing)
        if (folder / "lab.json").exists():
            raise ConfigError(f"a lab is up in {str(folder)!r}; `mapek lab down` removes it")
        enter_user_namespace()
        if in_user_namespace() and folder.is_relative_to(_USER_NAMESPACE_RUN):
            raise ConfigError(
                f"--state {str(folder)!r} lies in /run, which is private to the lab when it runs "
                "without root; choose a folder elsewhere"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        nodes = asyncio.run(_up(folder, settings))
    except (EngineUnavailable, ConfigError, OSError) as error:
        _refuse(error)
    _show(nodes)


@app.command()
def status(
    state: StateFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show nodes, neighbours and routes."""
    folder = _folder(state)
    try:
        nodes = asyncio.run(_status(folder, _read(folder)))
    except (EngineUnavailable, ConfigError, OSError) as error:
        _refuse(error)
    if as_json:
        typer.echo(msgspec.json.encode({"state": str(folder), "nodes": nodes}).decode())
    else:
        _show(nodes)


@app.command()
def down(state: StateFolder = None) -> None:
    """Remove the lab, and what crashed labs left behind."""
    folder = _folder(state)
    try:
        removed, swept = asyncio.run(_down(folder))
    except (EngineUnavailable, ConfigError, OSError) as error:
        _refuse(error)
    typer.echo(f"removed the lab in {folder}" if removed else f"no lab in {folder}")
    if swept:
        typer.echo(f"removed {len(swept)} that a crash left behind: {', '.join(swept)}")


async def _up(folder: Path, settings: BabelSettings) -> tuple[NodeStatus, ...]:
    await sweep()
    lab = Lab(settings=settings, folder=folder)
    await lab.up()
    try:
        kept = _Kept(token=lab.entry.token, nodes=lab.topology.nodes)
        (folder / "lab.json").write_bytes(msgspec.json.encode(kept))
        with suppress(TimeoutError):
            async with asyncio.timeout(5 * settings.hello + 5):
                for daemon in lab.daemons.values():
                    await _converged(daemon, len(lab.topology.nodes) - 1)
        nodes = await _status(folder, kept)
        lab.leave_running()
    except BaseException:
        (folder / "lab.json").unlink(missing_ok=True)
        await lab.down()
        raise
    return nodes


async def _converged(daemon: Daemon, others: int) -> None:
    control = BabelControl(daemon.socket)
    await control.open()
    try:
        async with asyncio.TaskGroup() as group:
            follow = group.create_task(control.follow())
            await control.until(
                lambda tables: (
                    sum(SIX_NODES.node_of(prefix) is not None for prefix in tables.installed()) >= others
                )
            )
            follow.cancel()
    finally:
        await control.aclose()


async def _status(folder: Path, kept: _Kept) -> tuple[NodeStatus, ...]:
    return tuple([await _node_status(folder, kept, node) for node in kept.nodes])


async def _node_status(folder: Path, kept: _Kept, node: str) -> NodeStatus:
    daemon = _daemon(folder, kept, node)
    here = NodeStatus(
        node=node,
        namespace=daemon.namespace,
        address=SIX_NODES.identity(node),
        pid=daemon.pid(),
    )
    control = BabelControl(daemon.socket)
    try:
        await control.open()
    except EngineUnavailable:
        return here
    try:
        tables = await control.dump()
    finally:
        await control.aclose()
    return msgspec.structs.replace(
        here,
        interfaces=tuple(sorted(tables.interfaces)),
        neighbours=tuple(
            NeighbourStatus(
                node=row.interface.removeprefix("to-"),
                interface=row.interface,
                reach=f"{row.reach:04x}",
                rxcost=row.rxcost,
                txcost=row.txcost,
                cost=row.cost,
            )
            for row in sorted(tables.neighbours().values(), key=lambda row: row.interface)
        ),
        routes=tuple(
            RouteStatus(
                destination=destination, next_hop=route.interface.removeprefix("to-"), metric=route.metric
            )
            for prefix, route in sorted(tables.installed().items())
            if (destination := SIX_NODES.node_of(prefix)) is not None
        ),
    )


async def _down(folder: Path) -> tuple[bool, tuple[str, ...]]:
    removed = False
    if (folder / "lab.json").exists():
        kept = _read(folder)
        claim = Claim.take(kept.token)
        if claim is not None:
            await dismantle(claim)
        else:
            # The lab is in a user namespace, which ends with its last process; or the machine was
            # started anew, and nothing of it is left but files.
            for node in kept.nodes:
                await _daemon(folder, kept, node).stop()
                for suffix in ("sock", "pid", "state", "log"):
                    (folder / f"{node}.{suffix}").unlink(missing_ok=True)
        (folder / "lab.json").unlink(missing_ok=True)
        removed = True
    return removed, await sweep()


def _daemon(folder: Path, kept: _Kept, node: str) -> Daemon:
    return Daemon(f"mapek-{kept.token}-{node}", folder, node, (), BabelSettings())


def _folder(given: Path | None) -> Path:
    if given is not None:
        return given.absolute()
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "mapek" / "lab"


def _read(folder: Path) -> _Kept:
    try:
        return msgspec.json.decode((folder / "lab.json").read_bytes(), type=_Kept)
    except FileNotFoundError:
        raise ConfigError(f"no lab is up in {str(folder)!r}; `mapek lab up` builds one") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{folder / 'lab.json'}: {error}; `mapek lab up` writes this file") from None


def _refuse(error: Exception) -> NoReturn:
    typer.echo(f"mapek lab: {error}", err=True)
    raise typer.Exit(2)


def _show(nodes: tuple[NodeStatus, ...]) -> None:
    table = Table(title="Babel lab")
    for column in (
        "node",
        "address",
        "namespace",
        "babeld",
        "neighbours (cost)",
        "routes (next hop, metric)",
    ):
        table.add_column(column, overflow="fold")
    for row in nodes:
        neighbours = ", ".join(f"{n.node} ({n.cost})" for n in row.neighbours)
        routes = ", ".join(f"{r.destination} ({r.next_hop}, {r.metric})" for r in row.routes)
        pid = str(row.pid) if row.pid is not None else "down"
        table.add_row(row.node, row.address, row.namespace, pid, neighbours or "-", routes or "-")
    Console().print(table)
