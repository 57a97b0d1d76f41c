"""Whole images as coefficients, and what the model says of them with and without the concepts."""

from __future__ import annotations

__all__ = ["Coded", "code_images"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.extractors.craft.views import ImageViews
from conceptlab.models import SplitModel
from conceptlab.models.joined import Joined
from conceptlab.progress import Progress

if TYPE_CHECKING:
    from conceptlab.importance import Decision


@dataclass(frozen=True, eq=False)
class Coded:
    """What importance and checks need to know of some images.

    Attributes
    ----------
    U : numpy.ndarray of shape (n, *positions, k)
        Coefficients.
    logits : numpy.ndarray of shape (n, n_outputs)
        The model's answers.
    decision : Decision
        Whether the concepts carry them.
    activations : numpy.ndarray of shape (n, *positions, p), or None
        What was coded, where it was kept.
    inputs : Joined, or None
        What the model says more of than of activations, because it takes numbers beside images.
    """

    U: np.ndarray
    logits: np.ndarray
    decision: Decision
    activations: np.ndarray | None
    inputs: Joined | None


def code_images(
    views: ImageViews,
    split: SplitModel,
    extractor: Any,
    *,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    keep: bool = False,
    progress: Progress = None,
) -> Coded:
    """Code every position of every image, and run the head on the way.

    Only one batch of activations exists at a time, unless they are kept.

    Parameters
    ----------
    views : ImageViews
        The images.
    split : SplitModel
        Cut where `extractor` was fitted.
    extractor : ConceptExtractor
        Fitted.
    known : tuple of numpy.ndarray, optional
        U (n, *positions, k) and A (n, *positions, p), where they were computed already.
    keep : bool
        Whether to keep the activations.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Coded
    """
    from conceptlab.importance import Decision, HeadOnCoefficients

    head = HeadOnCoefficients.from_extractor(split, extractor)

    def run(start: int, stop: int) -> tuple[Any, ...]:
        if known is None:
            activations = split.g(views.part(start, stop))
            positions = split.to_positions(activations)
            U = as_numpy(extractor.transform(positions.reshape(-1, positions.shape[-1])))
            U = U.reshape(*positions.shape[:-1], U.shape[-1])
        else:
            U, positions = known[0][start:stop], torch.from_numpy(known[1][start:stop])
            activations = split.from_positions(positions)
        inputs = views.kept(split)
        beside = None if inputs is None else inputs[start:stop]
        rest = head.rest(U, positions)
        nothing = torch.zeros_like(torch.from_numpy(np.asarray(U)))
        left = rest - (0 if head.offset is None else head.offset)
        return (
            U,
            as_numpy(split.h(activations, inputs=beside)),
            as_numpy(head(U, inputs=beside)),
            as_numpy(head(nothing, rest=rest, inputs=beside)),
            positions.double().sum(0),
            (float(left.double().square().sum()), float(positions.double().square().sum())),
            as_numpy(positions) if keep else None,
        )

    found = views.each(run, "encode images" if known is None else "compute", progress)
    U, logits, by_concepts, by_rest, sums, squares, kept = zip(*found, strict=True)
    mean = (torch.stack(sums).sum(0) / len(views)).to(head.W)[None]
    inputs = views.kept(split)

    def run_mean(start: int, stop: int) -> np.ndarray:
        rows = split.from_positions(mean.expand(stop - start, *mean.shape[1:]))
        return as_numpy(split.h(rows, inputs=None if inputs is None else inputs[start:stop]))

    if inputs is None:  # then it is the same for all
        with torch.no_grad():
            by_mean = run_mean(0, 1)
    else:
        by_mean = np.concatenate(views.each(run_mean))
    rest, whole = np.sum(squares, axis=0)
    outputs = np.concatenate(logits)
    return Coded(
        U=np.concatenate(U),
        logits=outputs,
        decision=Decision.of(
            outputs,
            np.concatenate(by_concepts),
            np.concatenate(by_rest),
            by_mean,
            error=float(np.sqrt(rest / max(whole, 1e-30))),
        ),
        activations=np.concatenate(kept) if keep else None,
        inputs=inputs,
    )
