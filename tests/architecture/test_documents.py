"""The documents name files and folders that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
A_PATH = re.compile(r"(?<![\w./])((?:ps|worker|benchmarks|tests|deploy|docker|proto)/[\w./-]*\w)((?:, \w+\.py)*)")


def paths(text: str) -> Iterator[str]:
    """Every path in a text; names that follow one after commas, as `a/b.py, c.py`, are in the same folder."""
    for first, others in A_PATH.findall(text):
        yield first
        yield from (f"{Path(first).parent}/{name}" for name in others.split(", ")[1:])


def test_what_the_documents_name_is_there() -> None:
    named = {(document.name, path) for document in DOCUMENTS for path in paths(document.read_text())}
    assert len(named) > 80
    assert not {name for name in named if not ("NAME" in name[1] or (ROOT / name[1]).exists())}, "NAME is for any"


def test_paths_are_found_in_text_and_drawings() -> None:
    assert list(paths("see ps/shard/ (`ps/shard/engine.py`)")) == ["ps/shard", "ps/shard/engine.py"]
    assert list(paths("read   ps/server/gate/lines.py, lanes.py")) == [
        "ps/server/gate/lines.py",
        "ps/server/gate/lanes.py",
    ]
