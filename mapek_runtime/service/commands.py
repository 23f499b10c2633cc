"""Command groups of domains, found by the entry point `mapek.commands` and loaded when they are used.

A group that cannot be loaded says so when it is called, and does not keep the others from working.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from mapek_runtime.errors import PluginError

from .discovery import installed, load

__all__ = ["COMMANDS", "CommandGroup"]

COMMANDS = "mapek.commands"


class CommandGroup(TyperGroup):
    """The commands of the program, and those of installed domains."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, the program's own first."""
        own = list(super().list_commands(ctx))
        return [*own, *sorted(name for name in installed(COMMANDS) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; one that tells what is wrong for a group that cannot be loaded."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = installed(COMMANDS).get(cmd_name)
        if entry is None:
            return None
        try:
            found = load(entry, "command group")
            if not isinstance(found, typer.Typer):
                raise PluginError(f"command group {cmd_name!r} is {found!r}; it must be a typer.Typer")
        except PluginError as error:
            found = _broken(cmd_name, error)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


def _broken(name: str, error: PluginError) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    message = str(error)

    @app.command(
        name,
        help=f"Cannot be loaded: {message}",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def tell() -> None:
        typer.echo(f"mapek: {message}", err=True)
        raise typer.Exit(2)

    return app
