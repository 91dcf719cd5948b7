"""Reads a Dockerfile, as far as ours goes: its stages, and the build commands of one run in a clean directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

OURS = re.compile(r"(?<![\w./])/(opt|src|etc/embedding-ps)\b")
"""Absolute paths that are below the clean directory instead."""


@dataclass
class Stage:
    """FROM base AS name, and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """(instruction, arguments), line ends joined."""

    def last(self, instruction: str) -> str:
        """The arguments that count where an instruction may come once."""
        return [arguments for name, arguments in self.steps if name == instruction][-1]


def read(path: Path) -> dict[str, Stage]:
    """Stages by name, in their order."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, Stage] = {}
    for step in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        instruction, arguments = step.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = arguments.split()
            stages[name] = Stage(base, name)
        elif stages:
            [*stages.values()][-1].steps.append((instruction, arguments))
    return stages


class CleanDirectory:
    """Where a stage's commands run: what they see as / is below `root`, but for the system itself."""

    def __init__(self, root: Path, context: Path) -> None:
        self.root = root
        self._context = context
        self._cwd = root
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY_", "NUMBA_"))}
        self._environment["PATH"] = f"{sys.base_prefix}/bin:{os.environ['PATH']}"

    def here(self, text: str) -> str:
        """With paths as they are on this machine."""
        return OURS.sub(rf"{self.root}/\1", text)

    def build(self, stage: Stage) -> None:
        """Its ARG, ENV, WORKDIR, COPY and RUN."""
        for instruction, arguments in stage.steps:
            if instruction in ("ARG", "ENV"):
                settings = dict(part.split("=", 1) for part in self.here(arguments).split() if "=" in part)
                self._environment |= settings
            elif instruction == "WORKDIR":
                self._cwd = Path(self.here(arguments))
                self._cwd.mkdir(parents=True)
            elif instruction == "COPY":
                self._copy(*arguments.split())
            else:
                assert instruction == "RUN", instruction
                command = ["bash", "-ec", self.here(arguments)]
                subprocess.run(command, cwd=self._cwd, env=self._environment, check=True)

    def _copy(self, *paths: str) -> None:
        *sources, target = paths
        for source in (self._context / source for source in sources):
            if source.is_dir():
                shutil.copytree(source, self._cwd / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self._cwd / target)


def command(arguments: str) -> list[str]:
    """Of CMD or HEALTHCHECK in their JSON form."""
    parsed: list[str] = json.loads(arguments[arguments.index("[") :])
    return parsed
