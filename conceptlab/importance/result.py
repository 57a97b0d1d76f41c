"""What an importance analysis found."""

from __future__ import annotations

__all__ = ["Importance"]

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.html import table
from conceptlab.io.reading import rebuilding

if TYPE_CHECKING:
    import pandas as pd

_ARRAYS = (
    "values",
    "mean",
    "interval",
    "local_interval",
    "first_order",
    "signed",
    "variance",
    "target",
)
_REST = ("rest", "rest_interval")
_PLAIN = (
    "exact",
    "route",
    "estimator",
    "sampler",
    "control",
    "n_design",
    "n_evaluations",
    "confidence",
    "seed",
)


@dataclass(frozen=True, eq=False)
class Importance:
    """Sobol indices of k concepts for n images.

    Attributes
    ----------
    values : numpy.ndarray of shape (n, k), float64
        Total-order index of each concept for each image: the share of the
        output's variance under random masks that is lost when all concepts
        *but* this one are fixed. In [0, 1] up to the error of the estimate;
        zero where no mask changes the output.
    mean : numpy.ndarray of shape (k,), float64
        Mean of `values` over the images: the global importance.
    interval : numpy.ndarray of shape (k, 2), float64
        Confidence interval of `mean`, given these concepts: it covers the choice of the
        images, not that of the concepts nor the error of the design. With one image it
        is the local interval.
    local_interval : numpy.ndarray of shape (n, k, 2), float64
        Confidence intervals of `values`. The rows of the design are resampled,
        which treats them as independent: for scrambled sequences the interval
        is wider than needed. Without width where `exact`.
    first_order : numpy.ndarray of shape (n, k), float64
        Share of the variance that a concept explains alone; `values` exceeds it
        by the interactions.
    signed : numpy.ndarray of shape (n, k), float64
        Direction of the effect: the slope of the output in the concept's mask
        (least squares, from the pairs y(C_i) - y(A)) times the masks' standard
        deviation over that of the output. In [-1, 1] up to the error of the
        estimate; positive when the concept raises the output. For a linear
        function ``signed ** 2 == values``.
    variance : numpy.ndarray of shape (n,), float64
        Variance of the output under random masks.
    target : numpy.ndarray of shape (n,), int64
        The output that was explained, image by image.
    exact : bool
        Whether the indices come from the closed form of a linear function.
    route : str
        ``"linear-pooled"``, ``"linear"``, ``"pooled"`` or ``"general"``; see
        :class:`~conceptlab.importance.SobolImportance`.
    estimator, sampler, control : str
        How sampled indices were estimated; `control` may be None.
    n_design : int
        Masks in a sample.
    n_evaluations : int
        Rows of coefficients that the function was run on, probes included.
    confidence : float
        Level of the intervals.
    seed : int or None
        Gives the same numbers again.
    remainder : str
        What became of the part of the activations that the concepts do not code; see
        :mod:`conceptlab.importance.remainder`.
    rest : numpy.ndarray of shape (n,), float64, or None
        Total-order index of that part, where it was a player.
    rest_interval : numpy.ndarray of shape (2,), float64, or None
        Interval of its mean.

    Examples
    --------
    >>> from conceptlab import SobolImportance
    >>> U = np.random.default_rng(0).random((5, 3))
    >>> def head(u):  # (n, 3) -> (n, 1)
    ...     return 2 * u[:, :1] + u[:, 1:2]
    >>> found = SobolImportance(random_state=0)(head, U, target=0)
    >>> found.exact, found.mean.round(2).tolist()
    (True, [0.71, 0.29, 0.0])
    """

    values: np.ndarray
    mean: np.ndarray
    interval: np.ndarray
    local_interval: np.ndarray
    first_order: np.ndarray
    signed: np.ndarray
    variance: np.ndarray
    target: np.ndarray
    exact: bool
    route: str
    estimator: str
    sampler: str
    control: str | None
    n_design: int
    n_evaluations: int
    confidence: float
    seed: int | None
    remainder: str = "drop"
    rest: np.ndarray | None = None
    rest_interval: np.ndarray | None = None

    @property
    def n_concepts(self) -> int:
        """Number of concepts k."""
        return int(self.mean.shape[0])

    @property
    def effect(self) -> np.ndarray:
        """(n, k): expected change of the output when a concept goes from removed to full.

        In units of the output: ``signed`` times the output's standard deviation
        over that of a mask, sqrt(1/12).
        """
        return self.signed * np.sqrt(12 * self.variance)[:, None]

    def ranking(self) -> np.ndarray:
        """Order the concepts by global importance, the greatest first: (k,) int64."""
        return np.argsort(-self.mean, kind="stable")

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Tabulate the concepts, the most important first.

        Parameters
        ----------
        names : sequence of str, optional
            One name a concept; their numbers by default.

        Returns
        -------
        pandas.DataFrame
            Index ``concept``; columns ``importance``, ``low``, ``high``,
            ``first_order``, ``signed``, ``effect`` (means over the images).
        """
        import pandas as pd

        k = self.n_concepts
        if names is not None and len(names) != k:
            raise InputError(
                f"names has {len(names)} entries for {k} concepts.", code="CL-INPUT-NAMES"
            )
        frame = pd.DataFrame(
            {
                "importance": self.mean,
                "low": self.interval[:, 0],
                "high": self.interval[:, 1],
                "first_order": self.first_order.mean(0),
                "signed": self.signed.mean(0),
                "effect": self.effect.mean(0),
            },
            index=pd.Index(list(names) if names is not None else range(k), name="concept"),
        )
        return frame.iloc[self.ranking()]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`."""
        data = {name: getattr(self, name) for name in (*_PLAIN, "remainder")}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.rest is not None:
            arrays |= {name: getattr(self, name) for name in _REST}
        return write_bundle(path, Bundle("Importance", data, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Importance:
        """Read what :meth:`save` wrote."""
        bundle = read_bundle(path, "Importance")
        with rebuilding(path, "Importance"):
            fields: dict[str, Any] = {
                **{name: bundle.tensors[name] for name in _ARRAYS},
                **{name: bundle.tensors.get(name) for name in _REST},
                **{name: bundle.data[name] for name in _PLAIN},
                "remainder": bundle.data.get("remainder", "drop"),
            }
            return cls(**fields)

    def _how(self) -> str:
        if self.exact:
            return "exact, the function is linear in the coefficients"
        return f"{self.estimator} on {self.n_design} {self.sampler} masks"

    def __repr__(self) -> str:
        n, k = self.values.shape
        return f"Importance({n} images, {k} concepts, {self._how()})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        rows = [[str(row[0]), *map(float, row[1:])] for row in frame.itertuples()]
        shown = table(["concept", *frame.columns], rows)
        return f"<div><p>Total Sobol importance: {self._how()}</p>{shown}</div>"
