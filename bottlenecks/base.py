"""The contract of every model that decides through named concepts."""

from __future__ import annotations

__all__ = ["Bottleneck"]

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from bottlenecks.explaining import Contributions, weights_frame
from bottlenecks.intervals import weighted_quantiles
from bottlenecks.realign import residual_covariance
from bottlenecks.reasons import LinearReasons
from bottlenecks.seen import row_codes
from bottlenecks.subject import Subject
from bottlenecks.targets import Predicting, Target, checked_target
from conceptlab.arrays import (
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    like_input,
    resolve_device,
)
from conceptlab.bank.form import BANK_FORM
from conceptlab.errors import InputError, SpaceMismatchError
from conceptlab.io.objects import Saved, SavedEstimator, family

if TYPE_CHECKING:
    import pandas

    from conceptlab.bank import ConceptBank

_QUANTILES = (0.05, 0.95)


class Bottleneck(Predicting, LinearReasons, SavedEstimator, ClassifierMixin, BaseEstimator):
    """Base of the bottlenecks: features X, scores S, activations A, logits A Wᵀ + b.

    X (n, d) holds features of the bank's space and S = ``bank.score(X)``; without a bank the
    columns of X are the scores. A subclass writes :meth:`_fit_scores`, which sets ``coef_``
    (K, k) and ``intercept_`` (K,) on the activations, and may replace :meth:`_activations`
    (by default scores in standard deviations of the fit) and :meth:`_scores`. A part of the
    logits that goes round the concepts is ``residual_coef_`` (K, d) and
    ``residual_intercept_`` (K,). Fitted attributes are NumPy arrays or JSON values.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Not for numbers.
    output_names_ : ndarray of shape (K,)
        Classes, or names of the columns of y, or their numbers.
    concept_names_ : list of k str
    coef_ : ndarray of shape (K, k), float64
        Two classes have two rows.
    intercept_ : ndarray of shape (K,), float64
    score_mean_, score_scale_ : ndarray of shape (k,), float64
        What scores are shifted and divided by: their mean and standard deviation in the fit,
        where a subclass does not say otherwise.
    activation_range_ : ndarray of shape (k, 2), float64
        Least and largest activation in the fit.
    activation_levels_ : ndarray of shape (k, 2), float64
        What an intervention writes for "absent" and "present".
    activation_covariance_ : ndarray of shape (k, k), float64, or None
        Of activations within classes, by which ``realign=True`` moves the other concepts; None
        for more than 1024 concepts.
    fit_rows_ : ndarray of int64
        Codes of at most 4096 rows of the fit, by which a curve tells that it sees them again.
    space_ : str or None
        Fingerprint of the encoder of the features, where it is known.
    n_features_in_ : int

    Examples
    --------
    >>> from bottlenecks import Bottleneck, PostHocCBM
    >>> rng = np.random.default_rng(0)
    >>> X = (rng.random((200, 4)) < 0.5) + 0.1 * rng.normal(size=(200, 4))
    >>> model = PostHocCBM(nec=2).fit(X, X[:, 0] > 0.5)
    >>> isinstance(model, Bottleneck), model.predict_concepts(X).shape
    (True, (200, 4))
    """

    _forms = (BANK_FORM,)
    _needs_spread = True
    """Whether a constant score is an error."""

    bank: ConceptBank | None
    device: str | torch.device
    target: str
    class_weight: Any
    concept_names_: list[str]
    coef_: np.ndarray
    intercept_: np.ndarray
    n_features_in_: int

    # -- what a subclass writes -----------------------------------------------------
    def _fit_scores(
        self, S: torch.Tensor, target: Target, X: torch.Tensor, weight: np.ndarray | None
    ) -> None:
        """Set ``coef_`` and ``intercept_``, and all that :meth:`_activations` reads.

        `S` (n, k) are scores, `X` (n, d) features, `weight` (n,) what rows count, above 0.
        """
        raise NotImplementedError

    def _activations(self, S: torch.Tensor) -> torch.Tensor:
        """Turn scores (n, k) into what the head sees, (n, k)."""
        mean, scale = (torch.from_numpy(v).to(S) for v in (self.score_mean_, self.score_scale_))
        return (S - mean) / scale

    def _scores(self, X: torch.Tensor) -> torch.Tensor:
        """Score features (n, d) on the concepts, (n, k)."""
        return X if self.bank is None else self.bank.score(X)

    def _levels(self, A: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Choose activations that stand for absent and present, (k, 2), from those of the fit."""
        return weighted_quantiles(A, _QUANTILES, weight)

    def _uncertainty(self, S: torch.Tensor, A: torch.Tensor) -> np.ndarray:
        """Tell how undecided each concept is, (n, k), larger for less sure."""
        low, high = self.activation_levels_.T
        width = np.where(high > low, high - low, 1.0)
        undecided: np.ndarray = -np.abs(as_numpy(A).astype(np.float64) - (low + high) / 2) / width
        return undecided

    # -- fit ----------------------------------------------------------------------
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        space: str | None = None,
    ) -> Self:
        """Fit the bottleneck.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of the bank's space; concept scores where there is no bank.
        y : array-like of shape (n,) or (n, K)
            Classes, at least two; with ``target="labels"`` zeros and ones, with
            ``target="values"`` numbers.
        sample_weight : array-like of shape (n,), optional
            At least 0. A row of weight 2 is as good as two rows, one of weight 0 as none.
        space : str, optional
            Fingerprint of the encoder that made `X` (``encoder.fingerprint``), to be compared
            with the bank's.

        Returns
        -------
        self

        Raises
        ------
        InputError
            No labels, one class (``CL-INPUT-FEW``), a constant concept (``CL-INPUT-ZERO``),
            another width than the bank's vectors (``CL-INPUT-FEATURES``), NaN, parameters out
            of range.
        SpaceMismatchError
            A bank of another encoder.
        """
        rows, target, weight, _ = self._read(X, y, sample_weight, space)
        self.concept_names_ = self._names()
        S = self._scores(rows)
        self._set_statistics(S, weight)
        self._fit_scores(S, target, rows, weight)
        self._set_levels(rows, target, weight)
        return self

    def _read(
        self, X: ArrayLike, y: ArrayLike | None, sample_weight: ArrayLike | None, space: str | None
    ) -> tuple[torch.Tensor, Target, np.ndarray | None, np.ndarray | None]:
        """Check what fit was given; rows that count, their targets, weights, and which they are."""
        matrix = check_features(self, X, reset=True)
        target, weight, index = checked_target(self, y, matrix, sample_weight)
        self._check_bank(space)
        self._set_outputs(target)
        rows = self._as_rows(matrix)
        if index is not None:
            rows = rows[torch.from_numpy(index).to(rows.device)]
        return rows, target, weight, index

    def _set_levels(self, rows: torch.Tensor, target: Target, weight: np.ndarray | None) -> None:
        with torch.no_grad():
            A = as_numpy(self._activations(self._scores(rows))).astype(np.float64)
        self.activation_range_ = np.stack([A.min(axis=0), A.max(axis=0)], axis=1)
        self.activation_levels_ = self._levels(A, weight)
        self.activation_covariance_ = residual_covariance(A, target, weight)
        self.fit_rows_ = row_codes(rows)

    def _check_bank(self, space: str | None) -> None:
        from conceptlab.bank import ConceptBank

        if self.bank is None:
            self.space_ = space
            return
        if not isinstance(self.bank, ConceptBank):
            raise InputError(
                f"bank must be a ConceptBank or None, got {type(self.bank).__name__}. Make one "
                "with ConceptBank.from_texts or ConceptBank.from_examples.",
                code="CL-INPUT-TYPE",
            )
        if self.n_features_in_ != self.bank.n_features:
            raise InputError(
                f"X has {self.n_features_in_} features, but the vectors of the bank have length "
                f"{self.bank.n_features}. Encode with the encoder that the bank was made with.",
                code="CL-INPUT-FEATURES",
            )
        self.bank.check_space(space)
        self.space_ = space if space is not None else self.bank.space

    def _names(self) -> list[str]:
        if self.bank is not None:
            return list(self.bank.names)
        known = getattr(self, "feature_names_in_", None)
        if known is not None:
            return [str(name) for name in known]
        return [f"concept{i}" for i in range(self.n_features_in_)]

    def _set_statistics(self, S: torch.Tensor, weight: np.ndarray | None) -> None:
        wide = S.double() if S.device.type != "mps" else S.cpu().double()
        constant = (wide.amax(dim=0) == wide.amin(dim=0)).cpu().numpy()
        if self._needs_spread and len(wide) > 1 and constant.any():
            which = [self.concept_names_[j] for j in np.flatnonzero(constant)]
            raise InputError(
                f"{len(which)} concept(s) have the same score in all {len(wide)} rows, so they can "
                f"tell nothing: {which[:5]}. Leave them out: bank.select(...), or drop the "
                "columns.",
                code="CL-INPUT-ZERO",
            )
        share = 1.0 if weight is None else torch.from_numpy(weight / weight.mean())[:, None]
        mean = (wide * share).mean(dim=0)
        self.score_mean_ = mean.cpu().numpy()
        scale = ((wide - mean).square() * share).mean(dim=0).sqrt().cpu().numpy()
        self.score_scale_ = np.where(scale > 0, scale, 1.0)

    # -- what it says ---------------------------------------------------------------
    @like_input
    def predict_concepts(self, X: ArrayLike) -> Any:
        """Give the concept activations, on which ``coef_`` acts.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, k)
            Columns as in ``concept_names_``; like in, like out.
        """
        return self._forward(X)[1]

    def _as_rows(self, matrix: Any) -> torch.Tensor:
        device = resolve_device(self.device, like=matrix)
        dtype = torch.float32 if device.type == "mps" else None
        return as_tensor(matrix, device=device, dtype=dtype)

    def _forward(self, X: ArrayLike) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give features, activations and scores of what a user gave."""
        check_is_fitted(self)
        rows = self._as_rows(check_features(self, X, reset=False))
        with torch.no_grad():
            S = self._scores(rows)
            return rows, self._activations(S), S

    def _head(self, A: torch.Tensor) -> torch.Tensor:
        return A @ torch.from_numpy(self.coef_).to(A).T + torch.from_numpy(self.intercept_).to(A)

    def _residual(self, X: torch.Tensor) -> torch.Tensor | None:
        """Give the part of the logits that does not go through the concepts, (n, K), or None."""
        W = getattr(self, "residual_coef_", None)
        if W is None:
            return None
        b = torch.from_numpy(self.residual_intercept_).to(X)
        return X @ torch.from_numpy(W).to(X).T + b

    def _logits(self, X: ArrayLike) -> torch.Tensor:
        rows, A, _ = self._forward(X)
        R = self._residual(rows)
        return self._head(A) if R is None else self._head(A) + R

    # -- which concepts ---------------------------------------------------------------
    @property
    def n_concepts_(self) -> int:
        """Number of concepts."""
        check_is_fitted(self)
        return len(self.concept_names_)

    @property
    def nec_(self) -> float:
        """Number of effective concepts: the mean number of non-zero weights of a class."""
        check_is_fitted(self)
        return float((self.coef_ != 0).sum(axis=1).mean())

    @property
    def active_concepts_(self) -> list[str]:
        """Names of the concepts that some class uses."""
        check_is_fitted(self)
        used = (self.coef_ != 0).any(axis=0)
        return [name for name, use in zip(self.concept_names_, used, strict=True) if use]

    def to_frame(self) -> pandas.DataFrame:
        """Give the non-zero weights, the strongest of each class first.

        Returns
        -------
        pandas.DataFrame
            Columns class, concept, weight.
        """
        check_is_fitted(self)
        return weights_frame(self.coef_, self.concept_names_, self.outputs_)

    def check_space(self, encoder: Any) -> None:
        """Raise an error if features of `encoder` do not fit; unknown spaces pass.

        Parameters
        ----------
        encoder : Encoder or str
            An encoder, or its fingerprint.

        Raises
        ------
        SpaceMismatchError
            Names both fingerprints.
        """
        check_is_fitted(self)
        theirs = getattr(encoder, "fingerprint", encoder)
        if self.space_ is not None and theirs is not None and theirs != self.space_:
            raise SpaceMismatchError(
                f"This model was fitted on features of space {self.space_[:12]}..., but those of "
                f"{str(theirs)[:12]}... were given. Encode with the encoder of the fit."
            )

    # -- why, and what if ---------------------------------------------------------------
    def explain(self, X: ArrayLike) -> Contributions:
        """Take the logits apart by concept.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        Contributions
            Of concept j to class c: weight times activation; with the bias (and the residual)
            they add up to the logit.
        """
        rows, A, _ = self._forward(X)
        R = self._residual(rows)
        return Contributions(
            activations=as_numpy(A).astype(np.float64),
            coef=self.coef_,
            bias=self.intercept_,
            residual=None if R is None else as_numpy(R).astype(np.float64),
            concept_names=list(self.concept_names_),
            classes=self.outputs_,
        )

    def _subject(
        self,
        X: Any,
        values: Any,
        codes: np.ndarray | None,
        *,
        presence: bool = False,
        from_rows: bool = False,
    ) -> Subject:
        rows, A, S = self._forward(X)
        R = self._residual(rows)
        logits = self._head(A.double() if A.device.type != "mps" else A)
        return Subject.of(
            values,
            activations=as_numpy(A).astype(np.float64),
            logits=as_numpy(logits if R is None else logits + R).astype(np.float64),
            uncertainty=self._uncertainty(S, A),
            coef=self.coef_,
            levels=self.activation_levels_,
            covariance=getattr(self, "activation_covariance_", None),
            limits=self.activation_range_,
            concept_names=self.concept_names_,
            classes=self.outputs_,
            y=codes,
            presence=presence,
            from_rows=from_rows,
        )

    @classmethod
    def _kinds(cls) -> dict[str, type[Saved]]:
        return family(cls, "bottlenecks") if cls is Bottleneck else super()._kinds()

    def __sklearn_is_fitted__(self) -> bool:
        known = hasattr(self, "output_names_") or hasattr(
            self, "classes_"
        )  # the latter of old files
        return hasattr(self, "coef_") and known
