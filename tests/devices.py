"""The devices of `TableConfig.device` whose rows torch holds, as parameters of tests: on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

NEEDS_CUDA = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false"),
)
DEVICES = ["torch-cpu", pytest.param("cuda", marks=NEEDS_CUDA)]
