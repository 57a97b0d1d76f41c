"""The original's answers without the class, tilted towards the classes that are like it."""

from __future__ import annotations

__all__ = ["TRW", "tilted_targets"]

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from conceptlab.parameters import Real, Rules
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.data import concat


class TRW(Unlearner):
    """Tilted reweighting: what a retrained model would say, told from the likeness of classes.

    A sample of the class c is taught ``t_j`` in proportion to ``f_j(x) exp(beta s_jc)`` over
    the retained classes j, with f the original's probabilities and s the likeness of two
    classes: the cosine of their rows in the last layer. Retained samples are taught their
    labels.

    Parameters
    ----------
    epochs : int
        Passes over all data, in mixed batches.
    lr : float
        Learning rate.
    beta : float
        How strongly likeness tilts; 0 gives the targets of :class:`SoftRelabel`.
    batch_size : int
        Samples in a batch.
    momentum, weight_decay : float
        Of SGD.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    head : str, optional
        Name of the last layer, where it is not found.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For the order of batches.

    Notes
    -----
    Written from the paper's abstract. That the answers over the retained classes are tilted
    by the likeness between classes is the paper's. Its text could not be read here, so
    that the tilt is exponential, likeness the cosine of rows, `beta` (5), and the
    weights of the two losses (1) are choices of this implementation.

    References
    ----------
    Ebrahimpour-Boroojeny, Wang and Sundaram, "On the Necessity of Output Distribution
    Reweighting for Effective Class Unlearning", 2025 (arXiv 2506.20893).

    Examples
    --------
    >>> from torch import nn
    >>> X, y = torch.eye(6), [0, 1, 2, 0, 1, 2]
    >>> method = TRW(epochs=40, lr=1.0, random_state=0)
    >>> result = method.unlearn(nn.Linear(6, 3), forget=(X[:1], y[:1]), retain=(X[1:3], y[1:3]))
    >>> result.details["mean_target"][0], bool(result.model(X[:1]).argmax() == 0)
    (0.0, False)
    """

    _rules = Rules(beta=Real(least=0))

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 0.01,
        *,
        beta: float = 5.0,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        norm: str = "frozen",
        augment: Callable[..., Any] | None = None,
        head: str | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.beta = beta
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.head = head
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        rows = job.head.weight.detach().flatten(1).float().cpu()
        logits = job.predict(job.original, job.forget).float()
        gone = tilted_targets(logits, job.forget.y, rows, job.retained, float(self.beta))
        both = concat(job.forget, job.retain)
        kept = functional.one_hot(job.retain.y, job.n_classes).to(gone)
        targets = torch.cat([gone, kept]).to(job.device)
        # The place of each sample stands in for its label, to find its target in a batch.
        numbered = both.with_labels(torch.arange(len(both)))

        def loss(batch: Any) -> torch.Tensor:
            inputs, index = batch
            said = job.logits(job.model, inputs).float()
            return functional.cross_entropy(said, targets[index])

        job.train(
            lambda _epoch: job.batches(numbered),
            loss,
            job.sgd(),
            epochs=self.epochs,
            per_epoch=job.count(numbered),
            description="tilted reweighting",
        )
        return {"mean_target": [float(v) for v in gone.mean(dim=0)]}


def tilted_targets(
    logits: torch.Tensor,
    y: torch.Tensor,
    rows: torch.Tensor,
    retained: list[int],
    beta: float,
) -> torch.Tensor:
    """Tilt answers over the retained classes towards those that are like the sample's own.

    Parameters
    ----------
    logits : torch.Tensor of shape (n, C)
        Of the original model.
    y : torch.Tensor of shape (n,)
        The samples' own classes.
    rows : torch.Tensor of shape (C, d)
        A vector for each class; their cosines are the likeness.
    retained : list of int
        Classes that are kept; the targets of all others are 0.
    beta : float
        Strength.

    Returns
    -------
    torch.Tensor of shape (n, C)
        Rows sum to 1.

    Examples
    --------
    >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> tilted_targets(torch.zeros(1, 3), torch.tensor([0]), rows, [1, 2], 0.0)
    tensor([[0.0000, 0.5000, 0.5000]])
    """
    unit = functional.normalize(rows, dim=1)
    tilted = logits + beta * (unit @ unit.T)[y]
    out = torch.ones(logits.shape[1], dtype=torch.bool)
    out[retained] = False
    return tilted.masked_fill(out, -torch.inf).softmax(dim=1)
