"""One run shared by several processes, as `torchrun --nproc-per-node N -m showtell train ...` starts them.

Every process holds the whole model and works on its part of each batch; the gradients are added up, and then all
make the same step. `training.batch_size` is that of the whole batch, so the number of processes changes nothing but
rounding and what random numbers dropout draws. The first process alone writes and prints.

Gradients are added with plain all-reduces and not by DistributedDataParallel, which averages over processes: the loss
is the mean over the tokens of the whole batch, and a process has more or fewer of them than another. Nor is all of the
computation one call of one module's `forward`, which that class watches (sampling, scheduled sampling).

Small facts (what is to be stopped, counts, scores) travel through gloo, also where gradients go through NCCL, so that
nobody waits for a GPU for them, and the end of a process is noticed at once.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from showtell import errors
from showtell.errors import ShowtellError, TrainingError
from showtell.launch import Launch, read_launch
from showtell.training.batches import BatchPart, EncodedCaption, share_batch
from showtell.training.joint_norms import JointBatchNorms
from showtell.training.teacher_forcing import StepLoss

T = TypeVar("T")
_runs = itertools.count()  # of this process
# Others may wait as long while the first one computes features. A process that ends is noticed by its connections.
_PATIENCE = datetime.timedelta(days=7)
_ENDED = (
    "Another process of this run has ended, and none can go on without it. Its own message, or torchrun's, says why. "
    "The last checkpoint is whole: go on with the same command and --resume."
)


class Processes:
    """A process on its own: everything is its part, and there is nobody to ask.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share_batch(self, captions: Sequence[EncodedCaption]) -> BatchPart:
        """Returns the part of a batch that this process works on."""
        return share_batch(captions, rank=self.rank, size=self.size)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Returns the part of a sequence that is this process's."""
        return items[self.rank :: self.size] if self.size > 1 else items

    def seed(self, seed: int) -> int:
        """Returns the seed of this process's random numbers; the first one's is that of the run."""
        if not self.rank:
            return seed
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0] >> 1)

    def gather(self, value: Any) -> list[Any]:
        """Returns the JSON value of every process, by rank."""
        return [value]

    def any(self, *flags: bool) -> list[bool]:
        """Returns for each flag whether it is set in any process."""
        return list(flags)

    def first(self, work: Callable[[], T]) -> T:
        """Returns what `work` gives in the first process, a JSON value; the others wait, and do not call it.

        Raises:
            ShowtellError: the first one's, in all processes.
        """
        return work()

    def first_before_others(self) -> AbstractContextManager[None]:
        """Lets the others begin the body when the first process is through it; its ShowtellError is raised in all."""
        return nullcontext()

    def check_same(self, facts: Mapping[str, str], what: str) -> None:
        """Raises TrainingError in all processes if one of them has other facts than the first."""

    def align(self, modules: Mapping[str, nn.Module]) -> None:
        """Gives all processes the first one's weights and buffers."""

    def weigh(self, found: StepLoss, *, counts: bool) -> StepLoss:
        """Returns the loss so scaled that its gradients add up to those of the whole batch, and the whole's numbers.

        Args:
            found: of this process's part.
            counts: whether that part counts.
        """
        return found

    def add_gradients(self, model: nn.Module) -> None:
        """Adds up the gradients of all processes."""

    def join_batch_norms(self, model: nn.Module, *, counts: bool) -> AbstractContextManager[object]:
        """Lets batch norms in training mode see the whole batch, for the passes forwards and backwards."""
        return nullcontext()


class _JoinedProcesses(Processes):
    """This process among several."""

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size = launch.rank, launch.size

    def gather(self, value: Any) -> list[Any]:
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _losses_explained():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(own)]))
            longest = int(max(lengths))
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, nn.functional.pad(own, (0, longest - len(own))))
        return [json.loads(bytes(text[: int(n)].tolist())) for text, n in zip(texts, lengths, strict=True)]

    def any(self, *flags: bool) -> list[bool]:
        return [count > 0 for count in self._add(flags)]

    def first(self, work: Callable[[], T]) -> T:
        result: list[T] = []
        with self.first_before_others():
            if self.is_first:
                result.append(work())
        value: T = self.gather(result[0] if result else None)[0]
        return value

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        failure: ShowtellError | None = None
        if self.is_first:
            try:
                yield
            except ShowtellError as error:
                failure = error
        found = self.gather([type(failure).__name__, str(failure)] if failure else None)[0]
        if failure is not None:
            raise failure
        if found is not None:
            kind = getattr(errors, found[0])
            raise kind.__new__(
                kind, found[1]
            )  # without __init__, which may take something else than the message
        if not self.is_first:
            yield

    def check_same(self, facts: Mapping[str, str], what: str) -> None:
        gathered = self.gather(dict(facts))
        for rank, others in enumerate(gathered):
            different = [
                name for name in {**gathered[0], **others} if gathered[0].get(name) != others.get(name)
            ]
            if different:
                raise TrainingError(
                    f"Process {rank} has {what} than process 0. Different: {', '.join(different)}. All machines of "
                    "a run must see the same files."
                )

    def align(self, modules: Mapping[str, nn.Module]) -> None:
        with _losses_explained():
            for module in modules.values():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def weigh(self, found: StepLoss, *, counts: bool) -> StepLoss:
        own = [counts * number for number in (found.counted, found.captions, found.unscaled)]
        counted, captions, unscaled = self._add(own)
        weight = own[2] / unscaled if unscaled else float(counts)
        shown = found.shown * (own[0] / counted)
        with _losses_explained():
            dist.all_reduce(shown)
        return replace(found, loss=found.loss * weight, shown=shown, counted=counted, captions=captions)

    def add_gradients(self, model: nn.Module) -> None:
        # Who has no gradient here has none anywhere: all processes compute the same, on other captions.
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _losses_explained():
            dist.all_reduce(together)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def join_batch_norms(self, model: nn.Module, *, counts: bool) -> AbstractContextManager[object]:
        if not any(isinstance(module, _BatchNorm) for module in model.modules()):
            return nullcontext()  # the mode costs a little at every operation
        return JointBatchNorms(_add_in_place, counts=counts)

    def _add(self, numbers: Sequence[int]) -> list[int]:
        sums = torch.tensor(numbers, dtype=torch.int64)
        with _losses_explained():
            dist.all_reduce(sums)
        return [int(number) for number in sums]


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """Gives the processes that torchrun started together with this one, or this one alone where it did not.

    Args:
        device: where this process computes.

    Raises:
        TrainingError: another process has ended.
    """
    launch = read_launch()
    if launch.size == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _losses_explained():
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
            # Apart from the run before in the same processes, whose addresses torchrun still keeps.
            store=dist.PrefixStore(f"showtell/run-{next(_runs)}", store),  # type: ignore[attr-defined]  # not in its __all__
            rank=rank,
            world_size=size,
            timeout=_PATIENCE,
        )
    try:
        yield _JoinedProcesses(launch)
    finally:
        dist.destroy_process_group()


def is_first_to_say(message: str) -> bool:
    """Returns whether no other process of the run has said this yet: all of them make the same mistake."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = hashlib.sha256(f"{attempt} {message}".encode("utf-8", "surrogatepass")).hexdigest()
    try:
        store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=5)))
        return bool(store.add(f"showtell/said/{key}", 1) == 1)
    except (RuntimeError, OSError, ValueError):
        return True  # torchrun has ended: better twice than never


def _add_in_place(tensor: Tensor) -> None:
    with _losses_explained():
        dist.all_reduce(tensor)


@contextmanager
def _losses_explained() -> Iterator[None]:
    """Turns what a broken connection raises into an error that people understand."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(_ENDED) from error
