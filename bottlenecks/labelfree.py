"""Label-free concept bottlenecks: any backbone's features, named by an image–text encoder."""

from __future__ import annotations

__all__ = ["LabelFreeCBM"]

from typing import Any, Self

import numpy as np
import torch

from bottlenecks.base import Bottleneck
from bottlenecks.concept_filters import FilterReport, activated, scored
from bottlenecks.heads import SparseLinearHead
from bottlenecks.projection import fit_projection
from bottlenecks.targets import Target, checked_target
from conceptlab import ConceptBank
from conceptlab.arrays import ArrayLike, as_numpy, check_features
from conceptlab.errors import InputError
from conceptlab.parameters import Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed

_RULES = Rules(min_activation=Real() | None, min_similarity=Real() | None, top=Whole(1))


class LabelFreeCBM(Bottleneck):
    """Learn concept outputs on a backbone from an encoder's scores, then a sparse head.

    (1) Concepts that no image shows are dropped. (2) A projection of the
    features X is learned whose outputs are cos-cubed similar to the concept
    scores. (3) Concepts that it does not reach on rows held out are dropped.
    (4) A sparse softmax head is fitted on the standardised outputs.

    Parameters
    ----------
    bank : ConceptBank, optional
        Concepts in the space of an image–text encoder. None means that scores
        are given (or that the columns of X are the scores).
    min_activation : float or None
        Least mean of a concept's `top` best scores; cosines of CLIP were cut
        at 0.25 to 0.28. None keeps all.
    min_similarity : float or None
        Least similarity on rows held out; 0.45 was published. None keeps all.
    top : int
        See `min_activation`.
    target : {"classes", "labels", "values"}
        What y holds: a class a row; several labels, (n, L) of 0 and 1; numbers, (n,) or (n, T).
    class_weight : None, "balanced" or dict
        Of classes; multiplies the weights of rows.
    lam, nec, alpha : optional
        Of the head; see :class:`bottlenecks.SparseLinearHead`.
    ridge, max_iter : optional
        Of the projection; see :func:`bottlenecks.fit_projection`.
    validation_fraction : float
        Rows held out from the projection.
    device : str or torch.device
    random_state : optional
        Of the rows held out.

    Attributes
    ----------
    coef_, intercept_, classes_, concept_names_ : see Bottleneck
        The concepts that were kept.
    projection_coef_ : ndarray of shape (k, d), float64
        Scores are ``X Wᵀ + w``.
    projection_intercept_ : ndarray of shape (k,), float64
    similarity_ : ndarray of shape (k,), float64
        Of output and concept score on rows held out.
    filter_report_ : FilterReport
        What was dropped, and why.
    lam_, kkt_ : float
        Of the head.
    n_iter_ : int
        Steps of the projection, at least 1.
    seed_ : int

    References
    ----------
    Oikarinen, Das, Nguyen and Weng, Label-free Concept Bottleneck Models, ICLR
    2023 (arXiv 2304.06129). The steps and thresholds are those of its section
    3; projection and head are solved instead of stopped after a number of
    epochs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 6))
    >>> seen = X[:, :2] + 0.1 * rng.normal(size=(400, 2))
    >>> scores = np.column_stack([seen, rng.normal(size=400)])
    >>> model = LabelFreeCBM(random_state=0).fit(X, X[:, 0] > 0, encoder_features=scores)
    >>> model.concept_names_, [name for name, _, _ in model.filter_report_.dropped]
    (['concept0', 'concept1'], ['concept2'])
    """

    def __init__(
        self,
        bank: ConceptBank | None = None,
        *,
        min_activation: float | None = None,
        min_similarity: float | None = 0.45,
        top: int = 5,
        target: str = "classes",
        class_weight: Any = None,
        lam: float | None = None,
        nec: float | None = None,
        alpha: float = 0.99,
        ridge: float = 1e-3,
        max_iter: int = 50,
        validation_fraction: float = 0.1,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.bank = bank
        self.min_activation = min_activation
        self.min_similarity = min_similarity
        self.top = top
        self.target = target
        self.class_weight = class_weight
        self.lam = lam
        self.nec = nec
        self.alpha = alpha
        self.ridge = ridge
        self.max_iter = max_iter
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        encoder_features: Any = None,
        space: str | None = None,
    ) -> Self:
        """Learn the projection and the head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of the backbone.
        y : array-like of shape (n,) or (n, K)
            Classes; see `target`.
        sample_weight : array-like of shape (n,), optional
            At least 0; counts in the projection too. Rows are held out whatever they weigh.
        encoder_features : array-like, optional
            Of the same images: features (n, e) of the bank's encoder; without
            a bank concept scores (n, M), whose names are the columns of a data
            frame. By default X itself.
        space : str, optional
            Fingerprint of the encoder that made `encoder_features`, to be
            compared with the bank's.

        Returns
        -------
        LabelFreeCBM

        Raises
        ------
        InputError
            No concept is left (``CL-INPUT-EMPTY``), with what each filter
            dropped; shapes that do not fit; NaN; see the base class.
        """
        if y is None:
            return super().fit(X, y)  # says what is missing
        matrix = check_features(self, X, reset=True)
        if len(rows := self._as_rows(matrix)) < 2:
            raise InputError(
                f"{type(self).__name__} needs at least 2 rows to learn from, got n_samples=1.",
                code="CL-INPUT-FEW",
            )
        _RULES.check(self)
        _, weight, index = checked_target(self, y, matrix, sample_weight)
        self._has_targets = encoder_features is not None
        self._check_bank(space)
        given = rows if encoder_features is None else encoder_features
        targets, names = self._targets(given, len(rows))
        self.seed_ = draw_seed(self.random_state)
        if index is not None:
            rows, targets = rows[torch.from_numpy(index).to(rows.device)], targets[index]
        self._learn(rows, targets, names, weight)
        return super().fit(X, y, sample_weight, space=space)

    def _check_bank(self, space: str | None) -> None:
        if self.bank is None or not self._has_targets or not isinstance(self.bank, ConceptBank):
            super()._check_bank(space)
            return
        # The bank lives in the encoder's space, X in that of the backbone.
        self.bank.check_space(space)
        self.space_ = None

    def _targets(self, given: Any, n: int) -> tuple[np.ndarray, list[str]]:
        """Give concept scores (n, M) and their names."""
        columns = getattr(given, "columns", None)
        values = as_numpy(given if columns is None else given.to_numpy())
        if values.ndim != 2 or len(values) != n:
            raise InputError(
                f"encoder_features must have a row for each of the {n} rows of X, got shape "
                f"{values.shape}.",
                code="CL-INPUT-SHAPE",
            )
        if self.bank is not None:
            return as_numpy(self.bank.score(values)), list(self.bank.names)
        if columns is not None:
            return values, [str(name) for name in columns]
        if not self._has_targets:
            return values, super()._names()
        return values, [f"concept{j}" for j in range(values.shape[1])]

    def _learn(
        self,
        rows: torch.Tensor,
        targets: np.ndarray,
        names: list[str],
        weight: np.ndarray | None,
    ) -> None:
        left = list(names)
        dropped: list[tuple[str, str, str]] = []

        def drop(label: str, reasons: Any) -> None:
            nonlocal left
            dropped.extend((name, label, reasons[name]) for name in left if name in reasons)
            left = [name for name in left if name not in reasons]
            if not left:
                raise InputError(
                    f"No concept is left after the filter {label!r}; the last reason: "
                    f"{dropped[-1][2]}. {FilterReport((), tuple(dropped))!r}. Lower the threshold, "
                    "or give concepts that the images show.",
                    code="CL-INPUT-EMPTY",
                )

        flat = targets.max(axis=0) == targets.min(axis=0)
        if flat.any():
            drop("constant", {names[j]: "the same score in all rows" for j in np.flatnonzero(flat)})
        if self.min_activation is not None:
            step = activated(targets, names, min_score=self.min_activation, top=self.top)
            drop("activated", step(left))
        place = {name: j for j, name in enumerate(names)}
        found = fit_projection(
            rows,
            torch.from_numpy(targets[:, [place[name] for name in left]]).to(rows),
            ridge=self.ridge,
            max_iter=self.max_iter,
            sample_weight=weight,
            validation_fraction=self.validation_fraction if len(rows) >= 20 else 0.0,
            device=self.device,
            random_state=self.seed_,
        )
        learned = list(left)
        if self.min_similarity is not None:
            reached = found.validation_similarity
            what = "similarity on rows held out"
            drop(
                "projected",
                scored("projected", left, reached, self.min_similarity, what=what)(left),
            )
        kept = [learned.index(name) for name in left]
        self.n_iter_ = max(1, int(found.n_iter[kept].max()))
        self.projection_coef_ = found.coef[kept]
        self.projection_intercept_ = found.intercept[kept]
        self.similarity_ = found.validation_similarity[kept]
        self.kept_names_ = left
        self.dropped_ = [list(row) for row in dropped]

    @property
    def filter_report_(self) -> FilterReport:
        """What was dropped, and why."""
        dropped = tuple((name, label, why) for name, label, why in self.dropped_)
        return FilterReport(tuple(self.kept_names_), dropped)

    def _names(self) -> list[str]:
        return list(self.kept_names_)

    def _scores(self, X: torch.Tensor) -> torch.Tensor:
        W, w = (
            torch.from_numpy(v).to(X) for v in (self.projection_coef_, self.projection_intercept_)
        )
        return X @ W.T + w

    def _fit_scores(
        self, S: torch.Tensor, target: Target, X: torch.Tensor, weight: np.ndarray | None
    ) -> None:
        head = SparseLinearHead(
            self.lam, self.nec, target=self.target, alpha=self.alpha, device=self.device
        )
        head.fit(self._activations(S), target.values, weight)
        self.coef_, self.intercept_ = head.coef_, head.intercept_
        self.lam_, self.kkt_ = float(head.lam_), float(head.kkt_)
