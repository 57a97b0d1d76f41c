"""The training of ConceptPoisoning: terms of the loss, the released form, rounds, pace."""

from __future__ import annotations

__all__ = ["train_on"]

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from unlearning.classes.concepts import labels as label_rules
from unlearning.classes.concepts.retained_head import Readings
from unlearning.classes.concepts.stop_rule import StopRule
from unlearning.classes.job import Job
from unlearning.data import Samples, concat, join_inputs
from unlearning.heads import features_and_logits

if TYPE_CHECKING:
    from unlearning.classes.methods.concept_poisoning import ConceptPoisoning

_ROUNDS = 3  # of training, while held-out samples are not forgotten


def train_on(
    method: ConceptPoisoning,
    job: Job,
    retain: Readings,
    targets: torch.Tensor,
    poisoned: Samples,
) -> None:
    """Train the job's model as a method says.

    Parameters
    ----------
    method : ConceptPoisoning
        Its parameters count.
    job : Job
        The run.
    retain : Readings
        Of the original, on the samples that stay.
    targets : torch.Tensor of shape (n_forget, C)
        Probabilities that the samples to forget are to get.
    poisoned : Samples
        They, after poisoning, in the same order.
    """
    rule = StopRule(job, targets, method.holdout) if method.stop else None
    kept, gone = (
        (rule.train_retain, rule.train_forget)
        if rule is not None
        else (torch.arange(len(job.retain)), torch.arange(len(job.forget)))
    )
    # Places stand in for labels, to find teachers and targets in a batch.
    numbered = job.retain.with_labels(torch.arange(len(job.retain))).select(kept)
    hidden = poisoned.with_labels(torch.arange(len(poisoned))).select(gone)
    if method.forget_weight == "joint":
        _train_joint(method, job, numbered, hidden, targets, rule)
        return
    y = job.retain.y.to(job.device)
    teacher = label_rules.soft_probabilities(retain.logits, job.retained).to(job.device)
    wanted = targets.to(job.device)
    means = torch.zeros(job.n_classes, retain.features.shape[1])
    for label in job.retained:
        means[label] = retain.features[job.retain.y == label].mean(dim=0)
    places = (targets @ means).to(job.device)
    spread = float(retain.features.var(dim=0, correction=0).sum())
    weight, head = float(method.forget_weight), job.head.name
    per_epoch = job.count(numbered)
    size = max(method.batch_size // 8, -(-len(hidden) // per_epoch))

    def batches() -> Iterator[Any]:
        return zip(job.batches(numbered), job.cycle(hidden, size), strict=False)

    def loss(batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        (kept_inputs, i), (gone_inputs, j) = batch
        features, logits = features_and_logits(
            job.model, join_inputs(kept_inputs, gone_inputs), head
        )
        n = len(i)
        log_p = logits.float().log_softmax(dim=1)
        parts = {"retain": functional.nll_loss(log_p[:n], y[i])}
        if method.distil:
            divergence = functional.kl_div(log_p[:n], teacher[i], reduction="batchmean")
            parts["distil"] = method.distil * divergence
        parts["forget"] = -weight * (wanted[j] * log_p[n:]).sum(dim=1).mean()
        if method.beta and spread > 0:
            away = (features[n:].float() - places[j]).square().sum(dim=1).mean()
            parts["pull"] = method.beta * away / spread
        return torch.stack(list(parts.values())).sum(), {
            k: float(v.detach()) for k, v in parts.items()
        }

    _run(method, job, batches, loss, per_epoch, rule)


def _train_joint(
    method: ConceptPoisoning,
    job: Job,
    retain: Samples,
    forget: Samples,
    targets: torch.Tensor,
    rule: StopRule | None,
) -> None:
    """Train on one mixed set, as the released code does."""
    n = len(job.retain)
    both = concat(retain, forget.with_labels(forget.y + n))
    own = label_rules.hard_targets(job.retain.y, job.n_classes)
    wanted = torch.cat([own, targets]).to(job.device)

    def loss(batch: Any) -> torch.Tensor:
        inputs, index = batch
        return functional.cross_entropy(job.logits(job.model, inputs).float(), wanted[index])

    _run(method, job, lambda: job.batches(both), loss, job.count(both), rule)


def _run(
    method: ConceptPoisoning,
    job: Job,
    batches: Callable[[], Iterator[Any]],
    loss: Callable[[Any], Any],
    per_epoch: int,
    rule: StopRule | None,
) -> None:
    """Train in rounds: one, or up to three until held-out samples are forgotten."""

    def one_round(optimizer: torch.optim.Optimizer) -> bool:
        def paced(epoch: int) -> Iterator[Any]:
            for step, batch in enumerate(batches()):
                _set_rate(method, optimizer, epoch * per_epoch + step, per_epoch * method.epochs)
                yield batch

        return job.train(
            paced,
            loss,
            optimizer,
            epochs=method.epochs,
            per_epoch=per_epoch,
            description="concept poisoning",
            after_epoch=None if rule is None else rule.after_epoch,
        )

    for _ in range(_ROUNDS):
        ended = one_round(job.adam() if method.optimizer == "adam" else job.sgd())
        if not ended or rule is None or rule.forgotten:
            break
    if rule is not None:
        rule.finish()


def _set_rate(
    method: ConceptPoisoning, optimizer: torch.optim.Optimizer, step: int, steps: int
) -> None:
    rate = float(method.lr)
    if method.schedule == "cosine":
        at = (step + 0.5) / max(steps, 1)
        rate *= min(1.0, at / 0.1) * 0.5 * (1 + math.cos(math.pi * at))
    for group in optimizer.param_groups:
        group["lr"] = rate
