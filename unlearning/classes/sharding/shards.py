"""Parts of sharded training: what a deletion cost, the mean of models, numbers from hashes."""

from __future__ import annotations

__all__ = [
    "Deletion",
    "MeanOfProbabilities",
    "State",
    "hashed_number",
    "move",
    "place_samples",
    "sample_ids",
]

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from unlearning.data import Inputs, Samples
from unlearning.heads import run_model

State = dict[str, torch.Tensor]
"""Weights and buffers of a model by name."""


@dataclass(frozen=True)
class Deletion:
    """What one deletion cost.

    Attributes
    ----------
    n_deleted : int
        Samples taken out.
    shards : list of int
        Shards that were trained again.
    slices : int
        Slices that were trained again, of ``n_slices`` in each of those shards.
    passes : int
        Samples that went through a model, counted once for each epoch.
    passes_of_fit : int
        The same number for training everything anew on what is left.
    cpu_seconds : float
        CPU time of the process.

    Examples
    --------
    >>> Deletion(1, [0], slices=1, passes=20, passes_of_fit=100, cpu_seconds=0.1).cost
    0.2
    """

    n_deleted: int
    shards: list[int]
    slices: int
    passes: int
    passes_of_fit: int
    cpu_seconds: float

    @classmethod
    def costing(
        cls, first: Mapping[int, int], passes: np.ndarray, n_deleted: int, cpu_seconds: float
    ) -> Deletion:
        """Count the work of a deletion.

        Parameters
        ----------
        first : mapping of int to int
            The first slice that is trained again, of each shard concerned.
        passes : ndarray of shape (n_shards, n_slices)
            Samples that go through a model in training each slice.
        n_deleted : int
        cpu_seconds : float

        Returns
        -------
        Deletion
        """
        return cls(
            n_deleted=n_deleted,
            shards=sorted(first),
            slices=sum(passes.shape[1] - piece for piece in first.values()),
            passes=sum(int(passes[shard, piece:].sum()) for shard, piece in first.items()),
            passes_of_fit=int(passes.sum()),
            cpu_seconds=cpu_seconds,
        )

    @property
    def cost(self) -> float:
        """Share of the work of training everything anew."""
        return self.passes / max(1, self.passes_of_fit)


class MeanOfProbabilities(nn.Module):
    """Several classifiers as one: the logarithm of the mean of their probabilities.

    Parameters
    ----------
    members : sequence of torch.nn.Module
        Classifiers of the same classes.

    Examples
    --------
    >>> module = MeanOfProbabilities([nn.Linear(2, 3), nn.Linear(2, 3)])
    >>> module(torch.zeros(1, 2)).exp().sum().item() > 0.999
    True
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Give log-probabilities (n, C)."""
        inputs: Any = kwargs if kwargs else args[0]
        logs = torch.stack([run_model(m, inputs).log_softmax(dim=1) for m in self.members])
        return logs.logsumexp(dim=0) - float(np.log(len(self.members)))

    @torch.no_grad()
    def probabilities(self, samples: Samples, device: torch.device) -> torch.Tensor:
        """Go to a device, and give the probabilities (n, C) of all samples, on the CPU."""
        self.to(device)
        found = [self(move(x, device)).exp().float().cpu() for x, _ in samples.batches(256)]
        return torch.cat(found)


def sample_ids(samples: Samples) -> list[str]:
    """Name each sample by the sha256 of its input, and its label."""
    return [
        f"{line}:{label}" for line, label in zip(samples.hashes, samples.y.tolist(), strict=True)
    ]


def hashed_number(seed: int, what: str, line: str) -> int:
    """Draw a number below 2**64 from a seed, a purpose and a sample's name."""
    digest = hashlib.sha256(f"{seed}|{what}|{line}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def place_samples(
    ids: Sequence[str],
    labels: Sequence[int],
    *,
    seed: int,
    n_shards: int,
    n_slices: int,
    late: Collection[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Give every sample its shard and slice, by its own content.

    Parameters
    ----------
    ids : sequence of str
        See :func:`sample_ids`.
    labels : sequence of int
    seed, n_shards, n_slices : int
    late : collection of int
        Classes whose samples come in the last slice.

    Returns
    -------
    shard, slice : ndarray of shape (n,), int64
    """
    shard = [hashed_number(seed, "shard", line) % n_shards for line in ids]
    early = max(1, n_slices - 1) if late else n_slices
    piece = [
        n_slices - 1 if int(label) in late else hashed_number(seed, "slice", line) % early
        for line, label in zip(ids, labels, strict=True)
    ]
    return np.array(shard), np.array(piece)


def move(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs to a device."""
    if isinstance(inputs, dict):
        return {key: value.to(device) for key, value in inputs.items()}
    return inputs.to(device)
