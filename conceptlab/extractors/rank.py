"""How many concepts: held-out error by bi-cross-validation, and stability over halves."""

from __future__ import annotations

__all__ = ["RankSelection", "select_rank"]

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from conceptlab.arrays import ArrayLike, as_tensor, check_finite, resolve_device
from conceptlab.errors import InputError
from conceptlab.extractors.coding import nnls
from conceptlab.extractors.matching import stability
from conceptlab.extractors.nmf import NMFConcepts
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

if TYPE_CHECKING:
    import pandas as pd

_DEFAULT_RANKS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class RankSelection:
    """What :func:`select_rank` found.

    Attributes
    ----------
    n_concepts : int
        The rank to use.
    ranks : tuple of int
        Those that were tried.
    error : numpy.ndarray of shape (n_ranks,)
        Held-out squared error relative to the held-out energy, mean over blocks.
    error_se : numpy.ndarray of shape (n_ranks,)
        Standard error over blocks of its difference to the best rank.
    stability : numpy.ndarray of shape (n_ranks,)
        Mean cosine of matched concepts between fits to random halves of the rows.
    eligible : numpy.ndarray of shape (n_ranks,)
        Whether the error is as good as the best one.
    seed : int
        Seed of blocks, halves and starts.
    settings : dict
        Numbers of blocks and fits, tolerance, rows used.
    """

    n_concepts: int
    ranks: tuple[int, ...]
    error: np.ndarray
    error_se: np.ndarray
    stability: np.ndarray
    eligible: np.ndarray
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """One line a rank: error, its standard error, stability, eligible, chosen."""
        import pandas as pd

        return pd.DataFrame(
            {
                "n_concepts": self.ranks,
                "error": self.error,
                "error_se": self.error_se,
                "stability": self.stability,
                "eligible": self.eligible,
                "chosen": [rank == self.n_concepts for rank in self.ranks],
            }
        )

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="{:.4f}".format))


def select_rank(
    A: ArrayLike,
    ranks: Sequence[int] | None = None,
    *,
    n_blocks: int = 4,
    n_fits: int = 4,
    tolerance: float = 0.01,
    stability_margin: float = 0.05,
    max_rows: int = 2048,
    device: str | torch.device = "auto",
    random_state: RandomState = None,
    progress: Progress = None,
) -> RankSelection:
    """Choose the number of concepts of a non-negative factorisation.

    For each rank the error is held out in rows *and* columns [1]_: rows and features are split
    in halves at random; the factorisation of one quarter is carried over by non-negative
    least squares to the rows and the features that it did not see, and predicts the
    opposite quarter, which is in neither. Unlike the error of the fit, this rises again when
    concepts fit noise. Stability is the mean cosine of matched concepts between fits to
    random halves of the rows.

    A rank is eligible if its held-out error exceeds the best one by at most one standard error
    of the (paired) difference, or by at most `tolerance` of what the best rank gains over
    rank 1. Of the eligible ranks, the smallest is taken whose stability is within
    `stability_margin` of the most stable one.

    Parameters
    ----------
    A : array-like of shape (n, p)
        Non-negative activations; at least 4 rows and 4 features.
    ranks : sequence of int, optional
        Ranks to try; by default some from 2 to 20, as far as the quarters carry them.
    n_blocks : int, default=4
        Held-out quarters; each two come from one random split.
    n_fits : int, default=4
        Fits to random halves for the stability; at least 2.
    tolerance : float, default=0.01
        Share of the gain over rank 1 that may be given up for a smaller rank.
    stability_margin : float, default=0.05
        See above.
    max_rows : int, default=2048
        Of more rows, so many are drawn at random.
    device : str or torch.device, default="auto"
        Where to compute.
    random_state : int, RandomState, Generator or None, default=None
        Of splits and starts.
    progress : bool, callable or None
        Bar over the ranks.

    Returns
    -------
    RankSelection

    Raises
    ------
    InputError
        Negative, non-finite or too small data, or ranks that a quarter cannot carry.

    References
    ----------
    .. [1] A. Owen and P. Perry, "Bi-cross-validation of the SVD and the nonnegative matrix
       factorization", Annals of Applied Statistics 3(2), 2009.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> U = rng.gamma(0.5, size=(200, 3))
    >>> A = U @ rng.gamma(0.5, size=(3, 40)) + 0.05 * rng.random((200, 40))
    >>> select_rank(A, [2, 3, 4, 5], random_state=0).n_concepts
    3
    """
    seed = draw_seed(random_state)
    rng = numpy_generator(seed)
    data = _check(A, n_blocks, n_fits, resolve_device(device, like=A))
    if len(data) > max_rows:
        picked = np.sort(rng.choice(len(data), max_rows, replace=False))
        data = data[torch.from_numpy(picked).to(data.device)]
    n, p = data.shape
    tried = _check_ranks(ranks, n, p)
    blocks = _blocks(n, p, n_blocks, rng)
    halves = [
        torch.from_numpy(rng.permutation(len(data))[: (len(data) + 1) // 2]) for _ in range(n_fits)
    ]
    baseline = np.mean(_held_out(data, blocks, 1, seed))
    errors = np.empty((len(tried), n_blocks))
    stable = np.empty(len(tried))
    for i, rank in enumerate(
        track(tried, description="select rank", progress=progress, unit="rank")
    ):
        errors[i] = _held_out(data, blocks, rank, seed)
        fits = _fit_many([data[half.to(data.device)] for half in halves], rank, seed)
        stable[i] = stability([fit.components_ for fit in fits])
    mean = errors.mean(1)
    best = int(mean.argmin())
    difference = errors - errors[best]
    se = difference.std(1, ddof=1) / np.sqrt(n_blocks)
    slack = np.maximum(se, tolerance * max(baseline - mean[best], 0.0))
    eligible = difference.mean(1) <= slack
    steady = eligible & (stable >= stable[eligible].max() - stability_margin)
    return RankSelection(
        int(np.asarray(tried)[steady].min()),
        tuple(tried),
        mean,
        se,
        stable,
        eligible,
        seed,
        {
            "n_blocks": n_blocks,
            "n_fits": n_fits,
            "tolerance": tolerance,
            "stability_margin": stability_margin,
            "n_rows": len(data),
        },
    )


def _check(A: ArrayLike, n_blocks: int, n_fits: int, device: torch.device) -> torch.Tensor:
    if min(n_blocks, n_fits) < 2:
        raise InputError(
            f"n_blocks and n_fits must be at least 2, got {n_blocks} and {n_fits}.",
            code="CL-INPUT-RANGE",
        )
    data = as_tensor(A, device=device).detach()
    if data.ndim != 2:
        raise InputError(
            f"Expected 2D array (n_samples, n_features), got shape {tuple(data.shape)}.",
            code="CL-INPUT-RANK",
        )
    if min(data.shape) < 4:
        raise InputError(
            f"The rank of a {tuple(data.shape)} matrix cannot be held out: at least 4 rows and 4 "
            "features are needed.",
            code="CL-INPUT-FEW",
        )
    check_finite(data, "A")
    if float(data.min()) < 0:
        raise InputError(
            f"A must be non-negative, its smallest entry is {float(data.min()):.4g}: the rank is "
            "chosen by a non-negative factorisation. Use a layer after a ReLU, or give the number "
            "of concepts in place of 'auto'.",
            code="CL-INPUT-NEGATIVE",
        )
    if not bool(data.any()):
        raise InputError("All entries of A are zero.", code="CL-INPUT-ZERO")
    return data


def _check_ranks(ranks: Sequence[int] | None, n: int, p: int) -> list[int]:
    limit = min(n // 2, p // 2)
    if ranks is None:
        return [rank for rank in _DEFAULT_RANKS if rank <= max(limit // 2, 2)]
    tried = sorted({int(rank) for rank in ranks})
    if not tried or tried[0] < 1 or tried[-1] > limit:
        raise InputError(
            f"ranks must lie in 1..{limit}, half of the smaller side of the {n} x {p} data, got "
            f"{list(ranks)}.",
            code="CL-INPUT-MANY" if tried and tried[0] >= 1 else "CL-INPUT-RANGE",
        )
    return tried


Block = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _blocks(n: int, p: int, n_blocks: int, rng: np.random.Generator) -> list[Block]:
    """Draw (fitted rows, held-out rows, fitted columns, held-out columns)."""
    blocks: list[Block] = []
    while len(blocks) < n_blocks:
        rows, columns = torch.from_numpy(rng.permutation(n)), torch.from_numpy(rng.permutation(p))
        a, b, c, d = rows[: n // 2], rows[n // 2 :], columns[: p // 2], columns[p // 2 :]
        blocks += [(a, b, c, d), (b, a, d, c)]
    return blocks[:n_blocks]


def _held_out(A: torch.Tensor, blocks: list[Block], rank: int, seed: int) -> np.ndarray:
    """Relative squared error on each held-out block."""
    errors = []
    by_width: dict[int, list[int]] = {}
    for i, block in enumerate(blocks):
        by_width.setdefault(len(block[2]), []).append(i)
    bases: dict[int, np.ndarray] = {}
    for members in by_width.values():
        fits = _fit_many([A[blocks[i][0]][:, blocks[i][2]] for i in members], rank, seed)
        bases |= {i: fit.components_ for i, fit in zip(members, fits, strict=True)}
    for i, (fitted, held, seen, unseen) in enumerate(blocks):
        W_seen = torch.as_tensor(bases[i]).to(A)
        U_fitted = nnls(A[fitted][:, seen], W_seen)
        U_held = nnls(A[held][:, seen], W_seen)
        W_unseen = nnls(A[fitted][:, unseen].mT, U_fitted.mT).mT
        target = A[held][:, unseen]
        energy = float(target.square().sum())
        errors.append(float((target - U_held @ W_unseen).square().sum()) / max(energy, 1e-300))
    return np.asarray(errors)


def _fit_many(problems: list[torch.Tensor], rank: int, seed: int) -> list[NMFConcepts]:
    model = NMFConcepts(rank, max_iter=100, tol=3e-4, random_state=seed)
    with warnings.catch_warnings():
        # Ranks above the truth leave concepts unused; that is what is measured.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit_many(problems)
