"""psctl starts, watches, checks, sizes and stops a service. Each command has a file of its own and imports what it
needs when it runs, so that `psctl --help` and completion are quick.

Exit codes: 0 done; 1 an error, or a check that failed: one line on stderr says what and how to fix it; 2 wrong usage.
"""

from __future__ import annotations

import io
import os
import sys

import typer

from ps.cli.output import print_error
from ps.cli.registry import add_commands
from ps.errors import PsError

app = typer.Typer(
    name="psctl",
    help="Starts, watches, checks, sizes and ends an embedding parameter server. Every command but train takes --json.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_commands(app)


def main() -> None:
    """Runs psctl. An error of this project is printed as one line, without a traceback."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpc's own words on a dead address would lie across the screen
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without some letters of a file gets them as \xfc
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except PsError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
