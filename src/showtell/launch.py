"""Whether this process is one of several that `torchrun` started, and which."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that share one run."""

    rank: int = 0  # among all, over all machines
    size: int = 1  # processes in all
    local_rank: int = 0  # among those on this machine

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Returns what torchrun says of this process in its environment; a process on its own without torchrun.

    Args:
        environment: by default that of this process.
    """
    environment = os.environ if environment is None else environment
    # RANK alone is also what job schedulers set, around a process that works alone.
    if "TORCHELASTIC_RUN_ID" not in environment:
        return Launch()
    return Launch(
        rank=int(environment["RANK"]),
        size=int(environment["WORLD_SIZE"]),
        local_rank=int(environment["LOCAL_RANK"]),
    )
