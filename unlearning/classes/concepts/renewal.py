"""Weights partly drawn anew, and taught again on what is kept: forgetting that reaches depth."""

from __future__ import annotations

__all__ = ["SHARE", "mix_with_new", "reason_against", "renew"]

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from conceptlab.training.schedules import one_cycle
from unlearning.classes.concepts.labels import soft_probabilities
from unlearning.classes.distillation import random_teacher
from unlearning.classes.job import Job, set_mode
from unlearning.data import Samples

SHARE = 0.8
"""Share of new weights, where nothing else is asked for."""
PER_CLASS = 40
"""Retained samples of a class below which they cannot teach a network again."""
WEIGHTS_PER_SAMPLE = 100
"""Trained weights for each retained sample above which they cannot either."""
LOST = 0.06
"""How far held-out accuracy may lie below the original's own, which was trained on them."""
_EPOCHS, _STEPS, _BATCH, _RATE, _ROUNDS, _MATCH = 5, 120, 32, 0.015, 2, 10.0
_KNOWN = 0.01


def reason_against(job: Job) -> str:
    """Say beforehand why the retained samples cannot teach the network again, or nothing.

    Parameters
    ----------
    job : Job
        The run.

    Returns
    -------
    str
        Empty where they can: they are as many as small networks are trained on from scratch.
    """
    counts = torch.bincount(job.retain.y)[job.retained]
    weights = sum(p.numel() for p in job.trainable())
    if isinstance(job.forget.inputs, dict) and "input_ids" in job.forget.inputs:
        return "classifiers of texts mostly know more than their documents taught"
    if any(not p.requires_grad for p in job.model.parameters()):
        return "parts of the network are frozen"
    if int(counts.min()) < PER_CLASS:
        return f"a retained class has only {int(counts.min())} samples"
    if weights > WEIGHTS_PER_SAMPLE * len(job.retain):
        return f"{len(job.retain)} retained samples are few for {weights} weights"
    limit = job.settings.get("max_steps")
    if limit is not None and limit < _epochs(len(job.retain)) * -(-len(job.retain) // _BATCH):
        return f"max_steps={limit} is too few"
    return ""


def mix_with_new(model: nn.Module, share: float, seed: int) -> None:
    """Put ``(1 - share) w + share w'`` in the place of every weight, w' drawn as for training.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    share : float
        In [0, 1].
    seed : int
        Of the new weights.

    Examples
    --------
    >>> net = nn.Linear(3, 2)
    >>> before = net.weight.detach().clone()
    >>> mix_with_new(net, 0.0, 0)
    >>> torch.equal(net.weight, before)
    True
    """
    new = random_teacher(model, seed)
    with torch.no_grad():
        for own, other in zip(model.parameters(), new.parameters(), strict=True):
            if own.requires_grad and own.is_floating_point():
                own.lerp_(other.to(own), share)


def renew(job: Job, logits: torch.Tensor, share: float, holdout: float) -> bool:
    """Draw a share of the weights anew, and teach the network again on retained samples alone.

    It learns labels and the original's answers without the class: cross-entropy, divergence,
    and squared differences of retained logits about their mean, in units of their
    variance. Running statistics of normalisation layers are taken anew at the end. Held-out
    retained samples say whether it knows again what it knew; if not after two rounds, all
    weights are the original's again.

    Parameters
    ----------
    job : Job
        The run.
    logits : torch.Tensor of shape (n, C)
        The original's, on retained samples.
    share : float
        Of new weights, above 0.
    holdout : float
        Share of the retained samples held out; those of ``job.valid`` where there are some.

    Returns
    -------
    bool
        Whether it did, and the class is no longer told. Otherwise the original stands there.

    References
    ----------
    Lee et al., "Distillation Robustifies Unlearning", 2025 (arXiv 2506.06278), which mixes
    weights with noise and distils; Ash and Adams, "On Warm-Starting Neural Network Training",
    2020, which shrinks and perturbs.
    """
    order = torch.randperm(len(job.retain), generator=job.generator)
    n_held = 0 if job.valid is not None else round(holdout * len(order))
    train = order[n_held:].sort().values
    held = job.retain.select(order[:n_held].sort().values)
    if job.valid is not None:
        held = job.valid.select(torch.isin(job.valid.y, torch.tensor(job.retained)))
    if not len(held):
        held = job.retain
    known = job.accuracy(job.original, held)
    numbered = job.retain.with_labels(torch.arange(len(job.retain))).select(train)
    y = job.retain.y.to(job.device)
    teacher = soft_probabilities(logits, job.retained).to(job.device)
    wanted = _centred(logits, job.retained).to(job.device)
    size = wanted.square().mean().clamp_min(1e-12)

    def batches(_epoch: int) -> Iterator[Any]:
        return job.batches(numbered, _BATCH)

    def loss(batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        inputs, i = batch
        said = job.logits(job.model, inputs).float()
        log_p = said.log_softmax(dim=1)
        parts = {
            "retain": functional.nll_loss(log_p, y[i]),
            "distil": functional.kl_div(log_p, teacher[i], reduction="batchmean"),
            "match": _MATCH * (_centred(said, job.retained) - wanted[i]).square().mean() / size,
        }
        return torch.stack(list(parts.values())).sum(), {
            k: float(v.detach()) for k, v in parts.items()
        }

    epochs = _epochs(len(numbered))

    def look(row: dict[str, Any]) -> None:
        if row["epoch"] == epochs:
            _read_statistics(job, numbered)
            right = job.accuracy(job.model, held)
            left = job.accuracy(job.model, job.forget)
            row["held_out_accuracy"] = right
            job.memory["renewed"] = right >= known - LOST and left <= _KNOWN

    mix_with_new(job.model, share, job.seed)
    for _ in range(_ROUNDS):
        optimizer = torch.optim.Adam(job.trainable(), lr=_RATE)
        ended = job.train(
            batches,
            loss,
            optimizer,
            epochs=epochs,
            per_epoch=job.count(numbered, _BATCH),
            description="renew",
            schedule=_rate,
            look=look,
            norm="update",
        )
        if not ended or job.memory.get("renewed"):
            return True
    job.restore(dict(job.original.state_dict()))
    return False


def _epochs(n: int) -> int:
    return max(_EPOCHS, -(-_STEPS // -(-n // _BATCH)))


def _rate(step: int, steps: int) -> float:
    return one_cycle(step, steps, warm=0.25)


def _centred(logits: torch.Tensor, retained: list[int]) -> torch.Tensor:
    kept = logits[:, retained].float()
    return kept - kept.mean(dim=1, keepdim=True)


def _read_statistics(job: Job, samples: Samples) -> None:
    """Take running means and variances anew, of one pass over samples."""
    norms = [
        m
        for m in job.model.modules()
        if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
    ]
    if not norms:
        return
    pace = [m.momentum for m in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
    job.model.eval()
    for module in norms:
        module.train()
    try:
        with torch.no_grad():
            for inputs, _ in samples.batches(256):
                job.logits(job.model, inputs)
    finally:
        for module, momentum in zip(norms, pace, strict=True):
            module.momentum = momentum
        set_mode(job.model, "update")
