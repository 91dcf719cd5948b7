"""The state of what a program trains with, parted into dense tensors and the rest.

A *part* is anything with `state_dict` and `load_state_dict`. The tensors of modules and optimizers are the dense part,
which is the same on all ranks. All else belongs to one rank: numbers, extra states (such as the gradients that a
collection holds back), and everything of other parts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from ps.errors import CheckpointCorrupt, InvalidArgument
from ps.nn.embedding.training import RowTraining
from ps.runtime import global_random

_TENSOR = "<dense>"
"""The key of what stands in the rest for a tensor of the dense part."""
_EXTRA = "_extra_state"


class Part(Protocol):
    """Something whose state is saved: a module, an optimizer, a scheduler, a collection, your own class."""

    def state_dict(self) -> Any:
        """Returns the state: dicts, lists, tuples, numbers, strings and tensors."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes up a state."""


def taken(parts: Mapping[str, Part]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Returns (dense tensors by name, the rest by part). Waits for pushes on their way. Raises InvalidArgument while
    gradients of rows wait for a step, and the error of a push that failed."""
    dense: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {}
    for name, part in parts.items():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if isinstance(module, RowTraining):
                module.check_none_wait()
        state = part.state_dict()
        if isinstance(part, nn.Module):
            versions = {key: dict(value) for key, value in getattr(state, "_metadata", {}).items()}
            rest[name] = {"state": _parted(state, name, dense), "versions": versions}
        else:
            rest[name] = _parted(state, name, dense) if isinstance(part, torch.optim.Optimizer) else state
    return dense, rest


def give(parts: Mapping[str, Part], dense: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> None:
    """Gives each part its state. Raises InvalidArgument for other parts than those that were saved, and what the parts
    raise."""
    if parts.keys() != rest.keys():
        raise InvalidArgument(f"the checkpoint has the parts {sorted(rest)}, and these are {sorted(parts)}: give those")
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            state: Any = OrderedDict(_joined(rest[name]["state"], dense))
            state._metadata = rest[name]["versions"]  # where torch has it
            part.load_state_dict(state)
        else:
            part.load_state_dict(_joined(rest[name], dense))


def random_states() -> dict[str, Any]:
    """Returns the states of the random generators of torch, numpy and Python."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "others": global_random.states()}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Sets the random generators to saved states."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    global_random.set_states(states["others"])


def _parted(tree: Any, path: str, dense: dict[str, torch.Tensor]) -> Any:
    """Returns the tree with a name in the place of each tensor, and puts the tensors into `dense`."""
    if isinstance(tree, torch.Tensor):
        while path in dense:  # keys that differ in their type only
            path += "'"
        dense[path] = tree.detach()
        return {_TENSOR: path}
    if isinstance(tree, Mapping):
        kept = {key: value for key, value in tree.items() if str(key).split(".")[-1] == _EXTRA}
        return {key: value if key in kept else _parted(value, f"{path}.{key}", dense) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_parted(value, f"{path}.{number}", dense) for number, value in enumerate(tree))
    return tree


def _joined(tree: Any, dense: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, Mapping):
        if tree.keys() == {_TENSOR}:
            if tree[_TENSOR] not in dense:
                raise CheckpointCorrupt(f"the tensor {tree[_TENSOR]!r} is missing in the dense part")
            return dense[tree[_TENSOR]]
        return {key: _joined(value, dense) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_joined(value, dense) for value in tree)
    return tree
