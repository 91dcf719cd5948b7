"""`psctl train`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import typer

from ps.errors import NotFound, Unavailable

PLACE = 80

NOT_THERE = (
    "the reference trainer, the package `worker`, is not installed: it comes with a checkout of embedding-ps and not "
    "with the wheel, where it would be in the way of a `worker` of your own. In a checkout run "
    "`pip install -e '.[demo]'`, and then psctl train; your own trainer imports ps and ps.nn"
)
SETTINGS = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}
"""Passes every option to the trainer, --help too."""


def train(context: typer.Context) -> None:
    """Trains the reference model: the same as `python -m worker.train`, whose options it takes (--help lists them).

    The trainer comes with a checkout of embedding-ps, and not with the wheel.
    """
    trainer()(context.args, "psctl train")


def trainer() -> Callable[[Sequence[str], str], None]:
    """Finds the reference trainer, beside `ps` in a checkout or where the interpreter finds it. Raises NotFound, and
    Unavailable where something that it needs is not installed."""
    checkout = Path(__file__).parents[3]
    if (checkout / "worker" / "train" / "command.py").is_file() and str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))  # its trainer processes import from here as well
    try:
        found = find_spec("worker.train.command")
    except ModuleNotFoundError:  # there is no `worker`, or it is another one
        found = None
    if found is None:
        raise NotFound(NOT_THERE)
    try:
        command: Callable[[Sequence[str], str], None] = import_module("worker.train.command").main
    except ImportError as error:
        raise Unavailable(f"psctl train: {error}; pip install -e '.[demo]' in the checkout brings all") from error
    return command
