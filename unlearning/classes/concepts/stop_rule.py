"""When to stop: held-out samples say whether the class is forgotten and the rest kept."""

from __future__ import annotations

__all__ = ["StopRule"]

from typing import Any

import torch

from unlearning.classes.job import Job
from unlearning.data import Samples

LEFT = 0.01
"""Share of held-out samples of the class that may still be told right."""


class StopRule:
    """Looks at held-out samples after each epoch, and keeps the best one's weights.

    An epoch counts as forgetting when at most 1 % of held-out samples of the
    forgotten classes are still told right. Of those the one
    with the least held-out loss (cross-entropy to labels on retained samples,
    to the new labels on forgotten ones) is kept. Training ends when this loss
    rose in two epochs one after the other.

    Parameters
    ----------
    job : Job
        The run. Its ``valid`` is looked at where it is given; else a share of
        the training samples is held out from training.
    targets : torch.Tensor of shape (n_forget, C)
        New labels of the samples to forget.
    holdout : float
        The share; 0 looks at the training samples themselves.
    """

    def __init__(self, job: Job, targets: torch.Tensor, holdout: float) -> None:
        self.job = job
        n_retain, n_forget = len(job.retain), len(job.forget)
        self.train_retain, held_retain = _divide(n_retain, holdout, job)
        self.train_forget, held_forget = _divide(n_forget, holdout, job)
        if job.valid is not None:
            self.train_retain, self.train_forget = torch.arange(n_retain), torch.arange(n_forget)
            gone = torch.isin(job.valid.y, torch.tensor(job.classes))
            kept = torch.isin(job.valid.y, torch.tensor(job.retained))
            self.retain: Samples = job.valid.select(kept)
            self.forget: Samples = job.valid.select(gone)
            # There are no new labels for these; what counts is the class's own probability.
            self.targets: torch.Tensor | None = None
        else:
            self.retain = job.retain.select(held_retain)
            self.forget = job.forget.select(held_forget)
            self.targets = targets[held_forget]

    def look(self, row: dict[str, Any]) -> str | None:
        """Look, remember, and give a reason to stop or None."""
        job = self.job
        accuracy, loss = 0.0, 0.0
        if len(self.forget):
            logits = job.predict(job.model, self.forget).float()
            accuracy = float((logits.argmax(dim=1) == self.forget.y).float().mean())
            if self.targets is not None:
                loss -= float((self.targets * logits.log_softmax(dim=1)).sum(dim=1).mean())
            else:
                own = logits.softmax(dim=1)[:, job.classes].sum(dim=1)
                loss += float(own.mean())
        if len(self.retain):
            logits = job.predict(job.model, self.retain).float()
            loss += float(torch.nn.functional.cross_entropy(logits, self.retain.y))
        forgotten = accuracy <= LEFT
        row.update(held_out_forget_accuracy=accuracy, held_out_loss=loss)
        memory = job.memory
        rank = [0 if forgotten else 1, loss if forgotten else accuracy]
        if "best" not in memory or rank < memory["rank"]:
            memory.update(best=job.snapshot(), rank=rank, best_epoch=row["epoch"])
        rose = memory.get("rose", 0) + 1 if loss > memory.get("last", float("inf")) else 0
        memory.update(rose=rose, last=loss)
        if rose >= 2 and memory["rank"][0] == 0:
            return f"held-out loss rose twice; epoch {memory['best_epoch']} is kept"
        return None

    @property
    def forgotten(self) -> bool:
        """Whether the class was forgotten at the best epoch so far."""
        return bool(self.job.memory.get("rank", [1])[0] == 0)

    def finish(self) -> None:
        """Put the best epoch's weights back, and warn where the class was never forgotten."""
        memory = self.job.memory
        if "best" not in memory:
            return
        if self.job.stopped != "nan: rewound":
            self.job.restore(memory["best"])
        if not self.forgotten and not self.job.stopped.startswith("max_"):
            self.job.warnings.append(
                f"The class is not forgotten: held-out accuracy on it is {memory['rank'][1]:.1%} "
                f"after {self.job.steps} steps. Raise epochs or lr."
            )


def _divide(n: int, share: float, job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(n, generator=job.generator)
    held = round(share * n)
    if held < 1 or n - held < 2:
        return order.sort().values, order.sort().values
    return order[held:].sort().values, order[:held].sort().values
