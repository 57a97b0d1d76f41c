"""Mean and covariance of features that come in batches, in float64."""

from __future__ import annotations

__all__ = ["FeatureStatistics"]

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_tensor
from conceptlab.distributed.world import World
from conceptlab.errors import InputError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import read_plain_file, rebuilding
from conceptlab.parameters import Whole
from unlearning.distances.linalg import gram
from unlearning.distances.rows import feature_tensor


class FeatureStatistics:
    """Running mean and covariance of features.

    Sums are taken about the mean of the first batch, so that a mean that is large
    against the spread costs no digits. While there are fewer rows than features the
    rows themselves are kept, which are less to store and more to compute with.

    Parameters
    ----------
    device : str or torch.device
        Where to keep and compute; ``"auto"`` takes the first batch's.

    Attributes
    ----------
    n : int
        Rows seen.
    n_features : int
        d; 0 before the first batch.
    counted : bool
        Whether `n` is known; see :meth:`from_moments`.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(loc=1e6, size=(1000, 4))
    >>> statistics = FeatureStatistics()
    >>> for batch in np.split(X, 10):
    ...     _ = statistics.update(batch)
    >>> bool(np.allclose(statistics.covariance, np.cov(X.T), rtol=1e-9))
    True
    """

    def __init__(self, *, device: str | torch.device = "auto") -> None:
        self._wanted = device
        self.device = torch.device("cpu")
        self.n = 0
        self.n_features = 0
        self._rows: list[torch.Tensor] = []
        self._shift = torch.empty(0)
        self._sum = torch.empty(0)
        self._outer: torch.Tensor | None = None
        self._covariance: torch.Tensor | None = None
        self.counted = True

    @classmethod
    def from_moments(
        cls,
        mean: Any,
        covariance: Any,
        n: int | None = None,
        *,
        device: str | torch.device = "auto",
    ) -> FeatureStatistics:
        """Take a mean and a covariance that others have computed.

        Parameters
        ----------
        mean : array-like of shape (d,)
            The mean.
        covariance : array-like of shape (d, d)
            The unbiased covariance.
        n : int, optional
            Rows that they were computed of. Without it distances are known, and their bias is
            not.
        device : str or torch.device
            Where to keep them.

        Returns
        -------
        FeatureStatistics

        Raises
        ------
        InputError
            Shapes that do not fit, NaN or infinity, or a matrix that is no covariance.

        Examples
        --------
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> found = FeatureStatistics.from_moments(X.mean(axis=0), np.cov(X.T), 50)
        >>> bool(np.allclose(found.covariance, FeatureStatistics().update(X).covariance))
        True
        """
        C = feature_tensor(covariance, "covariance", device=device)
        middle = feature_tensor(as_tensor(mean, name="mean").reshape(1, -1), "mean", device=device)
        if tuple(C.shape) != (middle.shape[1],) * 2:
            raise InputError(
                f"A mean of {middle.shape[1]} features needs a covariance of {middle.shape[1]} × "
                f"{middle.shape[1]}, got {tuple(C.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        if not torch.allclose(C, C.T, rtol=1e-5, atol=1e-8) or bool((C.diagonal() < 0).any()):
            raise InputError(
                "covariance is not symmetric with variances of at least 0. Give np.cov(X.T).",
                code="CL-INPUT-RANGE",
            )
        if n is not None:
            Whole(2).check("n", n)
        found = cls(device=device)
        found.device, found.n_features = C.device, len(C)
        found.n, found.counted = n or 0, n is not None
        found._shift, found._sum = middle[0], torch.zeros_like(middle[0])
        found._covariance = (C + C.T) / 2
        found._outer = found._covariance * (max(found.n, 2) - 1)
        return found

    @classmethod
    def from_npz(cls, path: str | os.PathLike[str], n: int | None = None) -> FeatureStatistics:
        """Read statistics in the format of pytorch-fid and clean-fid: ``mu`` and ``sigma``.

        Parameters
        ----------
        path : path-like
            The ``.npz`` file.
        n : int, optional
            Images that they were computed of, which the file does not say.

        Returns
        -------
        FeatureStatistics

        Raises
        ------
        InputError
            No such file, or one without the two arrays (``CL-INPUT-FILE``).

        Examples
        --------
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> np.savez("stats.npz", mu=X.mean(axis=0), sigma=np.cov(X.T))
        >>> FeatureStatistics.from_npz("stats.npz", 50)
        FeatureStatistics(n=50, n_features=3)
        """
        try:
            with np.load(io.BytesIO(read_plain_file(path, limit=2**33))) as arrays:
                mean, covariance = arrays["mu"], arrays["sigma"]
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{os.fspath(path)} holds no arrays 'mu' and 'sigma': {error}. Make it with "
                "pytorch-fid (--save-stats), or np.savez(path, mu=..., sigma=...).",
                code="CL-INPUT-FILE",
            ) from error
        return cls.from_moments(mean, covariance, n)

    def update(self, X: ArrayLike, *, name: str = "X") -> FeatureStatistics:
        """Add a batch.

        Parameters
        ----------
        X : array-like of shape (m, d)
            Any floating dtype; no row is fine.
        name : str
            What messages call it.

        Returns
        -------
        FeatureStatistics
            This object.

        Raises
        ------
        InputError
            Not 2-D, another number of features, NaN or infinity.
        """
        return self.add_rows(self._check(X, name))

    def add_rows(self, batch: torch.Tensor) -> FeatureStatistics:
        """Add rows that are checked, float64 (m, d); see :meth:`update`."""
        self._need_count()
        if self.n == 0:
            self.device = batch.device
            self.n_features = batch.shape[1]
        if len(batch) == 0:
            return self
        if self.n == 0:
            self._shift = batch.mean(dim=0)
            self._sum = torch.zeros_like(self._shift)
        self._covariance = None
        centred = batch - self._shift
        self._sum += centred.sum(dim=0)
        self.n += len(batch)
        if self._outer is None and self.n <= self.n_features:
            self._rows.append(centred)
            return self
        if self._outer is None:
            self._outer = gram(torch.cat([*self._rows, centred]))
            self._rows = []
        else:
            self._outer += gram(centred)
        return self

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Join two sets into a new one, such as the parts of several processes.

        Parameters
        ----------
        other : FeatureStatistics
            Of as many features.

        Returns
        -------
        FeatureStatistics
        """
        self._need_count()
        other._need_count()
        if 0 in (self.n, other.n):
            kept = self if other.n == 0 else other
            return kept.to(kept.device)
        if self.n_features != other.n_features:
            raise InputError(
                f"Cannot join statistics of {self.n_features} and {other.n_features} features.",
                code="CL-INPUT-FEATURES",
            )
        joined = FeatureStatistics(device=self.device)
        if self._outer is None and other._outer is None:
            for part in (self, other):
                for rows in part._rows:
                    joined.update((rows + part._shift).to(self.device))
            return joined
        joined.device, joined.n_features = self.device, self.n_features
        joined.n = self.n + other.n
        joined._shift = self._shift.clone()
        moved = other.to(self.device)
        gap = moved._shift - self._shift
        cross = torch.outer(moved._sum, gap)
        joined._sum = self._sum + moved._sum + moved.n * gap
        joined._outer = (
            self._second() + moved._second() + cross + cross.T + moved.n * torch.outer(gap, gap)
        )
        return joined

    def over(self, world: World) -> FeatureStatistics:
        """Join the statistics of all processes; each gets the same.

        Parameters
        ----------
        world : World
            From :func:`conceptlab.distributed.init`. A process without rows joins with statistics
            that are empty.

        Returns
        -------
        FeatureStatistics
            Of the rows of all, as moments.

        Raises
        ------
        InputError
            ``CL-INPUT-FEATURES`` where processes hold other numbers of features;
            ``CL-INPUT-FEW`` for fewer than two rows in all.
        """
        if world.size == 1:
            return self
        self._need_count()
        widths = {d for n, d in world.gather((self.n, self.n_features)) if n}
        if len(widths) > 1:
            raise InputError(
                f"Cannot join statistics of {' and '.join(map(str, sorted(widths)))} features.",
                code="CL-INPUT-FEATURES",
            )
        n = int(world.sum(torch.tensor(self.n)))
        if n < 2:
            raise InputError(f"{n} row(s) on all ranks; 2 are needed.", code="CL-INPUT-FEW")
        (d,) = widths
        empty = torch.zeros(d, dtype=torch.float64, device=self.device)
        mine = self.mean_ if self.n else empty
        # About the mean of one rank, so that a mean that is large against the spread costs nothing.
        origin = world.broadcast(mine, world.largest(float(self.n)))
        mean = origin + world.sum(self.n * (mine - origin)) / n
        off = mine - mean if self.n else empty
        scatter = self.n * torch.outer(off, off)
        if self.n > 1:
            scatter += (self.n - 1) * self.covariance_
        return FeatureStatistics.from_moments(
            mean, world.sum(scatter) / (n - 1), n, device=self.device
        )

    def to(self, device: torch.device | str) -> FeatureStatistics:
        """Give a copy on `device`, or this object if it is there."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = FeatureStatistics(device=device)
        moved.device, moved.n, moved.n_features = device, self.n, self.n_features
        moved._rows = [rows.to(device) for rows in self._rows]
        moved._shift, moved._sum = self._shift.to(device), self._sum.to(device)
        moved._outer = None if self._outer is None else self._outer.to(device)
        moved._covariance = None if self._covariance is None else self._covariance.to(device)
        moved.counted = self.counted
        return moved

    @property
    def mean(self) -> np.ndarray:
        """The mean, (d,) float64."""
        return np.asarray(self.mean_.cpu().numpy())

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, (d, d) float64."""
        return np.asarray(self.covariance_.cpu().numpy())

    @property
    def mean_(self) -> torch.Tensor:
        """The mean as a tensor on the device."""
        self._need(1)
        return self._shift + self._sum / max(self.n, 1)

    @property
    def covariance_(self) -> torch.Tensor:
        """The unbiased covariance as a tensor on the device."""
        self._need(2)
        if self._covariance is None:
            if self._outer is None:
                rows = self.factor_rows()
                self._covariance = torch.empty(0) if rows is None else gram(rows)
            else:
                off = self._sum / self.n
                found = (self._outer - self.n * torch.outer(off, off)) / (self.n - 1)
                # Rounding may leave a constant feature a variance of 1e-17.
                dust = found.diagonal() <= 1e-14 * self._outer.diagonal() / self.n
                found[dust] = 0
                found[:, dust] = 0
                self._covariance = found
        return self._covariance

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        rows = self.factor_rows()
        if rows is not None:
            return float(rows.square().sum())
        return float(self.covariance_.diagonal().sum())

    def factor_rows(self) -> torch.Tensor | None:
        """Give A (n, d) with Aᵀ A the covariance, or None once n exceeds d."""
        if self._outer is not None:
            return None
        self._need(2)
        rows = torch.cat(self._rows) - self._sum / self.n
        return rows / float(np.sqrt(self.n - 1))

    def factor(self) -> torch.Tensor:
        """Give F (d, r) with F Fᵀ the covariance, at any rank."""
        rows = self.factor_rows()
        if rows is not None:
            return rows.T
        values, vectors = torch.linalg.eigh(self.covariance_)
        # Eigenvalues that are rounding would enter the nuclear norm by their roots.
        kept = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        return vectors[:, kept] * values[kept].sqrt()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`."""
        self._need(1)
        tensors = {"shift": self._shift.cpu().numpy(), "sum": self._sum.cpu().numpy()}
        if self._outer is None:
            tensors["rows"] = torch.cat(self._rows).cpu().numpy()
        else:
            tensors["outer"] = self._outer.cpu().numpy()
        return write_bundle(path, Bundle("FeatureStatistics", {"n": self.n}, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Read what :meth:`save` wrote."""
        bundle = read_bundle(path, "FeatureStatistics")
        with rebuilding(path, "FeatureStatistics"):
            found = cls(device="cpu")
            parts = {name: torch.from_numpy(value) for name, value in bundle.tensors.items()}
            found.n, found._shift, found._sum = int(bundle.data["n"]), parts["shift"], parts["sum"]
            found.n_features = len(found._shift)
            found._rows = [parts["rows"]] if "rows" in parts else []
            found._outer = parts.get("outer")
            if found.n == 0 and found._outer is not None:
                found.counted, found._covariance = False, found._outer
            return found

    def __repr__(self) -> str:
        return f"FeatureStatistics(n={self.n}, n_features={self.n_features})"

    def _second(self) -> torch.Tensor:
        if self._outer is not None:
            return self._outer
        return gram(torch.cat(self._rows))

    def _need(self, least: int) -> None:
        if self.counted and self.n < least:
            raise InputError(
                f"These statistics have seen {self.n} row(s), {least} are needed. Add features "
                "with update().",
                code="CL-INPUT-FEW",
            )

    def _need_count(self) -> None:
        if not self.counted:
            raise InputError(
                "It is not known how many rows these statistics are of, so none can be added. Give "
                "n= where they are read.",
                code="CL-INPUT-OPTION",
            )

    def _check(self, X: ArrayLike, name: str) -> torch.Tensor:
        batch = feature_tensor(X, name, device=self._wanted if self.n == 0 else self.device)
        if self.n and batch.shape[1] != self.n_features:
            raise InputError(
                f"{name} has {batch.shape[1]} features, the batches before had {self.n_features}.",
                code="CL-INPUT-FEATURES",
            )
        return batch
