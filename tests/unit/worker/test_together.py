"""Ranks make a checkpoint together: each has its own state in it, and what fails on one fails on all."""

from __future__ import annotations

from pathlib import Path

import pytest
import together_programs

from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from worker.train.ranks import run_ranks


@pytest.mark.slow
def test_ranks_save_and_load_together_and_fail_together(tmp_path: Path) -> None:
    with LoopbackCluster(2, QUIET) as one, LoopbackCluster(2, QUIET) as other:
        found = run_ranks(2, together_programs.saved_and_loaded, [one.address, other.address], tmp_path)
    assert [rank["raised"] for rank in found] == ["13 is not saved"] * 2
    assert [rank["steps"] for rank in found] == [[1], [1]]
    assert [rank["step"] for rank in found] == [3, 3]
    assert [rank["counter"] for rank in found] == [5, 15]
    assert found[0]["made"].service_name == found[1]["made"].service_name
    assert {path.name for path in (tmp_path / "step-000000000003").glob("rank-*")} == {"rank-0.pt", "rank-1.pt"}
