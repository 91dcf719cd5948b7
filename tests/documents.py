"""Reads the commands that README.md, CONTRIBUTING.md and docs/ tell a reader to type."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
GUIDES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("training", "tables", "communication", "tensor_train", "operations", "numbers")),
)
"""Documents whose indented blocks are commands, Python, YAML or a screen. docs/architecture.md has drawings there."""
SPEAK_OF_COMMANDS = (
    *GUIDES,
    "docs/architecture.md",
    *(f"docs/decisions/{p.name}" for p in ROOT.glob("docs/decisions/*")),
)
PROGRAMS = ("psctl", "make", "python", "ray", "docker", "kubectl", "pip", "promtool", "torchrun", "ulimit")
"""What a command within a sentence or a table begins with."""

BLOCK = re.compile(r"(?:^    .*\n|^[ ]*\n(?=    ))+", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
A_FILE = re.compile(r"# (\w+\.yaml)\b")
A_SCREEN = re.compile(r"embedding-ps [\d.]+ at |ok +python ")


@dataclass(frozen=True)
class Block:
    """An indented or fenced stretch of a document."""

    document: str
    line: int
    """Of the document, from 1."""
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """In their order, joined where a backslash ends a line. What follows an empty line is what the first prints."""
        typed = self.text.partition("\n\n")[0].replace("\\\n", " ")
        return [line for line in typed.splitlines() if shlex.split(line, comments=True)]

    @property
    def printed(self) -> str:
        """What the document shows of the first command's output; nothing for most."""
        return self.text.partition("\n\n")[2]


def words(command: str) -> list[str]:
    """Without the comment behind it."""
    return shlex.split(command, comments=True)


def blocks(document: str) -> Iterator[Block]:
    """All of them but fenced Python, which tests/ray/test_readme.py runs."""
    text = (ROOT / document).read_text()
    fenced = [(match.start(), match[1], match[2]) for match in FENCED.finditer(text)]
    rest = FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)
    for start, language, inside in fenced:
        if language != "python":
            yield Block(document, text.count("\n", 0, start) + 2, inside.rstrip())
    for match in BLOCK.finditer(rest):
        lead = len(match[0]) - len(match[0].lstrip("\n "))
        begins = rest.count("\n", 0, match.start() + lead) + 1
        yield Block(document, begins, textwrap.dedent(match[0]).strip())


def is_python(block: Block) -> bool:
    """Calls and imports, which no shell command looks like."""
    try:
        return "(" in block.text and bool(ast.parse(block.text).body)
    except SyntaxError:
        return False


def shell_blocks() -> list[Block]:
    """Everything that is not known to be something else."""
    return [
        block
        for document in GUIDES
        for block in blocks(document)
        if not (A_FILE.match(block.text) or A_SCREEN.match(block.text) or is_python(block))
    ]


def files() -> dict[str, object]:
    """name -> what stands in it: YAML that the documents show under `# NAME.yaml`, put together where they show several
    parts of one file."""
    found: dict[str, object] = {}
    for block in (block for document in GUIDES for block in blocks(document)):
        name = A_FILE.match(block.text)
        if name:
            part = yaml.safe_load(block.text)
            so_far = found.get(name[1])
            found[name[1]] = so_far | part if isinstance(so_far, dict) else part
    return found


def inline_commands() -> list[tuple[str, str]]:
    """(document, command), of sentences and tables; those of blocks too would come twice."""
    found = []
    for document in SPEAK_OF_COMMANDS:
        text = BLOCK.sub("\n", FENCED.sub("\n", (ROOT / document).read_text()))
        for span in INLINE.findall(text):
            command = " ".join(span.split())
            if command.split()[0] in PROGRAMS and " " in command:
                found.append((document, command))
            elif command.split()[0] == "benchmarks" and " " in command:
                found.append((document, f"python -m {command}"))
    return sorted(set(found))
