"""The lines of the table of metrics in docs/operations.md that are made from the declarations of counters.

`python -m tests.metrics_table` writes them there; `tests/unit/test_counters.py` fails until that was done.
"""

from __future__ import annotations

import re

from ps.counting import Declared, declared
from ps.storage.tier import Traffic
from ps.table.counters import Counters
from tests.documents import ROOT

DOCUMENT = ROOT / "docs" / "operations.md"
METRICS = [each for of in (Counters, Traffic) for each in declared(of) if each.metric is not None]
"""The counters that each table has."""
_AFTER = re.compile(r"^\| `ps_plain_bytes_total`.*\n", re.MULTILINE)
_TABLE = re.compile(r"^\| `(ps_\w+)_total` \| table \|.*\n", re.MULTILINE)


def line(metric: Declared) -> str:
    """Returns the line of a counter."""
    return f"| `{metric.metric}_total` | table | {metric.help} |\n"


def lines_of(document: str) -> list[str]:
    """Returns every line of one counter by table."""
    return [match[0] for match in _TABLE.finditer(document)]


def written(document: str) -> str:
    """Returns the document with the lines that are declared, and no others."""
    before = _AFTER.search(document)
    assert before is not None, "the declared counters come after ps_plain_bytes_total"
    rest = _TABLE.sub("", document[before.end() :])
    return document[: before.end()] + "".join(map(line, METRICS)) + rest


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
