"""The training of one slice of one shard."""

from __future__ import annotations

__all__ = ["train_slice"]

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import InputError
from conceptlab.io.trees import clone_state
from unlearning.classes.job import set_mode
from unlearning.classes.sharding.shards import State, move
from unlearning.data import Samples
from unlearning.heads import run_model


def train_slice(
    model: nn.Module,
    data: Samples,
    orders: Sequence[np.ndarray],
    *,
    batch_size: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    norm: str,
    augment: Callable[..., Any] | None,
    generator: torch.Generator,
    name: str,
) -> State:
    """Train a model by SGD on rows of the data in given orders.

    Parameters
    ----------
    model : torch.nn.Module
        On its device; changed.
    data : Samples
    orders : sequence of ndarray
        Rows of each epoch, in order.
    batch_size, lr, momentum, weight_decay, norm, augment
        As in :class:`ShardedEnsemble`.
    generator : torch.Generator
        For `augment`.
    name : str
        How the error begins: "The loss of ..., epoch 2".

    Returns
    -------
    dict of str to Tensor
        Weights and buffers on the CPU.

    Raises
    ------
    InputError
        ``CL-INPUT-NONFINITE``: a loss that is NaN or infinite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=float(lr),
        momentum=float(momentum),
        weight_decay=float(weight_decay),
    )
    for epoch, order in enumerate(orders):
        for inputs, y in data.select(order).batches(batch_size):
            moved = move(inputs, device)
            # Batch norm cannot update its statistics by one sample.
            set_mode(model, norm if len(y) > 1 else "frozen")
            if augment is not None:
                moved = move(augment(moved, generator), device)
            loss = functional.cross_entropy(run_model(model, moved), y.to(device))
            if not bool(torch.isfinite(loss.detach())):
                raise InputError(
                    f"The loss of {name}, epoch {epoch + 1}. Use a smaller lr (now {lr:g}).",
                    code="CL-INPUT-NONFINITE",
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
    return dict(clone_state(dict(model.cpu().state_dict())))
