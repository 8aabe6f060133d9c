"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file, written atomically.

The tensors are weights, buffers, optimiser moments and the random generator's state; plain values (position in the
data, best score, counters) travel as JSON in the file's metadata. No pickle, so a checkpoint cannot run code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from showtell.errors import TrainingError
from showtell.files import write_atomically

FORMAT_VERSION = 1
RandomState = dict[str, list[int]]  # device -> bytes


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    values: Mapping[str, Any],
    *,
    random_states: Sequence[RandomState] | None = None,
) -> None:
    """Writes a checkpoint over the last one, whole or not at all.

    Args:
        path: of the file.
        modules: their state dicts are saved under their names, as "model".
        optimizer: its state is saved.
        values: JSON-serialisable facts about the run.
        random_states: of all processes that share the run, by rank; by default that of this process alone.

    Raises:
        OSError: the disk is full; the last checkpoint is untouched.
    """
    tensors = {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()})
    for rank, state in enumerate(random_states or [read_random_state()]):
        for device, numbers in state.items():
            tensors[_random_key(device, rank)] = torch.tensor(numbers, dtype=torch.uint8)
    detached = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format_version": str(FORMAT_VERSION), "values": json.dumps(dict(values))}
    write_atomically(path, safetensors.torch.save(detached, metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the values of a checkpoint.

    Raises:
        TrainingError: not a checkpoint, damaged, or of a newer format.
    """
    with _open(path) as (file, values):
        return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118  # not a mapping


def read_values(path: Path) -> dict[str, Any]:
    """Returns the values of a checkpoint, without reading its tensors; raises as `read_checkpoint`."""
    with _open(path) as (_, values):
        return values


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            version = int(metadata["format_version"])
            if version <= FORMAT_VERSION:
                values: dict[str, Any] = json.loads(metadata["values"])
                yield file, values
                return
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: the checkpoint cannot be read: {error}") from None
    raise TrainingError(f"{path}: checkpoint format {version}; this Showtell reads up to {FORMAT_VERSION}.")


def restore(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    *,
    rank: int = 0,
) -> None:
    """Puts the tensors of a checkpoint back into modules, optimiser and random generator.

    Args:
        tensors: of the checkpoint.
        modules: by the names that they were saved under.
        optimizer: of these modules.
        rank: of this process; the generator of one that the run did not have before stays as it is.

    Raises:
        TrainingError: the checkpoint is of another model.
    """
    for part, module in modules.items():
        prefix = f"{part}."
        weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise TrainingError(f"The checkpoint is of another model: {error}") from None
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, tensor in moments.items():
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                # In the parameter's order in memory (channels last, say): fused steps go through both side by side.
                moments[name] = torch.empty_like(parameter).copy_(tensor)
    if (key := _random_key("cpu", rank)) in tensors:
        torch.set_rng_state(tensors[key])
    if torch.cuda.is_initialized() and (key := _random_key("cuda", rank)) in tensors:  # type: ignore[no-untyped-call]
        torch.cuda.set_rng_state(tensors[key])


def read_random_state() -> RandomState:
    """Returns the state of this process's random generators, by device."""
    state: RandomState = {"cpu": torch.get_rng_state().tolist()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # not is_available: to ask a GPU that is not used would take its memory
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return state


def _random_key(device: str, rank: int) -> str:
    return f"random.{device}.{rank}" if rank else f"random.{device}"
