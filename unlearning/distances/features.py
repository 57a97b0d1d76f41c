"""Features that are checked once, and what distances make of them, made once."""

from __future__ import annotations

__all__ = ["Features", "feature_pair"]

from dataclasses import dataclass
from functools import cached_property

import torch

from conceptlab.arrays import ArrayLike
from unlearning.distances.moments import FeatureStatistics
from unlearning.distances.rows import feature_tensor, placed, unit_rows


@dataclass(frozen=True, eq=False)
class Features:
    """A checked matrix of features, for several distances.

    Every function of :mod:`unlearning.distances` takes arrays as they are. One that is
    compared more than once is read, checked and summed up once when it comes as this.

    Parameters
    ----------
    rows : Tensor of shape (n, d), float64
        A row for each image; :meth:`of` makes it of any array.
    name : str
        What messages call it.

    Examples
    --------
    >>> from unlearning.distances import Features, cmmd, frechet_distance, kid
    >>> X = Features.of(np.random.default_rng(0).normal(size=(50, 4)))
    >>> len(X), X.n_features, frechet_distance(X, X) < 1e-9, abs(cmmd(X, X)) < 1e-9
    (50, 4, True, True)
    """

    rows: torch.Tensor
    name: str = "X"

    @classmethod
    def of(cls, X: ArrayLike, name: str = "X", *, device: str | torch.device = "auto") -> Features:
        """Check a matrix, or give back one that is checked.

        Parameters
        ----------
        X : array-like of shape (n, d), or Features
            Numbers of any kind.
        name : str
            What messages call it.
        device : str or torch.device
            Where to keep it; ``"auto"`` takes a tensor's own.

        Returns
        -------
        Features

        Raises
        ------
        InputError
            Not 2-D or no numbers, NaN or infinity, no feature.
        """
        if isinstance(X, Features):
            rows = placed(X.rows, device)
            return X if rows is X.rows else cls(rows, X.name)
        return cls(feature_tensor(X, name, device=device), name)

    @property
    def n_features(self) -> int:
        """Number of features, d."""
        return self.rows.shape[1]

    @cached_property
    def unit(self) -> torch.Tensor:
        """The rows at length one, (n, d) float64; a row of zeros is an error."""
        return unit_rows(self.rows, self.name)

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance."""
        return FeatureStatistics().add_rows(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Features(n={len(self)}, n_features={self.n_features})"


def feature_pair(
    X: ArrayLike,
    Y: ArrayLike,
    names: tuple[str, str] = ("X", "Y"),
    *,
    device: str | torch.device = "auto",
) -> tuple[Features, Features]:
    """Check two matrices, the second on the device of the first."""
    first = Features.of(X, names[0], device=device)
    return first, Features.of(Y, names[1], device=first.rows.device)
