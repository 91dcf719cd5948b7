"""The dense part in files: the tensors of modules and optimizers, by `torch.distributed.checkpoint`.

Torch alone reads them too: `torch.distributed.checkpoint.format_utils` has `dcp_to_torch_save`. Names are PART.KEY,
with the keys of the part's `state_dict`, as in `model.bottom.0.weight` and `optimizer.state.0.sum`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ps.errors import CheckpointCorrupt, DiskError, PsError


def write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors into a new folder. The files are durable then, the folder's own names are not yet. Raises
    DiskError."""
    with _alone("written", DiskError, folder):
        save(dict(tensors), storage_writer=FileSystemWriter(folder), no_dist=True)


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors in a folder, in memory of the CPU. Raises CheckpointCorrupt."""
    with _alone("read", CheckpointCorrupt, folder):
        reader = FileSystemReader(folder)
        found = reader.read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(kind.size, dtype=kind.properties.dtype)
            for name, kind in found.items()
            if isinstance(kind, TensorStorageMetadata)
        }
        load(dict(tensors), storage_reader=reader, no_dist=True)
    return tensors


@contextmanager
def _alone(done: str, wrong: type[PsError], folder: Path) -> Iterator[None]:
    """Lets torch work without a group of processes, of which it warns: all ranks have the same tensors. Its errors,
    which are of many kinds, become one."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*single process.*")
            yield
    except CheckpointException as error:  # no Exception, and its words are those of a traceback
        (cause, _), *_ = error.failures.values()
        raise wrong(f"{folder} cannot be {done}: {cause}") from error
    except Exception as error:
        raise wrong(f"{folder} cannot be {done}: {error}") from error
