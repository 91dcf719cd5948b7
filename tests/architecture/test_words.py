"""Docstrings stand alone, and the texts of this repository use the usual words.

`words_to_fix.txt` lists the texts that break these rules and are still to be rewritten; it only gets shorter.
`python -m tests.architecture.test_words` writes it again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TO_FIX = Path(__file__).with_name("words_to_fix.txt")

LEANS_ON_ANOTHER = re.compile(r"(Of|Those|That|The same|As|Its|Their|Them|They|So many|So much|So that)\b(?! `?self)")
"""How a docstring begins whose subject stands in another sentence or file."""
UNUSUAL = re.compile(r"\b(mend(s|ed|ing)?|anew|how-manieth|nobody's business)\b", re.IGNORECASE)
"""Write fix, again or new."""


def docstrings(path: Path) -> Iterator[str]:
    """Every docstring of a file, those of fields and constants too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else ():
            if (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            ):
                yield part.value.value.strip()


def sources() -> list[Path]:
    """The Python files whose docstrings are read, generated ones left out."""
    return sorted(
        path
        for room in ("ps", "worker", "benchmarks", "deploy")
        for path in (ROOT / room).rglob("*.py")
        if "v1" not in path.parts
    )


def texts() -> list[Path]:
    """What people read: code, documents, settings. Decisions are history and stay as they were written."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    settings = [path for room in ("deploy", "docker", "proto") for path in (ROOT / room).rglob("*")]
    return [*sources(), *documents, *(path for path in settings if path.suffix in (".proto", ".yaml", ".yml", ".md"))]


def found() -> set[str]:
    """The first line of every docstring, and every line of text, that breaks a rule."""
    leaning = {text.splitlines()[0] for path in sources() for text in docstrings(path) if LEANS_ON_ANOTHER.match(text)}
    unusual = {
        line.strip()
        for path in texts()
        for line in path.read_text(encoding="utf-8").splitlines()
        if UNUSUAL.search(line)
    }
    return leaning | unusual


def test_docstrings_stand_alone_and_words_are_usual() -> None:
    new = found() - set(TO_FIX.read_text(encoding="utf-8").splitlines())
    assert not new, "give each a subject and a verb of its own, or the usual word:\n" + "\n".join(sorted(new))


def test_the_rules_see_what_they_are_for() -> None:
    assert all(LEANS_ON_ANOTHER.match(text) for text in ("Of no table.", "Those of all ranks.", "That as well."))
    assert not any(LEANS_ON_ANOTHER.match(text) for text in ("Offers a row.", "A row of a table.", "Thats"))
    assert UNUSUAL.search("how to mend it")
    assert not UNUSUAL.search("recommended, amended")


if __name__ == "__main__":
    TO_FIX.write_text("".join(f"{line}\n" for line in sorted(found())), encoding="utf-8")
