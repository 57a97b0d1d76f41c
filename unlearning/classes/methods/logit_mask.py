"""The trivial baseline: take the class out of the last layer and nothing else."""

from __future__ import annotations

__all__ = ["LogitMask", "mask_head"]

from collections.abc import Sequence
from typing import Any

import torch

from conceptlab.parameters import Real, Rules
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job
from unlearning.heads import Head


class LogitMask(Unlearner):
    """Switch the outputs of the forgotten classes off.

    Nothing is forgotten: the features stay as they are. Yet it equals a
    retrained model on every accuracy, so a claim of forgetting must beat it
    on what looks inside, such as a probe or relearning.

    Parameters
    ----------
    margin : float
        How far below the retained logits the class is put. The default leaves
        a probability near 2e-9; huge margins make relearning look hard for
        no other reason than the margin.
    head : str, optional
        Name of the last layer, where it is not found.
    batch_size : int
        Samples in a batch.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        Not used; every run gives the same.

    Notes
    -----
    With an intercept the class's weights become 0 and its intercept
    ``min(0, smallest of the largest retained logits on the data) - margin``.
    Without one its weights become the mean of the retained classes' weights,
    so that its logit is never the largest.

    Examples
    --------
    >>> from torch import nn
    >>> model, X = nn.Linear(4, 3), torch.eye(4)
    >>> result = LogitMask().unlearn(model, forget=(X[:1], [0]), retain=(X[1:3], [1, 2]))
    >>> bool((result.model(X).argmax(1) == 0).any())
    False
    """

    _rules = Rules(margin=Real(above=0))

    def __init__(
        self,
        margin: float = 20.0,
        *,
        head: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        random_state: Any = None,
    ) -> None:
        self.margin = margin
        self.head = head
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def _unlearn(self, job: Job) -> dict[str, Any]:
        logits = job.predict(job.model, job.retain)
        value = mask_head(job.head, logits, job.classes, float(self.margin))
        return {"head": job.head.name, "logit": "mean of the retained" if value is None else value}


def mask_head(
    head: Head, logits: torch.Tensor, classes: Sequence[int], margin: float = 20.0
) -> float | None:
    """Change a last layer in place so that it never gives some classes.

    Parameters
    ----------
    head : Head
        The last layer.
    logits : torch.Tensor of shape (n, C)
        Its answers on retained samples.
    classes : sequence of int
        The classes.
    margin : float
        See :class:`LogitMask`.

    Returns
    -------
    float or None
        The logit that the classes have from now on; None where the layer has no intercept, so
        that it is the mean of the other logits.
    """
    gone = list(classes)
    others = [c for c in range(head.n_classes) if c not in set(gone)]
    with torch.no_grad():
        if head.bias is None:
            head.weight[gone] = head.weight[others].mean(dim=0)
            return None
        level = float(logits[:, others].amax(dim=1).min())
        head.weight[gone] = 0.0
        head.bias[gone] = min(0.0, level) - margin
        return float(head.bias[gone[0]].detach())
