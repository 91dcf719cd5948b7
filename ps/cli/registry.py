"""The commands of psctl: every file of `ps/cli/commands` is one, checked when psctl starts.

A file has its command as a function of the file's name, or several as a typer.Typer `app`; PLACE, which orders
`psctl --help`; and, where typer must be told more of a command, SETTINGS: arguments of `typer.Typer.command`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import typer

from ps.cli import commands


def add_commands(psctl: typer.Typer) -> None:
    """Adds all commands. Raises TypeError that says what a file lacks."""
    names = [file.name for file in pkgutil.iter_modules(commands.__path__)]
    modules = [importlib.import_module(f"{commands.__name__}.{name}") for name in names]
    for module in sorted(modules, key=_place):
        _add(psctl, module)


def _place(module: ModuleType) -> int:
    place = getattr(module, "PLACE", None)
    if not isinstance(place, int):
        raise TypeError(f"{module.__name__} lacks PLACE, a whole number by which psctl --help orders commands")
    return place


def _add(psctl: typer.Typer, module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    group, command = getattr(module, "app", None), getattr(module, name, None)
    if isinstance(group, typer.Typer):
        psctl.add_typer(group, name=name)
    elif callable(command):
        psctl.command(**getattr(module, "SETTINGS", {}))(command)
    else:
        raise TypeError(f"{module.__name__} has neither a function {name!r}, the command, nor a typer.Typer 'app'")
