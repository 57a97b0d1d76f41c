"""Whether a run did what it was for: the class is gone, the rest is there."""

from __future__ import annotations

__all__ = ["outcome_warnings"]

import torch

from unlearning.classes.job import Job
from unlearning.data import Samples

KNOWN = 0.05
"""Share of the training samples of the class that may still be told right."""
LOST = 0.1
"""How far the share of retained samples that are told right may fall."""
_MOST = 512


def outcome_warnings(job: Job) -> list[str]:
    """Look at training samples, before and after, and say what went wrong.

    At most 512 samples of each part are looked at, evenly spread.

    Parameters
    ----------
    job : Job
        At the end of a run.

    Returns
    -------
    list of str
        Empty where the class is forgotten and the rest is kept.
    """
    found = []
    gone, kept = _some(job.forget), _some(job.retain)
    left = job.accuracy(job.model, gone)
    if left > KNOWN and not any("not forgotten" in message for message in job.warnings):
        found.append(
            f"The class is not forgotten: {left:.0%} of its training samples are still told right "
            f"({job.accuracy(job.original, gone):.0%} before) after {job.steps} steps "
            f"({job.stopped}). Raise epochs or lr, or take another method."
        )
    before, after = (job.accuracy(model, kept) for model in (job.original, job.model))
    if after < before - LOST:
        found.append(
            f"What should be kept is lost: {after:.0%} of the retained training samples are told "
            f"right, {before:.0%} before. Lower lr or epochs, or take another method."
        )
    return found


def _some(samples: Samples) -> Samples:
    if len(samples) <= _MOST:
        return samples
    return samples.select(torch.linspace(0, len(samples) - 1, _MOST).long())
