"""Directional derivatives along concept vectors, with a test against chance (TCAV)."""

from __future__ import annotations

__all__ = ["DirectionalDerivatives", "directional_derivatives"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, check_finite
from conceptlab.batching import AutoInt, iter_batches
from conceptlab.errors import InputError, unknown_name
from conceptlab.importance.evaluate import resolve_target
from conceptlab.parameters import Whole
from conceptlab.progress import Progress
from conceptlab.seeds import RandomState, draw_seed, torch_generator

if TYPE_CHECKING:
    import pandas as pd

_NULLS = ("data", "isotropic")


@dataclass(frozen=True, eq=False)
class DirectionalDerivatives:
    """Sensitivity of an output to moves along concept vectors.

    Attributes
    ----------
    derivatives : numpy.ndarray of shape (n, k), float64
        Derivative of the output of each image along each unit vector.
    share : numpy.ndarray of shape (k,), float64
        Share of images whose derivative is positive: the TCAV score.
    share_interval : numpy.ndarray of shape (k, 2), float64
        Wilson's interval of `share`.
    mean : numpy.ndarray of shape (k,), float64
        Mean derivative.
    p_share, p_mean : numpy.ndarray of shape (k,), float64
        How often a random direction is at least as far from a share of 1/2, or
        has at least as large a mean derivative in absolute value; two-sided,
        never below ``1 / (n_random + 1)``.
    q_share, q_mean : numpy.ndarray of shape (k,), float64
        The same, adjusted for k concepts by Benjamini and Hochberg.
    target : numpy.ndarray of shape (n,), int64
        The output that was differentiated.
    n_random : int
        Random directions.
    null : str
        How they were drawn.
    seed : int
        Seed of the random directions.

    Examples
    --------
    >>> from conceptlab.importance import directional_derivatives
    >>> A = np.random.default_rng(0).random((8, 2))
    >>> found = directional_derivatives(lambda a: 3 * a, A, np.eye(2), target=0, random_state=0)
    >>> found.mean.tolist(), found.share.tolist()
    ([3.0, 0.0], [1.0, 0.0])
    """

    derivatives: np.ndarray
    share: np.ndarray
    share_interval: np.ndarray
    mean: np.ndarray
    p_share: np.ndarray
    p_mean: np.ndarray
    q_share: np.ndarray
    q_mean: np.ndarray
    target: np.ndarray
    n_random: int
    null: str
    seed: int

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Tabulate the concepts in their own order."""
        import pandas as pd

        if names is not None and len(names) != len(self.mean):
            raise InputError(
                f"names has {len(names)} entries for {len(self.mean)} concepts.",
                code="CL-INPUT-NAMES",
            )
        labels = list(names) if names is not None else range(len(self.mean))
        return pd.DataFrame(
            {
                "share": self.share,
                "low": self.share_interval[:, 0],
                "high": self.share_interval[:, 1],
                "q_share": self.q_share,
                "mean": self.mean,
                "q_mean": self.q_mean,
            },
            index=pd.Index(labels, name="concept"),
        )


def directional_derivatives(
    fn: Callable[[torch.Tensor], torch.Tensor],
    activations: ArrayLike,
    vectors: ArrayLike,
    *,
    target: Any = None,
    n_random: int = 1000,
    null: str = "data",
    batch_size: AutoInt = "auto",
    random_state: RandomState = None,
    progress: Progress = None,
) -> DirectionalDerivatives:
    """Test which concept vectors an output is sensitive to.

    Parameters
    ----------
    fn : callable
        Differentiable map from activations, channels last, to outputs
        (m, n_outputs); with a split model
        ``lambda a: split.h(split.from_positions(a))``.
    activations : array-like of shape (n, p) or (n, *positions, p)
        Where to take the derivatives.
    vectors : array-like of shape (k, p), or ConceptBank
        Directions; their lengths do not matter. A direction moves all positions
        of an image together.
    target : int, sequence of int, "predicted" or None
        The output.
    n_random : int
        Random directions for the test.
    null : {"data", "isotropic"}
        Random directions with the covariance of the activations, as concept
        vectors trained on random sets of images have, or uniform on the sphere.
    batch_size : int or "auto"
        Images in one backward pass.
    random_state : int, RandomState, Generator or None
        Seed of the random directions.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    DirectionalDerivatives

    Raises
    ------
    InputError
        Shapes that do not fit, a vector of length zero, a function without
        gradient, or a target that is no output.

    Notes
    -----
    Kim et al., "Interpretability beyond feature attribution: quantitative
    testing with concept activation vectors", 2018, section 3.3-3.5. There,
    scores of vectors trained again and again are compared by a t-test; here a
    vector is given, so it is ranked among random directions.

    Where all images have the same gradient (a linear head) every direction has
    a share of 0 or 1, and `p_share` is 1 by right. `p_mean` still tells.

    Examples
    --------
    >>> import torch
    >>> A = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    >>> cube = lambda a: a[:, :1] ** 3
    >>> found = directional_derivatives(cube, A, torch.eye(8)[:2], random_state=0)
    >>> found.share.round(2).tolist()
    [1.0, 0.0]
    """
    if null not in _NULLS:
        raise unknown_name("null", null, _NULLS)
    Whole(1).check("n_random", n_random)
    A = as_tensor(activations).detach()
    check_finite(A, "activations")
    V = as_tensor(getattr(vectors, "vectors", vectors)).detach()
    if A.ndim < 2 or V.ndim != 2 or A.shape[-1] != V.shape[1]:
        raise InputError(
            f"Expected activations (n, *positions, p) and vectors (k, p), got {tuple(A.shape)} and "
            f"{tuple(V.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    lengths = V.norm(dim=1)
    if not bool((lengths > 0).all()):
        raise InputError(
            f"Vector {int((lengths == 0).nonzero()[0])} has length zero, so it is no direction.",
            code="CL-INPUT-ZERO",
        )
    gradients, chosen = _gradients(fn, A, target, batch_size, progress)
    directions = V.to("cpu", torch.float64)
    derivatives = gradients @ (directions / directions.norm(dim=1, keepdim=True)).T
    seed = draw_seed(random_state)
    chance = gradients @ _random_directions(A, int(n_random), null, seed).T
    share, random_share = ((d > 0).double().mean(0) for d in (derivatives, chance))
    mean, random_mean = derivatives.mean(0), chance.mean(0)
    p_share = _rank((share - 0.5).abs(), (random_share - 0.5).abs())
    p_mean = _rank(mean.abs(), random_mean.abs())
    from scipy.stats import false_discovery_control

    return DirectionalDerivatives(
        derivatives=as_numpy(derivatives),
        share=as_numpy(share),
        share_interval=_wilson(as_numpy(share), len(A)),
        mean=as_numpy(mean),
        p_share=p_share,
        p_mean=p_mean,
        q_share=false_discovery_control(p_share),
        q_mean=false_discovery_control(p_mean),
        target=as_numpy(chosen),
        n_random=int(n_random),
        null=null,
        seed=seed,
    )


def _gradients(
    fn: Callable[[torch.Tensor], torch.Tensor],
    A: torch.Tensor,
    target: Any,
    batch_size: AutoInt,
    progress: Progress,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Differentiate the target by the activations; sum over positions: (n, p), (n,)."""
    n = len(A)

    def step(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            a = A[start:stop].clone().requires_grad_(True)
            outputs = fn(a)
            if outputs.ndim == 1:
                outputs = outputs[:, None]
            every = resolve_target(
                target,
                outputs.detach() if isinstance(target, str) else int(outputs.shape[1]),
                stop - start if isinstance(target, str) else n,
            )
            mine = (every if isinstance(target, str) else every[start:stop]).to(outputs.device)
            if not outputs.requires_grad:
                raise InputError(
                    "fn has no gradient with respect to the activations. Leave out detach() and "
                    "no_grad() inside it.",
                    code="CL-INPUT-TYPE",
                )
            (gradient,) = torch.autograd.grad(outputs.gather(1, mine[:, None]).sum(), a)
        gradient = gradient.flatten(1, -2).sum(1) if gradient.ndim > 2 else gradient
        return gradient.to("cpu", torch.float64), mine.cpu()

    parts = [
        value
        for _, _, value in iter_batches(
            step,
            n,
            batch_size=batch_size,
            device=A.device,
            description="differentiate",
            progress=progress,
        )
    ]
    return torch.cat([g for g, _ in parts]), torch.cat([t for _, t in parts])


def _random_directions(A: torch.Tensor, n_random: int, null: str, seed: int) -> torch.Tensor:
    """Draw unit directions (n_random, p), float64 on the CPU."""
    generator = torch_generator(seed)
    if null == "isotropic":
        drawn = torch.randn(n_random, A.shape[-1], generator=generator, dtype=torch.float64)
    else:
        # Random combinations of centred rows have their covariance, and so has the
        # difference of the means of two random sets.
        X = (A.flatten(1, -2).mean(1) if A.ndim > 2 else A).to("cpu", torch.float64)
        X = X - X.mean(0)
        drawn = torch.randn(n_random, len(X), generator=generator, dtype=torch.float64) @ X
    lengths = drawn.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise InputError(
            "All activations are equal, so there is no random direction in the data. Use "
            "null='isotropic' or more images.",
            code="CL-INPUT-FEW",
        )
    return drawn / lengths


def _rank(found: torch.Tensor, chance: torch.Tensor) -> np.ndarray:
    """Count how many of `chance` are at least as large, the value itself included."""
    slack = 1e-12 * (1 + found.abs())
    beaten = (chance[None, :] >= (found - slack)[:, None]).sum(1)
    return as_numpy((1 + beaten.double()) / (1 + len(chance)))


def _wilson(share: np.ndarray, n: int, confidence: float = 0.95) -> np.ndarray:
    from scipy.stats import binomtest

    intervals = [binomtest(round(s * n), n).proportion_ci(confidence, "wilson") for s in share]
    return np.array([[interval.low, interval.high] for interval in intervals])
