"""Linear and clustering baselines behind the contract, fitted by scikit-learn."""

from __future__ import annotations

__all__ = ["ICAConcepts", "KMeansConcepts", "PCAConcepts", "RandomConcepts"]

from typing import Self

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.errors import InputError
from conceptlab.extractors.base import AffineCoder, ConceptExtractor
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

_ICA_RULES = Rules(max_iter=Whole(1), tol=Real(least=0))
_KMEANS_RULES = Rules(
    assignment=OneOf("hard", "soft"), temperature=Real(above=0) | None, n_init=Whole(1)
)


class PCAConcepts(ConceptExtractor):
    """Principal axes: U = (A - mean) W', decoded as U W + mean.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    device : str or torch.device, default="auto"
        Where to code.
    random_state : int, RandomState, Generator or None, default=None
        Of the randomised solver that scikit-learn takes for large data.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        Orthonormal axes, largest variance first.
    offset_ : numpy.ndarray of shape (p,)
        Mean of the data, which decoding adds.
    explained_variance_ratio_ : numpy.ndarray of shape (k,)
        Share of the variance on each axis.
    n_concepts_, n_features_in_, seed_ : int
        k, p and the seed that was used.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.random.default_rng(0).normal(size=(30, 4))
    >>> model = PCAConcepts(4).fit(A)
    >>> bool(np.allclose(model.inverse_transform(model.transform(A)), A))
    True
    """

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Find the principal axes of `X` (n, p); `y` is ignored.

        Returns
        -------
        PCAConcepts
        """
        A = as_numpy(self._check_data(X))
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        self.seed_ = draw_seed(self.random_state)
        fitted = PCA(k, random_state=self.seed_ % 2**32).fit(A)
        self.components_ = np.ascontiguousarray(fitted.components_, dtype=A.dtype)
        self.offset_ = np.asarray(fitted.mean_, dtype=A.dtype)
        with np.errstate(invalid="ignore"):
            self.explained_variance_ratio_ = np.nan_to_num(fitted.explained_variance_ratio_)
        return self

    def as_module(self) -> AffineCoder:
        """Give the projection as a module (..., p) -> (..., k).

        Returns
        -------
        AffineCoder
        """
        check_is_fitted(self)
        return AffineCoder(self.offset_, self.components_.T)


class ICAConcepts(ConceptExtractor):
    """Independent components (FastICA): U = (A - mean) unmixing', decoded as U W + mean.

    W is the mixing matrix, so that decoding gives the data back up to what whitening to k
    dimensions drops.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    max_iter : int, default=500
        Most steps of FastICA.
    tol : float, default=1e-4
        Of FastICA.
    device : str or torch.device, default="auto"
        Where to code.
    random_state : int, RandomState, Generator or None, default=None
        Of the start.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        Directions that the sources (of unit variance) are mixed along; length = their scale.
    unmixing_ : numpy.ndarray of shape (k, p)
        What gives the sources.
    offset_ : numpy.ndarray of shape (p,)
        Mean of the data, which decoding adds.
    n_iter_, n_concepts_, n_features_in_, seed_ : int
        Steps, k, p and the seed that was used.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.random.default_rng(0).uniform(size=(200, 3)) @ np.diag([1.0, 2.0, 3.0])
    >>> model = ICAConcepts(3, random_state=0).fit(A)
    >>> bool(np.allclose(model.inverse_transform(model.transform(A)), A))
    True
    """

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        max_iter: int = 500,
        tol: float = 1e-4,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Find the independent components of `X` (n, p); `y` is ignored.

        Returns
        -------
        ICAConcepts
        """
        _ICA_RULES.check(self)
        A = as_numpy(self._check_data(X))
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        if not np.ptp(A, axis=0).any():
            raise InputError(
                "X is constant: all rows are equal, and sources need variance. Give other data, "
                "or use NMFConcepts, which does not centre.",
                code="CL-INPUT-RANGE",
            )
        self.seed_ = draw_seed(self.random_state)
        fitted = FastICA(
            k,
            whiten="unit-variance",
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.seed_ % 2**32,
        ).fit(A)
        self.components_ = np.ascontiguousarray(fitted.mixing_.T, dtype=A.dtype)
        self.unmixing_ = np.ascontiguousarray(fitted.components_, dtype=A.dtype)
        self.offset_ = np.asarray(fitted.mean_, dtype=A.dtype)
        self.n_iter_ = int(fitted.n_iter_)
        return self

    def as_module(self) -> AffineCoder:
        """Give the unmixing as a module (..., p) -> (..., k).

        Returns
        -------
        AffineCoder
        """
        check_is_fitted(self)
        return AffineCoder(self.offset_, self.unmixing_.T)


class KMeansConcepts(ConceptExtractor):
    """Cluster centres as concepts: codes are memberships, decoded as the centre (or a mix).

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most n; may exceed p.
    assignment : {"hard", "soft"}, default="hard"
        Codes: one-hot in the nearest centre, which decodes to that centre; or the softmax of
        -squared distance / (2 temperature), which decodes to an average of centres.
    temperature : float or None, default=None
        Of "soft", in squared units of the data; None takes the mean squared distance of a row
        to its centre divided by p, the variance of a spherical mixture.
    n_init : int, default=4
        Starts of scikit-learn's k-means.
    device : str or torch.device, default="auto"
        Where to code.
    random_state : int, RandomState, Generator or None, default=None
        Of the starts.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        Centres, largest cluster first.
    temperature_ : float
        What "soft" uses.
    inertia_ : float
        Sum of squared distances to the nearest centre.
    n_concepts_, n_features_in_, seed_ : int
        k, p and the seed that was used.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 0.0], [0.2, 0.0], [5.0, 5.0]])
    >>> model = KMeansConcepts(2, random_state=0).fit(A)
    >>> model.transform(A)
    array([[1., 0.],
           [1., 0.],
           [0., 1.]])
    """

    _overcomplete = True

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        assignment: str = "hard",
        temperature: float | None = None,
        n_init: int = 4,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.assignment = assignment
        self.temperature = temperature
        self.n_init = n_init
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Find the clusters of `X` (n, p); `y` is ignored.

        Returns
        -------
        KMeansConcepts
        """
        _KMEANS_RULES.check(self)
        A = as_numpy(self._check_data(X))
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        self.seed_ = draw_seed(self.random_state)
        fitted = KMeans(k, n_init=self.n_init, random_state=self.seed_ % 2**32).fit(A)
        order = np.argsort(-np.bincount(fitted.labels_, minlength=k), kind="stable")
        self.components_ = np.ascontiguousarray(fitted.cluster_centers_[order], dtype=A.dtype)
        self.inertia_ = float(fitted.inertia_)
        spread = max(self.inertia_ / A.size, float(np.finfo(np.float32).tiny))
        self.temperature_ = spread if self.temperature is None else float(self.temperature)
        return self

    def as_module(self) -> torch.nn.Module:
        """Give the assignment as a module (..., p) -> (..., k).

        Returns
        -------
        torch.nn.Module
            Differentiable for "soft"; for "hard" the derivative is zero wherever it exists.
        """
        check_is_fitted(self)
        soft = self.assignment == "soft"
        return _Assignment(self.components_, self.temperature_ if soft else None)


class _Assignment(torch.nn.Module):
    centres: torch.Tensor

    def __init__(self, centres: np.ndarray, temperature: float | None) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("centres", torch.tensor(centres))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        centres = self.centres.to(activations)
        # |a - c|^2 without |a|^2, which changes neither the softmax nor the largest entry;
        # centred, so that a large common mean costs no digits.
        middle = centres.mean(0)
        rows, centres = activations - middle, centres - middle
        closeness = rows @ centres.mT - 0.5 * centres.square().sum(-1)
        if self.temperature is not None:
            return (closeness / self.temperature).softmax(-1)
        return torch.nn.functional.one_hot(closeness.argmax(-1), len(centres)).to(activations)


class RandomConcepts(ConceptExtractor):
    """Random orthonormal directions around the mean: the control that any method must beat.

    Parameters
    ----------
    n_concepts : int, default=10
        k, at most min(n, p).
    device : str or torch.device, default="auto"
        Where to code.
    random_state : int, RandomState, Generator or None, default=None
        Of the directions, uniform on the orthonormal frames.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        Orthonormal directions.
    offset_ : numpy.ndarray of shape (p,)
        Mean of the data, which decoding adds.
    n_concepts_, n_features_in_, seed_ : int
        k, p and the seed that was used.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.random.default_rng(0).normal(size=(30, 4))
    >>> RandomConcepts(2, random_state=0).fit_transform(A).shape
    (30, 2)
    """

    def __init__(
        self,
        n_concepts: int = 10,
        *,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Draw directions in the space of `X` (n, p); `y` is ignored.

        Returns
        -------
        RandomConcepts
        """
        A = as_numpy(self._check_data(X))
        k = self._check_n_concepts(self.n_concepts, *A.shape)
        self.seed_ = draw_seed(self.random_state)
        frame, triangle = np.linalg.qr(numpy_generator(self.seed_).normal(size=(A.shape[1], k)))
        frame = frame * np.sign(np.diag(triangle))  # without this the frames are not uniform
        self.components_ = np.ascontiguousarray(frame.T, dtype=A.dtype)
        self.offset_ = A.mean(0, dtype=np.float64).astype(A.dtype)
        return self

    def as_module(self) -> AffineCoder:
        """Give the projection as a module (..., p) -> (..., k).

        Returns
        -------
        AffineCoder
        """
        check_is_fitted(self)
        return AffineCoder(self.offset_, self.components_.T)
