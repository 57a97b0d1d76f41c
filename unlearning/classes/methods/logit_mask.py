"""The trivial baseline: take the class out of the last layer and nothing else."""

from __future__ import annotations

__all__ = ["LogitMask"]

from typing import Any

import torch

from conceptlab.parameters import Real, Rules
from unlearning.classes.base import Unlearner
from unlearning.classes.job import Job


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
        head = job.head
        others = [c for c in range(job.n_classes) if c not in set(job.classes)]
        level = float(job.predict(job.model, job.retain)[:, others].amax(dim=1).min())
        bias = head.bias
        with torch.no_grad():
            if bias is None:
                head.weight[job.classes] = head.weight[others].mean(dim=0)
                return {"head": head.name, "logit": "mean of the retained"}
            head.weight[job.classes] = 0.0
            bias[job.classes] = min(0.0, level) - float(self.margin)
        return {"head": head.name, "logit": float(bias[job.classes[0]].detach())}
