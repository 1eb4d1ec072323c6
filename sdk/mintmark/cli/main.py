"""`mintmark`: one command made of many, each loaded only when it is used.

A command is an entry point of the group `mintmark.commands` (that is how the platform adds `up` and `down`), or a
module beside this one whose `app` is a Typer application or which has a function of its own name.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

GROUP = "mintmark.commands"


class Commands(TyperGroup):
    """A group that knows the names of its commands without importing them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(_loaders())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        loader = _loaders().get(cmd_name)
        if loader is None:
            return None
        try:
            return _as_command(cmd_name, loader())
        except ImportError as error:
            return _unavailable(cmd_name, error)


@cache
def _loaders() -> dict[str, Callable[[], Any]]:
    """Command name to what loads it; an entry point wins over a module of the same name."""
    package = import_module(__package__)
    modules = [one.name for one in pkgutil.iter_modules(package.__path__) if one.name != "main" and one.name[0] != "_"]
    # A command can be called `import`, a module cannot.
    found: dict[str, Callable[[], Any]] = {
        name.rstrip("_").replace("_", "-"): partial(_from_module, name) for name in modules
    }
    return found | {point.name: point.load for point in entry_points(group=GROUP)}


def _from_module(name: str) -> Any:
    module = import_module(f"{__package__}.{name}")
    return getattr(module, "app", None) or getattr(module, name)


def _as_command(name: str, loaded: Any) -> Any:
    """A Typer application becomes a group of sub-commands, a function one command."""
    if not isinstance(loaded, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(loaded)
        loaded = single
    command = typer.main.get_command(loaded)
    command.name = name
    return command


def _unavailable(name: str, error: ImportError) -> Any:
    """A command whose package is not installed says so when it is used, and does not break the others."""
    single = typer.Typer(add_completion=False)

    @single.command(name, help=f"Not available here: {error}.")
    def explain() -> None:
        typer.echo(f"mintmark: `{name}` is not available here ({error}): install mintmark-platform[local].", err=True)
        raise typer.Exit(1)

    return typer.main.get_command(single)


app = typer.Typer(
    cls=Commands,
    name="mintmark",
    help="The system of record for AI assets, and their road to production.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would print secrets.
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("mintmark"))
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """The system of record for AI assets, and their road to production."""


def main() -> None:
    """The console script."""
    # httpx brings its own command line along where click and rich are installed, and does without where they are not:
    # 0.2 s for something that nobody can reach from here.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    app()


if __name__ == "__main__":
    main()
