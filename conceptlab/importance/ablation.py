"""Ablation: what an output loses without a concept, and gains from it alone."""

from __future__ import annotations

__all__ = ["Ablation", "ablate"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from conceptlab.arrays import as_numpy
from conceptlab.batching import AutoInt
from conceptlab.errors import InputError
from conceptlab.importance.evaluate import Evaluator, check_coefficients, resolve_target
from conceptlab.importance.remainder import rest_of
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Ablation:
    """Effects of single concepts, in units of the output.

    Attributes
    ----------
    drop : numpy.ndarray of shape (n, k), float64
        Output with all concepts minus output without the concept.
    gain : numpy.ndarray of shape (n, k), float64
        Output with the concept alone minus output with none. Equal to `drop`
        where the function is linear.
    mean : numpy.ndarray of shape (k,), float64
        Mean of `drop` over the images.
    interval : numpy.ndarray of shape (k, 2), float64
        Bootstrap interval of `mean` over the images.
    target : numpy.ndarray of shape (n,), int64
        The output that was looked at.
    n_evaluations : int
        Rows of coefficients that the function was run on.
    seed : int
        Seed of the bootstrap.

    Examples
    --------
    >>> from conceptlab.importance import ablate
    >>> found = ablate(lambda U: 3 * U, np.ones((4, 2)), target=0, random_state=0)
    >>> found.mean.tolist()
    [3.0, 0.0]
    """

    drop: np.ndarray
    gain: np.ndarray
    mean: np.ndarray
    interval: np.ndarray
    target: np.ndarray
    n_evaluations: int
    seed: int

    def ranking(self) -> np.ndarray:
        """Order the concepts by mean drop, the greatest first: (k,) int64."""
        return np.argsort(-self.mean, kind="stable")

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Tabulate drop (with its interval) and gain, the greatest drop first."""
        import pandas as pd

        if names is not None and len(names) != len(self.mean):
            raise InputError(
                f"names has {len(names)} entries for {len(self.mean)} concepts.",
                code="CL-INPUT-NAMES",
            )
        labels = list(names) if names is not None else range(len(self.mean))
        frame = pd.DataFrame(
            {
                "drop": self.mean,
                "low": self.interval[:, 0],
                "high": self.interval[:, 1],
                "gain": self.gain.mean(0),
            },
            index=pd.Index(labels, name="concept"),
        )
        return frame.iloc[self.ranking()]


def ablate(
    fn: Callable[[torch.Tensor], Any],
    U: Any,
    *,
    target: Any = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    batch_size: AutoInt = "auto",
    random_state: RandomState = None,
    progress: Progress = None,
    remainder: str = "drop",
    activations: Any = None,
) -> Ablation:
    """Take concepts out one at a time, and put them in one at a time.

    Parameters
    ----------
    fn : callable
        As for :class:`~conceptlab.importance.SobolImportance`.
    U : array-like of shape (n, k) or (n, *positions, k)
        Coefficients.
    target : int, sequence of int, "predicted" or None
        The output to look at.
    confidence, n_bootstrap : float, int
        Level and resamples (of images) of the intervals.
    batch_size : int or "auto"
        Rows in one call of `fn`.
    random_state : int, RandomState, Generator or None
        Seed of the bootstrap.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.
    remainder : {"drop", "hold", "player"}
        What becomes of the part of the activations that the concepts do not code; see
        :mod:`conceptlab.importance.remainder`. As a player it comes last, behind the k concepts.
    activations : array-like of shape (n, *positions, p), optional
        What `U` codes; only where the rest is kept.

    Returns
    -------
    Ablation

    Raises
    ------
    InputError
        For arrays or a target that do not fit.

    Notes
    -----
    Removal of one part at a time is occlusion (Zeiler and Fergus 2014) on
    coefficients. It needs ``2k + 2`` evaluations an image and sees no
    interaction except through the difference of `drop` and `gain`.

    Examples
    --------
    >>> import torch
    >>> found = ablate(lambda u: u @ torch.tensor([2.0, -1.0]), torch.ones(4, 2))
    >>> found.mean.tolist()
    [2.0, -1.0]
    """
    U = check_coefficients(U)
    rest = rest_of(fn, U, activations, remainder)
    n, k = len(U), U.shape[-1] + (remainder == "player")
    seed = draw_seed(random_state)
    evaluate = Evaluator(fn, batch_size)
    part = slice(None) if isinstance(target, str) else slice(1)
    whole = evaluate(U[part], None if rest is None else rest[part])
    chosen = resolve_target(target, whole if len(whole) == n else int(whole.shape[1]), n)
    eye = torch.eye(k)
    masks = torch.cat([torch.ones(1, k), torch.zeros(1, k), 1 - eye, eye]).to(U)
    columns = torch.arange(k, device=U.device).expand(1, k)
    rows = [
        evaluate.grid(
            U[i : i + 1],
            masks,
            columns,
            chosen[i : i + 1],
            None if rest is None else rest[i : i + 1],
        )[0]
        for i in track(range(n), description="ablate concepts", progress=progress, unit="image")
    ]
    y = as_numpy(torch.stack(rows))
    drop, gain = y[:, :1] - y[:, 2 : k + 2], y[:, k + 2 :] - y[:, 1:2]
    weights = numpy_generator(seed).multinomial(n, np.full(n, 1 / n), size=max(1, n_bootstrap)) / n
    levels = ((1 - confidence) / 2, (1 + confidence) / 2)
    return Ablation(
        drop=drop,
        gain=gain,
        mean=drop.mean(0),
        interval=np.quantile(weights @ drop, levels, axis=0).T,
        target=as_numpy(chosen),
        n_evaluations=evaluate.n_evaluations,
        seed=seed,
    )
