"""A real terminal, through tmux: what a person sees who runs a command in 80x24."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

WIDTH, HEIGHT = 80, 24


class Terminal:
    """One tmux session with a server of its own."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def run(self, command: Sequence[str], environment: Mapping[str, str], done: Path) -> None:
        """Starts it, in an environment that leaves the size to the terminal; its exit code will be in `done`."""
        environment = {key: value for key, value in environment.items() if key not in ("COLUMNS", "LINES")}
        environment["TERM"] = "screen-256color"
        # Ctrl-C is for the command, not for the shell around it.
        line = f"trap : INT; {shlex.join(command)}; echo $? > {shlex.quote(str(done))}; exec sleep 1000"
        size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
        arguments = ["new-session", "-d", *size, "env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        subprocess.run([*self._tmux, *arguments, "sh", "-c", line], check=True)

    def screen(self) -> list[str]:
        """The lines that are to be seen now."""
        found = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
        return found.stdout.splitlines()

    def press(self, key: str) -> None:
        """As tmux names it: C-c, q, Enter."""
        subprocess.run([*self._tmux, "send-keys", key], check=True)

    def close(self) -> None:
        """Ends the session and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A test that needs one is skipped where there is no tmux."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed; tests/install_packages.sh does that")
    folder.mkdir(exist_ok=True)
    opened = Terminal(folder / "tmux")
    try:
        yield opened
    finally:
        opened.close()
