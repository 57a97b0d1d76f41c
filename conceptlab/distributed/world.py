"""The processes of a job, and the few ways in which they speak to each other."""

from __future__ import annotations

__all__ = ["ALONE", "World", "init"]

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from conceptlab.errors import DistributedError, InputError
from conceptlab.parameters import Real

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that compute together; made by :func:`init`.

    Every method is a meeting point: all ranks must call it, in the same order. Each gives the
    same bits on all of them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.
    device : torch.device
        Where this process computes.
    timeout : float
        Seconds that a rank waits for the others.

    Examples
    --------
    >>> world = init()  # not launched by torchrun: a world of one
    >>> world.size, world.is_main
    (1, True)
    >>> world.share(10)
    range(0, 10)
    >>> world.sum(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timeout: float = 60.0

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that should write results."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Tell which of some things are this rank's.

        Parameters
        ----------
        n : int
            How many there are.

        Returns
        -------
        range
            Blocks in the order of the ranks, whose lengths differ by one at most.
        """
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, part: torch.Tensor) -> torch.Tensor:
        """Add up a tensor of the same shape over the ranks.

        Parameters
        ----------
        part : torch.Tensor
            This rank's; not changed.

        Returns
        -------
        torch.Tensor
        """
        if self.size == 1:
            return part
        whole = part.detach().contiguous().clone()
        with self._meeting("sum"):
            dist.all_reduce(whole)
        return whole

    def broadcast(self, value: torch.Tensor, source: int = 0) -> torch.Tensor:
        """Give every rank the tensor of one.

        Parameters
        ----------
        value : torch.Tensor
            On the other ranks one of the same shape and dtype.
        source : int
            The rank that has it.

        Returns
        -------
        torch.Tensor
        """
        if self.size == 1:
            return value
        copy = value.detach().contiguous().clone()
        with self._meeting("broadcast"):
            dist.broadcast(copy, source)
        return copy

    def gather(self, value: T) -> list[T]:
        """Collect what every rank has.

        Parameters
        ----------
        value : object
            Something small: numbers, texts, lists of these.

        Returns
        -------
        list
            In the order of the ranks.
        """
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        with self._meeting("gather"):
            dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def largest(self, value: float) -> int:
        """Tell which rank has the largest value.

        Parameters
        ----------
        value : float
            This rank's.

        Returns
        -------
        int
            The first rank of equal ones.
        """
        values = self.gather(float(value))
        return max(range(self.size), key=lambda rank: (values[rank], -rank))

    def agree(self, what: str, value: T) -> T:
        """Refuse, on all ranks, where they do not hold the same small value.

        Parameters
        ----------
        what : str
            Its name, for the message.
        value : object
            This rank's.

        Returns
        -------
        object
            The value.

        Raises
        ------
        InputError
            ``CL-INPUT-OPTION``; the message names the ranks.
        """
        values = self.gather(value)
        odd = [rank for rank, other in enumerate(values) if other != values[0]]
        if odd:
            raise InputError(
                f"{what} must be the same on all ranks: rank 0 has {values[0]!r}, rank {odd[0]} "
                f"has {values[odd[0]]!r}. Start all ranks with the same settings and data.",
                code="CL-INPUT-OPTION",
            )
        return value

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            with self._meeting("barrier"):
                dist.barrier()

    @contextmanager
    def _meeting(self, what: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise DistributedError(
                f"Rank {self.rank} of {self.size} lost another one in {what!r}: it ended, or did "
                f"not come within {self.timeout:g} s. Its own message is the cause; what was "
                "written so far is kept, and the same command goes on from there."
            ) from error


ALONE = World()
"""A world of one."""


def init(*, backend: str | None = None, timeout: float = 60.0) -> World:
    """Join the processes that ``torchrun`` launched, or give a world of one.

    Parameters
    ----------
    backend : str, optional
        Of ``torch.distributed``; by default NCCL for tensors on a GPU and gloo for others.
    timeout : float, default=60.0
        Seconds after which a rank that waits for another one ends with an error.

    Returns
    -------
    World

    Raises
    ------
    InputError
        ``CL-INPUT-DEVICE`` where one rank has a GPU and another has not.
    DistributedError
        Where the others cannot be reached.

    Examples
    --------
    >>> init().size
    1
    """
    Real(above=0).check("timeout", timeout)
    if not dist.is_available() or not (dist.is_initialized() or _launched()):
        return World(timeout=timeout)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available() and local < torch.cuda.device_count()
    if not dist.is_initialized():
        if gpu:
            torch.cuda.set_device(local)
        try:
            dist.init_process_group(
                backend or ("cpu:gloo,cuda:nccl" if gpu else "gloo"),
                timeout=timedelta(seconds=timeout),
            )
        except (RuntimeError, ValueError) as error:
            raise DistributedError(
                f"The other ranks cannot be reached: {error}. Launch with: torchrun "
                "--nproc-per-node N SCRIPT"
            ) from error
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    world = World(dist.get_rank(), dist.get_world_size(), device, timeout)
    kinds = world.gather(device.type)
    if len(set(kinds)) > 1:
        bare = kinds.index("cpu")
        raise InputError(
            f"Rank {bare} has no GPU of its own and rank {kinds.index('cuda')} has. Start as many "
            "processes as there are GPUs, or hide them all with CUDA_VISIBLE_DEVICES=''.",
            code="CL-INPUT-DEVICE",
        )
    return world


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
