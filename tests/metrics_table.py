"""The lines of README's table of metrics that are made from the declarations of counters.

`python -m tests.metrics_table` writes them there; `tests/unit/test_counters.py` fails until that was done.
"""

from __future__ import annotations

import re

from ps.counting import Declared, declared
from ps.storage.tier import Traffic
from ps.table.counters import Counters
from tests.documents import ROOT

README = ROOT / "README.md"
METRICS = [each for of in (Counters, Traffic) for each in declared(of) if each.metric is not None]
"""What is declared for each table."""
_AFTER = re.compile(r"^\| `ps_plain_bytes_total`.*\n", re.MULTILINE)
_TABLE = re.compile(r"^\| `(ps_\w+)_total` \| table \|.*\n", re.MULTILINE)


def line(metric: Declared) -> str:
    """What README says of a counter."""
    return f"| `{metric.metric}_total` | table | {metric.help} |\n"


def lines_of(readme: str) -> list[str]:
    """What README has: every line of one counter by table."""
    return [match[0] for match in _TABLE.finditer(readme)]


def written(readme: str) -> str:
    """README with the lines that are declared, and no others."""
    before = _AFTER.search(readme)
    assert before is not None, "the declared counters come after ps_plain_bytes_total"
    rest = _TABLE.sub("", readme[before.end() :])
    return readme[: before.end()] + "".join(map(line, METRICS)) + rest


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
