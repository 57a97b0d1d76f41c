"""Sparse concept bottlenecks: output j is concept j, and most outputs are exactly zero."""

from __future__ import annotations

__all__ = ["MODES", "SparseCBM"]

from typing import Any

import numpy as np
import torch
from sklearn.utils import Tags

from bottlenecks.base import Bottleneck
from bottlenecks.gates import budget_threshold, sample_gates, temperatures
from bottlenecks.heads import SparseLinearHead
from bottlenecks.heads.dense import dense_head
from bottlenecks.heads.losses import LOSSES as TARGET_LOSSES
from bottlenecks.losses import positives_loss
from bottlenecks.reference import LOSSES, ReferenceSettings, train_reference
from bottlenecks.tables import positives_table
from bottlenecks.targets import Target
from conceptlab.arrays import as_numpy
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState, draw_seed, torch_generator

MODES = ("anchored", "contrastive", "l1", "reference")
_RULES = Rules(
    mode=OneOf(*MODES),
    scale=OneOf("auto", "common", "concept"),
    head=OneOf("sparse", "dense"),
    reference_loss=OneOf(*LOSSES),
    sparsity=Real(least=0, below=1),
    anchor=Real(least=0),
    max_epochs=Whole(1) | None,
    batch_size=Whole(1) | None,
    n_positives=Whole(1) | None,
    learning_rate=Real(least=0) | None,
    lam=Real(least=0) | None,
    nec=Real(least=0) | None,
)
_SLOPE = 4.0  # logistic noise on 4 z is 0.45 standard deviations of a score
_DECAY = 1e-3  # of the head that stands in while thresholds are learned
_BLEND = 0.05  # how far the common threshold moves towards that of one batch


class SparseCBM(Bottleneck):
    """Classify through few concepts: thresholds on scores, then a sparse head.

    A score is standardised by the fit, z = (s - mean) / scale, and becomes the activation
    ``a_j = max(z_j - threshold_j, 0)``: how far concept j is above its threshold, and exactly
    zero where it is not there. Output j depends on score j only, so it is still concept j.
    A threshold is a common part, which shuts the share `sparsity` of all gates of the fit, plus
    a deviation of the concept, which is learned by cross-entropy through a linear head in one of
    three ways. A head is then fitted on the activations.

    Parameters
    ----------
    bank : ConceptBank, optional
        Concepts in the space of the features; None takes the columns of X as scores.
    mode : {"anchored", "contrastive", "l1", "reference"}
        How thresholds are learned:

        - "anchored": through binary Gumbel gates at a falling temperature, straight through;
        - "contrastive": "anchored", and images and concepts are contrasted by which concepts
          their classes have, on Gumbel-Softmax samples;
        - "l1": without noise. The activation is the proximal map of an l1 penalty on z whose
          weights are the thresholds (where these are positive);
        - "reference": the concept layer and losses of the paper's code as released, for
          comparison only. Output j is *not* concept j and nothing is zero; see Notes.
    scale : {"auto", "common", "concept"}
        What scores are divided by. "common" is one number, the root mean square of all standard
        deviations: scores of one bank share their units, so that a concept that no image shows
        varies little and stays small. "concept" is each concept's own standard deviation, which
        blows such a concept up. "auto" is "common" with a bank, and "concept" without.
    sparsity : float
        Share of zeros among the activations of the fit, in [0, 1).
    temperature : float or (float, float)
        Of the Gumbel samples: constant, or from first to last in geometric steps.
    hard : bool
        Gates are exactly 0 or 1 while thresholds are learned; False takes the relaxed sample.
        Logarithms are taken of relaxed samples in either case, so losses are finite.
    anchor : float
        Weight of the mean squared deviation of thresholds from the common one. Large values
        keep concepts that do not serve the classes as they are.
    class_concepts : mapping of class to list of names, or array of shape (K, k), optional
        The positives of mode "contrastive"; rows of an array in the order of the sorted
        classes. By default each class takes the `n_positives` concepts with the largest mean z.
    n_positives : int
        See `class_concepts`.
    reference_loss : {"gumbel", "contrastive", "l1"}
        Of mode "reference".
    target : {"classes", "labels", "values"}
        What y holds: a class a row; several labels, (n, L) of 0 and 1; numbers, (n,) or (n, T).
        Modes "contrastive" and "reference" need classes.
    class_weight : None, "balanced" or dict
        Of classes; multiplies the weights of rows.
    head : {"sparse", "dense"}
        Elastic net (:class:`bottlenecks.SparseLinearHead`), or ridge.
    nec : float, optional
        Mean number of concepts that a class may use; for a sparse head.
    lam : float, optional
        Strength of the head's penalty where `nec` is None; None is the head's default.
    positive : bool
        Keep the weights of a sparse head at 0 or above, so that a class is told by the concepts
        that it has. Any linear head has an equal one with such weights; what changes is which
        are few.
    max_epochs : int, optional
        60; in mode "reference" 10, as released.
    batch_size : int, optional
        256; in mode "reference" 128, as released.
    learning_rate : float, optional
        Of Adam: 0.02; in mode "reference" 3e-4, as released.
    device : str or torch.device
    random_state : optional
        Of batches and noise.

    Attributes
    ----------
    threshold_ : ndarray of shape (k,), float64
        In units of z; not in mode "reference".
    sparsity_ : float
        Share of zeros among the activations of the fit.
    positives_ : ndarray of shape (K, k), bool
        Mode "contrastive" only.
    concept_map_ : ndarray of shape (k, k), float64
        Mode "reference" only: activations are ``scores @ concept_map_.T``.
    history_ : dict of str to list
        Loss and temperature by epoch.
    seed_ : int
    classes_, coef_, intercept_, concept_names_, n_features_in_
        See :class:`bottlenecks.Bottleneck`.

    Raises
    ------
    InputError
        In fit: see :meth:`fit`; `nec` above the number of concepts, parameters out of range.

    Notes
    -----
    The paper trains a concept layer in three ways: an l1 penalty, a contrastive loss and
    Gumbel-Softmax. Its released code was measured on planted data (60 concepts, 11 true ones an
    image, accuracy of a dense probe 0.82): no activation is zero under any of the losses (at
    least 99 % differ from zero), because the l1 penalty is on weights and without a proximal
    step, and because the Gumbel loss, which has no positives, is least for equal activations;
    the contrastive loss takes row i of a shuffled batch and column i of the concept list for a
    pair. The layer starts from a random matrix, so output j has nothing to do with concept j
    (AUC 0.50 to 0.52 against 0.88 of the scores). As released the head is not trained either
    (the optimiser is given the backbone's parameters); mode "reference" does train it. Scores
    of a bank are multiplied by 100, CLIP's logit scale.

    References
    ----------
    Semenov et al., Sparse Concept Bottleneck Models: Gumbel Tricks in Contrastive Learning,
    arXiv 2404.03323, section 3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((400, 6)) < 0.4
    >>> scores = truth + 0.2 * rng.normal(size=(400, 6))
    >>> y = truth[:, 0] + 2 * truth[:, 1]
    >>> model = SparseCBM(nec=1, random_state=0).fit(scores, y)
    >>> model.active_concepts_, bool((model.predict_concepts(scores) == 0).mean() > 0.39)
    (['concept0', 'concept1'], True)
    """

    def __init__(
        self,
        bank: Any = None,
        *,
        mode: str = "anchored",
        scale: str = "auto",
        sparsity: float = 0.4,
        temperature: Any = (1.0, 0.3),
        hard: bool = True,
        anchor: float = 1.0,
        class_concepts: Any = None,
        n_positives: int = 5,
        reference_loss: str = "gumbel",
        target: str = "classes",
        class_weight: Any = None,
        head: str = "sparse",
        nec: float | None = None,
        lam: float | None = None,
        positive: bool = True,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.bank = bank
        self.mode = mode
        self.scale = scale
        self.sparsity = sparsity
        self.temperature = temperature
        self.hard = hard
        self.anchor = anchor
        self.class_concepts = class_concepts
        self.n_positives = n_positives
        self.reference_loss = reference_loss
        self.target = target
        self.class_weight = class_weight
        self.head = head
        self.nec = nec
        self.lam = lam
        self.positive = positive
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state

    # -- fit ----------------------------------------------------------------------
    def _fit_scores(
        self, S: torch.Tensor, target: Target, X: torch.Tensor, weight: np.ndarray | None
    ) -> None:
        k = S.shape[1]
        self._check_parameters(k)
        self._clear()
        self.seed_ = draw_seed(self.random_state)
        labels = torch.from_numpy(target.values).to(S.device)
        share = None
        if weight is not None:
            share = torch.from_numpy(weight / weight.mean()).to(S.device, torch.float32)
        if self.mode == "reference":
            self._fit_reference(S, labels, weight)
            return
        if self._common_scale():
            common = np.sqrt(np.square(self.score_scale_).mean())
            self.score_scale_ = np.full(k, common)
        Z = super()._activations(S)
        table = None
        if self.mode == "contrastive":
            self.positives_ = positives_table(
                self.class_concepts,
                self.n_positives,
                as_numpy(Z),
                target.values,
                self.classes_,
                self.concept_names_,
            )
            table = torch.from_numpy(self.positives_).to(S.device)
        deviation = self._learn_deviations(Z.float(), labels, table, share)
        common = budget_threshold(Z - deviation.to(Z), self.sparsity)
        self.threshold_ = common + as_numpy(deviation).astype(np.float64)
        A = self._activations(S)
        self.sparsity_ = float((A == 0).double().mean())
        self._fit_head(A, target.values, weight)

    def _common_scale(self) -> bool:
        return self.scale == "common" or (self.scale == "auto" and self.bank is not None)

    def _clear(self) -> None:
        """Forget what another mode wrote, so that a model can be fitted again."""
        for name in ("threshold_", "positives_", "concept_map_"):
            if hasattr(self, name):
                delattr(self, name)

    def _learn_deviations(
        self,
        Z: torch.Tensor,
        y: torch.Tensor,
        table: torch.Tensor | None,
        share: torch.Tensor | None,
    ) -> torch.Tensor:
        """Learn what each threshold has beyond the common one, (k,)."""
        n, k = Z.shape
        K, loss_of = len(self.output_names_), TARGET_LOSSES[self.target]
        epochs, size = self.max_epochs or 60, min(self.batch_size or 256, n)
        generator = torch_generator(self.seed_)
        deviation, W, b, log_scale = (
            torch.zeros(shape, device=Z.device, requires_grad=True)
            for shape in ((k,), (K, k), (K,), (k,))
        )
        moving = [deviation, W, b, *([log_scale] if table is not None else [])]
        optimiser = torch.optim.Adam(moving, lr=self.learning_rate or 0.02)
        common = budget_threshold(Z[: 4 * size], self.sparsity)
        schedule = temperatures(self.temperature, epochs)
        losses = []
        for temperature in schedule.tolist():
            total = 0.0
            order = torch.randperm(n, generator=generator).to(Z.device)
            for rows in order.split(size):
                z, labels = Z[rows], y[rows]
                margin = z - deviation
                # The common threshold follows the budget; it has no gradient of its own.
                target = budget_threshold(margin, self.sparsity)
                common += _BLEND * (target - common)
                margin = margin - common
                a = self._sampled(margin, temperature, generator)
                each = loss_of.value(a @ W.T + b, labels)
                loss = (each if share is None else each * share[rows]).mean()
                loss = loss + self.anchor * deviation.square().mean()
                loss = loss + _DECAY * W.square().sum() / 2
                if table is not None:
                    loss = loss + positives_loss(
                        _SLOPE * margin * log_scale.exp(),
                        table[labels],
                        temperature=temperature,
                        generator=generator,
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach()) * len(rows)
            losses.append(total / n)
        self.history_ = {"loss": losses, "temperature": schedule.tolist()}
        return deviation.detach()

    def _sampled(
        self, margin: torch.Tensor, temperature: float, generator: torch.Generator
    ) -> torch.Tensor:
        if self.mode == "l1":
            return margin.clamp_min(0)
        gates = sample_gates(_SLOPE * margin, temperature, generator, hard=self.hard)
        return gates * margin

    def _fit_reference(self, S: torch.Tensor, y: torch.Tensor, weight: np.ndarray | None) -> None:
        scores = S.float() * self._reference_scale()
        settings = ReferenceSettings(
            loss=self.reference_loss,
            epochs=self.max_epochs or 10,
            batch_size=self.batch_size or 128,
            learning_rate=self.learning_rate or 3e-4,
            seed=self.seed_,
        )
        found = train_reference(scores, y, len(self.classes_), settings)
        self.concept_map_ = as_numpy(found.concept_map).astype(np.float64)
        self.history_ = {"loss": found.losses, "temperature": [1.0] * settings.epochs}
        A = self._activations(S)
        self.sparsity_ = float((A == 0).double().mean())
        if self.nec is not None or self.lam is not None:
            self._fit_head(A, as_numpy(y), weight)
            return
        self.coef_ = as_numpy(found.head).astype(np.float64)
        self.intercept_ = np.zeros(len(self.coef_))

    def _reference_scale(self) -> float:
        return 1.0 if self.bank is None else 100.0

    def _fit_head(self, A: torch.Tensor, y: np.ndarray, weight: np.ndarray | None) -> None:
        if self.head == "dense":
            self.coef_, self.intercept_ = dense_head(
                as_numpy(A).astype(np.float64), self.target, y, len(self.output_names_), weight
            )
            return
        head = SparseLinearHead(
            self.lam,
            self.nec,
            target=self.target,
            positive=self.positive,
            standardize=self.mode == "reference" or not self._common_scale(),
            constant="ignore",
            device=self.device,
        ).fit(A, y, weight)
        self.coef_ = np.asarray(head.coef_, dtype=np.float64)
        self.intercept_ = np.asarray(head.intercept_, dtype=np.float64)

    # -- what it says ---------------------------------------------------------------
    def _activations(self, S: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "concept_map_"):
            scores = S * self._reference_scale()
            return scores @ torch.from_numpy(self.concept_map_).to(S).T
        return (super()._activations(S) - torch.from_numpy(self.threshold_).to(S)).clamp_min(0)

    def _levels(self, A: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Absent is zero; present is the median of the activations that are not."""
        if hasattr(self, "concept_map_"):
            return super()._levels(A, weight)
        present = np.nanmedian(np.where(A > 0, A, np.nan), axis=0) if (A > 0).any() else A[0]
        return np.stack([np.zeros(A.shape[1]), np.nan_to_num(present, nan=1.0)], axis=1)

    def _uncertainty(self, S: torch.Tensor, A: torch.Tensor) -> np.ndarray:
        """Give how near each score lies to its threshold."""
        if hasattr(self, "concept_map_"):
            return super()._uncertainty(S, A)
        margin = as_numpy(super()._activations(S)).astype(np.float64) - self.threshold_
        return -np.abs(margin)

    # -- parameters -------------------------------------------------------------------
    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # The ten epochs of the released code hardly move a head on a few hundred rows.
        if tags.classifier_tags is not None:
            tags.classifier_tags.poor_score = self.mode == "reference"
        return tags

    def _check_parameters(self, k: int) -> None:
        _RULES.check(self)
        temperatures(self.temperature, 2)
        if self.target != "classes" and self.mode in ("contrastive", "reference"):
            raise InputError(
                f"mode={self.mode!r} needs target='classes', got {self.target!r}. Take 'anchored' "
                "or 'l1'.",
                code="CL-INPUT-OPTION",
            )
        if self.nec is None:
            return
        if self.head == "dense":
            raise InputError(
                "nec bounds the concepts of a sparse head, but head='dense' uses all. Leave one "
                "of the two out.",
                code="CL-INPUT-OPTION",
            )
        if self.nec > k:
            raise InputError(
                f"nec={self.nec} asks for more concepts a class than the {k} there are. Set nec "
                f"to at most {k}.",
                code="CL-INPUT-MANY",
            )
