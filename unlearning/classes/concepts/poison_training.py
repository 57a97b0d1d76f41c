"""The training of ConceptPoisoning: terms of the loss, the released form, rounds, pace."""

from __future__ import annotations

__all__ = ["train_on"]

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from conceptlab.training.schedules import cosine_warm
from unlearning.classes.concepts import labels as label_rules
from unlearning.classes.concepts.recipe import Recipe
from unlearning.classes.concepts.retained_head import Readings
from unlearning.classes.concepts.stop_rule import StopRule
from unlearning.classes.job import Job
from unlearning.data import Samples, concat, join_inputs
from unlearning.heads import features_and_logits

_ROUNDS = 3  # of training, while held-out samples are not forgotten


def train_on(
    recipe: Recipe,
    job: Job,
    retain: Readings,
    targets: torch.Tensor,
    poisoned: Samples,
) -> None:
    """Train the job's model as a recipe says.

    Parameters
    ----------
    recipe : Recipe
        How.
    job : Job
        The run.
    retain : Readings
        Of the original, on the samples that stay.
    targets : torch.Tensor of shape (n_forget, C)
        Probabilities that the samples to forget are to get.
    poisoned : Samples
        They, after poisoning, in the same order.
    """
    rule = StopRule(job, targets, recipe.holdout) if recipe.stop else None
    kept, gone = (
        (rule.train_retain, rule.train_forget)
        if rule is not None
        else (torch.arange(len(job.retain)), torch.arange(len(job.forget)))
    )
    # Places stand in for labels, to find teachers and targets in a batch.
    numbered = job.retain.with_labels(torch.arange(len(job.retain))).select(kept)
    hidden = poisoned.with_labels(torch.arange(len(poisoned))).select(gone)
    if recipe.forget_weight == "joint":
        _train_joint(recipe, job, numbered, hidden, targets, rule)
        return
    y = job.retain.y.to(job.device)
    teacher = label_rules.soft_probabilities(retain.logits, job.retained).to(job.device)
    wanted = targets.to(job.device)
    means = torch.zeros(job.n_classes, retain.features.shape[1])
    for label in job.retained:
        means[label] = retain.features[job.retain.y == label].mean(dim=0)
    places = (targets @ means).to(job.device)
    spread = float(retain.features.var(dim=0, correction=0).sum())
    weight, head = float(recipe.forget_weight), job.head.name
    per_epoch = job.count(numbered)
    size = max(recipe.batch_size // 8, -(-len(hidden) // per_epoch))

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
        if recipe.distil:
            divergence = functional.kl_div(log_p[:n], teacher[i], reduction="batchmean")
            parts["distil"] = recipe.distil * divergence
        parts["forget"] = -weight * (wanted[j] * log_p[n:]).sum(dim=1).mean()
        if recipe.beta and spread > 0:
            away = (features[n:].float() - places[j]).square().sum(dim=1).mean()
            parts["pull"] = recipe.beta * away / spread
        return torch.stack(list(parts.values())).sum(), {
            k: float(v.detach()) for k, v in parts.items()
        }

    _run(recipe, job, batches, loss, per_epoch, rule)


def _train_joint(
    recipe: Recipe,
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

    _run(recipe, job, lambda: job.batches(both), loss, job.count(both), rule)


def _run(
    recipe: Recipe,
    job: Job,
    batches: Callable[[], Iterator[Any]],
    loss: Callable[[Any], Any],
    per_epoch: int,
    rule: StopRule | None,
) -> None:
    """Train in rounds: one, or up to three until held-out samples are forgotten."""
    for _ in range(_ROUNDS):
        ended = job.train(
            lambda _epoch: batches(),
            loss,
            job.adam(lr=recipe.lr) if recipe.optimizer == "adam" else job.sgd(lr=recipe.lr),
            epochs=max(recipe.epochs, -(-recipe.min_steps // per_epoch)),
            per_epoch=per_epoch,
            description="concept poisoning",
            schedule=cosine_warm if recipe.schedule == "cosine" else None,
            look=None if rule is None else rule.look,
        )
        if not ended or rule is None or rule.forgotten:
            break
    if job.stopped.startswith("early") and job.epoch + 1 > recipe.epochs:
        job.stopped = "done"  # the epochs asked for were made; the rule ended what the floor added
    if rule is not None:
        rule.finish()
