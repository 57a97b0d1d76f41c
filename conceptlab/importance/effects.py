"""What single concepts do to all outputs: what they drive, and what one answer is made of."""

from __future__ import annotations

__all__ = ["ConceptEffects", "concept_effects"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.importance.head import HeadOnCoefficients

if TYPE_CHECKING:
    from conceptlab.models.split import SplitModel


@dataclass(frozen=True, eq=False)
class ConceptEffects:
    """What is lost when single concepts are taken out of the activations of m images.

    ``contributions.sum(1) + without + together`` is the output itself.

    Attributes
    ----------
    contributions : numpy.ndarray of shape (m, k), float32
        Target's output less what it is without the concept: h(A) - h(A - u w).
    without : numpy.ndarray of shape (m,), float32
        Target's output when all concepts are out and the rest stays: h(A - U W).
    together : numpy.ndarray of shape (m,), float32
        What concepts do in company only; zero where the head is linear.
    drives : numpy.ndarray of shape (k, n_outputs), float32
        Mean over the images of what each output gains by the concept, less the mean over the
        outputs, which a softmax does not see.
    """

    contributions: np.ndarray
    without: np.ndarray
    together: np.ndarray
    drives: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        """The target's output in each image, (m,)."""
        return np.asarray(self.contributions.sum(axis=1) + self.without + self.together)


def concept_effects(
    split: SplitModel, extractor: Any, images: Any, target: np.ndarray
) -> ConceptEffects:
    """Take the concepts out one by one, and all at once, and run the head.

    Parameters
    ----------
    split : SplitModel
        Cut where `extractor` was fitted.
    extractor : ConceptExtractor
        Fitted; its decoder is affine.
    images : tensor, Joined or mapping of tensors
        m inputs, as `split` takes them.
    target : numpy.ndarray of shape (m,)
        The output that is explained in each.

    Returns
    -------
    ConceptEffects

    Notes
    -----
    One output at a time is occlusion (Zeiler and Fergus 2014) on coefficients, with the rest of
    the activations held. It costs k + 2 runs of the head for each image.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab import NMFConcepts, SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    ...                       nn.Flatten(), nn.Linear(4, 2))
    >>> split, images = SplitModel(model, at="1"), torch.rand(5, 3, 8, 8)
    >>> rows = split.to_positions(split.g(images)).flatten(0, 2).detach().numpy()
    >>> found = concept_effects(split, NMFConcepts(2).fit(rows), images, np.zeros(5, int))
    >>> bool(np.allclose(found.outputs, model(images)[:, 0].detach(), atol=1e-5))
    True
    """
    head = HeadOnCoefficients.from_extractor(split, extractor)
    parts: list[tuple[np.ndarray, ...]] = []
    step = 8
    n = len(target)
    for start in range(0, n, step):
        stop = min(start + step, n)
        if isinstance(images, dict):
            batch: Any = {name: value[start:stop] for name, value in images.items()}
        else:
            batch = images[start:stop]
        # What goes round the layer is run again; images alone do not.
        beside = None if split.closed or isinstance(batch, torch.Tensor) else batch
        with torch.no_grad():
            activations = split.g(batch)
            A = split.to_positions(activations)
            U = np.asarray(as_numpy(extractor.transform(A.reshape(-1, A.shape[-1]))))
            U = U.reshape(*A.shape[:-1], -1)
            codes = torch.as_tensor(U, device=A.device, dtype=A.dtype)
            W = head.W.to(A)
            whole = split.h(activations, inputs=beside)
            rows = torch.arange(len(whole), device=whole.device)
            chosen = torch.as_tensor(target[start:stop], device=whole.device)
            bare = split.h(split.from_positions(A - codes @ W), inputs=beside)[rows, chosen]
            gains = torch.stack(
                [
                    whole - split.h(split.from_positions(A - codes[..., [i]] * W[i]), inputs=beside)
                    for i in range(len(W))
                ],
                dim=1,
            )  # (m, k, n_outputs)
        mine = gains[rows, :, chosen]
        together = whole[rows, chosen] - bare - mine.sum(1)
        drives = (gains - gains.mean(-1, keepdim=True)).sum(0)
        parts.append(tuple(as_numpy(value) for value in (mine, bare, together, drives)))
    contributions, without, together, drives = zip(*parts, strict=True)
    return ConceptEffects(
        np.concatenate(contributions).astype(np.float32),
        np.concatenate(without).astype(np.float32),
        np.concatenate(together).astype(np.float32),
        (np.sum(drives, axis=0) / n).astype(np.float32),
    )
