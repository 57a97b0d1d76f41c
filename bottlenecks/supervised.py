"""Concept bottlenecks from concept labels: concepts first, then the classes."""

from __future__ import annotations

__all__ = ["ConceptBottleneck"]

import warnings
from typing import Any, Self

import numpy as np
import torch

from bottlenecks.base import Bottleneck
from bottlenecks.concept_labels import (
    ConceptLabels,
    check_both_kinds,
    conformal_sets,
    read_concepts,
    split_for_calibration,
)
from bottlenecks.concept_layer import fit_concepts, fit_jointly, platt
from bottlenecks.heads import SparseLinearHead
from bottlenecks.heads.dense import dense_head
from bottlenecks.targets import Target
from conceptlab import ConceptBank
from conceptlab.arrays import ArrayLike, as_numpy, like_input
from conceptlab.errors import InputError
from conceptlab.parameters import Flag, OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed

MODES = ("independent", "sequential", "joint")
_RULES = Rules(
    mode=OneOf(*MODES),
    concept_weight=Real(least=0),
    calibrate=Flag(),
    calibration_fraction=Real(least=0, below=1),
    lam=Real(least=0) | None,
    nec=Real(least=0) | None,
    max_iter=Whole(1),
)


class ConceptBottleneck(Bottleneck):
    """Learn concepts from their labels, and the classes from the concepts.

    A concept is a logistic regression on the features X, ``z_j = V_j X + v_j``, of which the
    classes see the probability: logits are ``A Wᵀ + b`` with A = sigmoid(z) in [0, 1].

    Parameters
    ----------
    bank : ConceptBank, optional
        Concepts in the space of X. Concept j is then read from its score alone; labels say
        where on it the concept begins. None reads each concept from all of X.
    mode : {"independent", "sequential", "joint"}
        - "independent": the head is fitted on the true concepts (what is not known is filled
          with the probability), so that a true concept set by hand is what it expects;
        - "sequential": the head is fitted on the probabilities that the concepts predict;
        - "joint": concepts and head together, cross-entropy of the classes plus
          `concept_weight` times that of the concepts. Concepts then tell of the classes what
          they do not mean (leakage), the more the smaller the weight.
    concept_weight : float
        Of "joint", λ in the paper. Towards infinity it is "sequential" on probabilities that
        are not calibrated.
    target : {"classes", "labels", "values"}
        What y holds: a class a row; several labels, (n, L) of 0 and 1; numbers, (n,) or (n, T).
    class_weight : None, "balanced" or dict
        Of classes; multiplies the weights of rows.
    calibrate : bool
        Whether probabilities of concepts are brought in line with rows held out (Platt). In
        mode "joint" the head goes on to see those it was trained with;
        :meth:`predict_concept_proba` gives the calibrated ones.
    calibration_fraction : float
        Share of rows held out from the concepts, for calibration and :meth:`conformal_sets`.
        Equal rows are held out together. Below 20 different rows none is.
    lam, nec : float, optional
        Of a sparse head, see :class:`bottlenecks.SparseLinearHead`; with neither, all concepts
        decide, under a ridge of 1 / n.
    max_iter : int
        Most iterations of each solver.
    device : str or torch.device
        Where scores of a bank are computed.
    random_state : optional
        Of the rows held out.

    Attributes
    ----------
    coef_, intercept_, classes_, concept_names_ : see Bottleneck
    concept_coef_ : ndarray of shape (k, d), float64
        V.
    concept_intercept_ : ndarray of shape (k,), float64
        v.
    calibration_ : ndarray of shape (k, 2), float64
        Slope (at least 0) and shift of the logits: the probability is sigmoid(slope z +
        shift). (1, 0) without calibration, and where fewer than 10 labels or labels of one
        kind were held out.
    conformal_scores_ : ndarray of shape (m, k), float64
        Of the rows held out: minus the logit towards the true label; NaN where not known.
    joint_objective_ : float
        Of "joint": loss of classes and concepts with their ridges, at its end; else NaN.
    n_iter_ : int
        Most steps of a concept; of "joint", those of all together.
    seed_ : int

    Raises
    ------
    InputError
        In fit: see :meth:`fit`.

    Notes
    -----
    Concept weights have a ridge of 1 / (labels of the concept) on standardised features, which
    is scikit-learn's ``C=1``. The networks of the paper are the backbone here: X are its
    features. All three problems are solved, "joint" from where "sequential" ends, so that no
    seed decides but that of the rows held out.

    References
    ----------
    Koh et al., Concept Bottleneck Models, ICML 2020, section 3 (the three ways) and 4.3
    (interventions). Platt, Probabilistic outputs for support vector machines, 1999. Vovk,
    Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal sets).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shown = rng.random((300, 3)) < 0.5
    >>> X = shown @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(300, 8))
    >>> labels = {"red": shown[:, 0], "round": shown[:, 1], "big": shown[:, 2]}
    >>> y = shown[:, 0] & shown[:, 1]
    >>> model = ConceptBottleneck(random_state=0).fit(X, y, concepts=labels)
    >>> model.concept_names_, model.predict_concept_proba(X).shape
    (['red', 'round', 'big'], (300, 3))
    >>> model.conformal_sets(X[:2], level=0.9).shape
    (2, 3, 2)
    """

    _needs_spread = False

    def __init__(
        self,
        bank: ConceptBank | None = None,
        *,
        mode: str = "independent",
        concept_weight: float = 1.0,
        target: str = "classes",
        class_weight: Any = None,
        calibrate: bool = True,
        calibration_fraction: float = 0.2,
        lam: float | None = None,
        nec: float | None = None,
        max_iter: int = 2000,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.bank = bank
        self.mode = mode
        self.concept_weight = concept_weight
        self.target = target
        self.class_weight = class_weight
        self.calibrate = calibrate
        self.calibration_fraction = calibration_fraction
        self.lam = lam
        self.nec = nec
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        concepts: Any = None,
        space: str | None = None,
    ) -> Self:
        """Learn the concepts and the head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features, of the bank's space where there is one.
        y : array-like of shape (n,) or (n, K)
            Classes; see `target`.
        sample_weight : array-like of shape (n,), optional
            At least 0; counts for concepts and classes. Conformal sets count rows alike.
        concepts : array-like of shape (n, k), data frame, or mapping of name to (n,)
            Labels 0 and 1, or booleans; NaN where it is not known. Without, a column of X (a
            score of the bank) above its mean stands for a present concept, with a warning.
        space : str, optional
            Fingerprint of the encoder that made `X`, to be compared with the bank's.

        Returns
        -------
        ConceptBottleneck

        Raises
        ------
        InputError
            A concept whose known labels are all alike (``CL-INPUT-ZERO``), one without any
            (``CL-INPUT-EMPTY``), labels of another length or number than the bank's concepts
            (``CL-INPUT-SHAPE``), values other than 0, 1 and NaN (``CL-INPUT-LABELS``); see the
            base class.
        """
        rows, target, weight, index = self._read(X, y, sample_weight, space)
        _RULES.check(self)
        n = len(rows) if index is None else int(np.asarray(len(as_numpy(y))))
        features = as_numpy(rows if self.bank is None else self.bank.score(rows)).astype(np.float64)
        if concepts is None:
            labels = self._from_columns(features, weight)
        else:
            labels = read_concepts(concepts, n)
            labels = labels if index is None else labels.take(index)
        self._name(labels)
        check_both_kinds(labels, self.concept_names_)
        self.seed_ = draw_seed(self.random_state)
        share = np.ones(len(features)) if weight is None else weight
        fit, held = split_for_calibration(
            features, labels, float(self.calibration_fraction), self.seed_
        )
        self._learn(features, labels, share, fit, held, target)
        self._fit_head(rows, labels, target, weight, fit)
        self._set_statistics(self._scores(rows), weight)
        self._set_levels(rows, target, weight)
        if self.mode == "independent":  # the head has seen the truth
            self.activation_range_ = np.tile([0.0, 1.0], (len(self.concept_names_), 1))
        return self

    # -- the concepts -----------------------------------------------------------------
    def _from_columns(self, features: np.ndarray, weight: np.ndarray | None) -> ConceptLabels:
        warnings.warn(
            "ConceptBottleneck was given no concept labels: a column of X (or a score of the "
            "bank) above its mean is taken for a present concept. Give concepts=...",
            UserWarning,
            stacklevel=3,
        )
        above = features > np.average(features, axis=0, weights=weight)
        return ConceptLabels(above.astype(np.float64), np.ones(above.shape, dtype=bool), None)

    def _name(self, labels: ConceptLabels) -> None:
        k = labels.values.shape[1]
        if self.bank is not None and (
            k != len(self.bank) or (labels.names is not None and labels.names != [*self.bank.names])
        ):
            raise InputError(
                f"concepts has {k} columns ({(labels.names or [])[:5]}) but the bank "
                f"{len(self.bank)} concepts ({[*self.bank.names][:5]}). Give a label for each "
                "concept of the bank, in its order, or bank.select(...).",
                code="CL-INPUT-SHAPE",
            )
        if self.bank is not None:
            self.concept_names_ = list(self.bank.names)
        elif labels.names is not None:
            self.concept_names_ = list(labels.names)
        elif k == self.n_features_in_:
            self.concept_names_ = self._names()
        else:
            self.concept_names_ = [f"concept{j}" for j in range(k)]

    def _learn(
        self,
        features: np.ndarray,
        labels: ConceptLabels,
        share: np.ndarray,
        fit: np.ndarray,
        held: np.ndarray,
        target: Target,
    ) -> None:
        """Set V and v, the calibration, and in mode "joint" the head."""
        single = self.bank is not None
        layer, self.n_iter_ = fit_concepts(
            features[fit], labels.take(fit), share[fit], single, self.max_iter
        )
        self.joint_objective_ = float("nan")
        if self.mode == "joint":
            layer, self.coef_, self.intercept_, self.joint_objective_, self.n_iter_ = fit_jointly(
                layer,
                features[fit],
                labels.take(fit),
                target.take(fit),
                share[fit],
                float(self.concept_weight),
                int(self.max_iter),
            )
        if self.bank is None:
            self.concept_coef_, self.concept_intercept_ = layer.V, layer.v
        else:  # a score of the bank is a direction of X, and perhaps a shift
            slope = layer.V[np.arange(len(layer.v)), np.arange(len(layer.v))]
            shift = self.bank.intercepts
            self.concept_coef_ = slope[:, None] * self.bank.vectors.astype(np.float64)
            self.concept_intercept_ = layer.v + (0 if shift is None else slope * shift)
        z = features[held] @ layer.V.T + layer.v
        known, towards = labels.known[held], 2 * labels.values[held] - 1
        self.conformal_scores_ = np.where(known, -towards * z, np.nan)
        self.calibration_ = np.tile([1.0, 0.0], (len(layer.v), 1))
        for j in range(len(layer.v)) if self.calibrate else ():
            seen = known[:, j]
            self.calibration_[j] = platt(
                z[seen, j], labels.values[held][seen, j], share[held][seen]
            )

    def _fit_head(
        self,
        rows: torch.Tensor,
        labels: ConceptLabels,
        target: Target,
        weight: np.ndarray | None,
        fit: np.ndarray,
    ) -> None:
        sparse = self.lam is not None or self.nec is not None
        if self.mode == "joint" and not sparse:
            return
        A = as_numpy(self._activations(self._scores(rows))).astype(np.float64)
        if self.mode == "independent":
            A = np.where(labels.known, labels.values, A)
        else:
            A, target = A[fit], target.take(fit)
            weight = None if weight is None else weight[fit]
        if sparse:
            head = SparseLinearHead(
                self.lam, self.nec, target=self.target, constant="ignore", max_iter=self.max_iter
            ).fit(A, target.values, weight)
            self.coef_, self.intercept_ = head.coef_, head.intercept_
            return
        self.coef_, self.intercept_ = dense_head(
            A, self.target, target.values, len(target.names), weight, standardize=False
        )

    # -- what it says -------------------------------------------------------------------
    def _scores(self, X: torch.Tensor) -> torch.Tensor:
        V, v = (torch.from_numpy(w).to(X) for w in (self.concept_coef_, self.concept_intercept_))
        return X @ V.T + v

    def _activations(self, S: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(S) if self.mode == "joint" else self._calibrated(S)

    def _calibrated(self, S: torch.Tensor) -> torch.Tensor:
        slope, shift = torch.from_numpy(self.calibration_).to(S).T
        return torch.sigmoid(S * slope + shift)

    def _levels(self, A: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """A head of true concepts knows 0 and 1; others the 5 % and 95 % quantiles."""
        if self.mode == "independent":
            return np.tile([0.0, 1.0], (A.shape[1], 1))
        return super()._levels(A, weight)

    def _knows_truth(self) -> bool:
        return self.mode == "independent"

    def _uncertainty(self, S: torch.Tensor, A: torch.Tensor) -> np.ndarray:
        return -np.abs(as_numpy(self._calibrated(S)).astype(np.float64) - 0.5)

    @like_input
    def predict_concept_proba(self, X: ArrayLike) -> Any:
        """Give the calibrated probability of each concept.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        array of shape (n, k)
            Like in, like out. What the head sees is ``predict_concepts``, the same but in
            mode "joint".
        """
        return self._calibrated(self._forward(X)[2])

    def conformal_sets(self, X: ArrayLike, *, level: float = 0.9) -> np.ndarray:
        """Give for each concept the labels that cannot be excluded.

        Parameters
        ----------
        X : array-like of shape (n, d)
        level : float
            Above 0 and below 1.

        Returns
        -------
        ndarray of shape (n, k, 2), bool
            Whether "absent" and whether "present" is in the set. Of each concept the set holds
            the truth of a new row with a probability of at least `level` where new rows are
            exchangeable with those held out. Both are in all sets where fewer than
            level / (1 - level) labels were held out.

        Raises
        ------
        InputError
            A level out of range; no rows were held out (``CL-INPUT-FEW``).
        """
        logits = as_numpy(self._forward(X)[2]).astype(np.float64)
        if not len(self.conformal_scores_):
            raise InputError(
                "No rows were held out, so nothing is known about errors on new rows. Fit with "
                "calibration_fraction above 0 and at least 20 rows.",
                code="CL-INPUT-FEW",
            )
        return conformal_sets(logits, self.conformal_scores_, level)

    def to_bank(self) -> ConceptBank:
        """Give the concepts as a bank of directions in X, whose scores are the logits z.

        Returns
        -------
        ConceptBank
            In the space of the fit.
        """
        return ConceptBank(
            self.concept_coef_,
            self.concept_names_,
            space=self.space_,
            intercepts=self.concept_intercept_,
        )
