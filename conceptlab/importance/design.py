"""Designs for Sobol indices: two samples of masks and their mixtures."""

from __future__ import annotations

__all__ = ["SAMPLERS", "Design", "check_design", "sample_design"]

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

SAMPLERS = ("sobol", "halton", "latin", "random")

# Two columns of a short sequence are alike by chance after some scrambles.
_N_SCRAMBLES, _SHORT = 8, 256


@dataclass(frozen=True, eq=False)
class Design:
    """Masks A and B, from which the mixtures C_i follow.

    Attributes
    ----------
    A, B : numpy.ndarray of shape (n_design, k), float64 in [0, 1]
        Two samples of masks, independent of each other.
    sampler : str
        What made them; ``"custom"`` for masks of the caller's own.
    seed : int or None
        Seed of the sampler.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Design(rng.random((8, 3)), rng.random((8, 3))).sampler
    'custom'
    """

    A: np.ndarray
    B: np.ndarray
    sampler: str = "custom"
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, array in (("A", self.A), ("B", self.B)):
            if not isinstance(array, np.ndarray) or array.ndim != 2:
                raise InputError(
                    f"Design.{name} must be an array of shape (n_design, k), got "
                    f"{type(array).__name__} of shape {np.shape(array)}.",
                    code="CL-INPUT-RANK",
                )
        if self.A.shape != self.B.shape:
            raise InputError(
                f"Design.A has shape {self.A.shape}, but Design.B {self.B.shape}; both need the "
                "same number of masks and concepts.",
                code="CL-INPUT-SHAPE",
            )
        low, high = min(self.A.min(), self.B.min()), max(self.A.max(), self.B.max())
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"Masks must lie in [0, 1], these reach from {low:.4g} to {high:.4g}.",
                code="CL-INPUT-RANGE",
            )

    @property
    def n_design(self) -> int:
        """Number of masks in A."""
        return int(self.A.shape[0])

    @property
    def n_concepts(self) -> int:
        """Number of columns."""
        return int(self.A.shape[1])

    def mixture(self, i: int) -> np.ndarray:
        """Give C_i: the masks A with column `i` taken from B."""
        mixed = self.A.copy()
        mixed[:, i] = self.B[:, i]
        return mixed

    def stacked(self) -> np.ndarray:
        """Stack A, B, C_0, ..., C_{k-1} to one array (n_design * (k + 2), k)."""
        n, k = self.A.shape
        masks = np.empty((k + 2, n, k))
        masks[0], masks[1], masks[2:] = self.A, self.B, self.A
        columns = np.arange(k)
        masks[2 + columns, :, columns] = self.B.T
        return masks.reshape(-1, k)


def sample_design(
    n_design: int, k: int, *, sampler: str = "sobol", random_state: RandomState = None
) -> Design:
    """Draw the masks of one Sobol analysis.

    A and B are the two halves of *one* sequence of dimension 2k, so that they
    are balanced jointly (Saltelli et al. 2010, section 5). All sequences are
    scrambled: the first points of an unscrambled Halton sequence in high
    dimension are collinear (with 32 points, two columns whose prime bases
    exceed 32 are multiples of each other), and the first of them masks all. Of
    several scrambles of a short sequence, the one is taken whose columns are
    least correlated.

    Parameters
    ----------
    n_design : int
        Number of masks, at least 2. Sobol sequences are balanced for powers of
        two; other numbers are taken as they are and give larger errors (1000
        masks of 10 concepts: 3 to 4 times those of 1024).
    k : int
        Number of concepts.
    sampler : {"sobol", "halton", "latin", "random"}
        Scrambled Sobol or Halton sequence, Latin hypercube, plain random.
    random_state : int, RandomState, Generator or None
        Seed of the scrambling.

    Returns
    -------
    Design

    Raises
    ------
    InputError
        Unknown sampler, fewer than two masks, no concept, or more concepts than
        Sobol sequences have dimensions.

    Notes
    -----
    Owen, "Scrambled net variance for integrals of smooth functions", 1997;
    Saltelli et al., "Variance based sensitivity analysis of model output",
    Computer Physics Communications 181, 2010.

    Examples
    --------
    >>> design = sample_design(8, 3, random_state=0)
    >>> design.A.shape, design.stacked().shape
    ((8, 3), (40, 3))
    """
    check_design(n_design, k, sampler)
    seed = draw_seed(random_state)
    generator = numpy_generator(seed)
    n_tries = _N_SCRAMBLES if n_design <= _SHORT and sampler != "random" else 1
    tries = (_points(sampler, int(n_design), 2 * int(k), generator) for _ in range(n_tries))
    points = min(tries, key=_largest_correlation) if n_tries > 1 else next(tries)
    return Design(
        np.ascontiguousarray(points[:, :k]), np.ascontiguousarray(points[:, k:]), sampler, seed
    )


def check_design(n_design: int, k: int, sampler: str) -> None:
    """Raise an InputError where :func:`sample_design` could not draw."""
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    Whole(2).check("n_design", n_design)
    Whole(1).check("k", k)
    if sampler == "sobol" and 2 * k > qmc.Sobol.MAXDIM:
        raise InputError(
            f"A Sobol sequence has at most {qmc.Sobol.MAXDIM} dimensions, {k} concepts need "
            f"{2 * k}. Use sampler='latin'.",
            code="CL-INPUT-MANY",
        )


def _largest_correlation(points: np.ndarray) -> float:
    correlation = np.corrcoef(points.T)
    np.fill_diagonal(correlation, 0)
    return float(abs(correlation).max())


def _points(sampler: str, n: int, dimension: int, generator: np.random.Generator) -> np.ndarray:
    if sampler == "random":
        return generator.random((n, dimension))
    engine: Any = {"sobol": qmc.Sobol, "halton": qmc.Halton, "latin": qmc.LatinHypercube}[sampler]
    # scipy renamed the argument in 1.15.
    name = "rng" if "rng" in inspect.signature(engine.__init__).parameters else "seed"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")
        return np.asarray(engine(d=dimension, scramble=True, **{name: generator}).random(n))
