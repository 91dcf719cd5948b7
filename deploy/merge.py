"""python deploy/merge.py BASE.yaml OVERRIDE.yaml ... > RESULT.yaml

Mappings are merged, null takes a key away, everything else takes the place of what was there (RFC 7386, JSON Merge
Patch). Comments are not kept.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import yaml


def merge(base: Any, override: Any) -> Any:
    """Returns `base` as changed by `override`; neither is changed itself."""
    if not isinstance(override, dict):
        return override
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in override.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(
        yaml.safe_dump(
            functools.reduce(merge, (yaml.safe_load(Path(p).read_text(encoding="utf-8")) for p in sys.argv[1:])),
            sort_keys=False,
        )
    )
