"""Zero-shot classification as Bayes over the concepts of every class."""

from __future__ import annotations

__all__ = ["BayesianZeroShot"]

import os
from typing import Any, Literal, Self

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import ArrayLike, as_numpy, check_features, like_input, resolve_device
from conceptlab.errors import InputError, SpaceMismatchError
from conceptlab.io.objects import Parts, Saved
from conceptlab.io.values import plain
from conceptlab.parameters import OneOf, Real
from conceptlab.progress import Progress
from conceptlab.zeroshot.calibration import fit_temperature
from conceptlab.zeroshot.explaining import explain_rows, responsibilities
from conceptlab.zeroshot.explanation import ZeroShotExplanation
from conceptlab.zeroshot.labels import are_images, checked_labels, label_columns, log_class_prior
from conceptlab.zeroshot.ranking import insert_best, is_tensor, log_softmax_in_place
from conceptlab.zeroshot.rules import check_options, resolve_rule
from conceptlab.zeroshot.sources import (
    ConceptVectors,
    class_means,
    resolve_concepts,
    resolve_prior,
    with_vectors,
)
from conceptlab.zeroshot.stream import Layout, Settings, iter_scores

_CACHE = 2 << 20  # scores kept while the temperature is fitted: 8 MB in float32
_GROUP = 1 << 18  # scores for all classes at once
_PLAIN = ("rule", "prompt", "scale", "temperature")
_SCALE = 100.0  # of CLIP, where the encoder does not say


class BayesianZeroShot(Saved, ClassifierMixin, BaseEstimator):
    """Classify images by the concepts of every class, without training.

    Every class is a set of concept vectors. An image is compared with all of
    them; the similarities of a class are pooled to its score; scores over the
    temperature, plus the logarithm of the class prior, are the logits of the
    class posterior. With ``rule="lse"`` this is Bayes' rule with the concept
    marginalised out; with ``rule="trim"`` it is the classifier of Liu et al.

    Parameters
    ----------
    concepts : ClassConcepts, mapping, path-like, array or None
        What the classes are made of:

        - :class:`conceptlab.vocabulary.ClassConcepts`, or a mapping from class
          to texts, or the path of a concept file; texts without vectors are
          read by the `encoder`;
        - a mapping from class to vectors (C_k, d), or an array (K, C, d);
        - None: one concept a class, the mean direction of its labelled rows.
    encoder : Encoder, str or None
        Reads texts and images; a name is for :func:`conceptlab.load_encoder`.
        Without one, `concepts` and X must be vectors.
    rule : str
        How similarities are pooled: ``"trim"``, ``"sym"``, ``"gated"``,
        ``"lse"``, ``"mean"``, ``"mean_embedding"``, ``"max"``, ``"median"``,
        ``"trimmed_mean"``, ``"tukey"``; see :func:`conceptlab.zeroshot.pool`.
    rule_options : mapping, optional
        Options of the rule, such as ``{"lam": 2.5}``. The temperature of
        ``"lse"`` is that of the classifier.
    prompt : str or None
        Sentence around class and concept; None takes that of the concepts,
        else ``"a photo of a {class} with {concept}."``.
    class_prior : None, "empirical", mapping or array of shape (K,)
        None is uniform; ``"empirical"`` counts the labels in fit, plus one
        each; an array follows ``classes_``.
    concept_prior : None, mapping or array of shape (n,)
        Weights of the concepts within their class, by class or in the order of
        the concepts; None is uniform.
    scale : "model" or float
        Factor from cosine to logit; ``"model"`` takes the encoder's, or 100.
    temperature : "auto" or float
        ``"auto"`` is 1, or fitted where fit gets labels.
    device : str or torch.device
        See :func:`conceptlab.arrays.resolve_device`.
    progress : bool, callable or None
        For encoding; see :data:`conceptlab.progress.Progress`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Labels, sorted: the class names, or ``0 .. K-1`` in the order of the
        concepts if fit got integers or the classes have no names.
    class_names_ : ndarray of shape (K,), object
        Names in the order of ``classes_``.
    concept_names_ : list of K lists of str
        In the order of ``classes_``.
    concept_labels_ : ndarray of shape (n,), int64
        Column of the class of each concept, in the order of the concepts.
    vectors_ : ndarray of shape (n, d)
        Unit vectors in the order of the concepts.
    scale_, temperature_ : float
    class_log_prior_ : ndarray of shape (K,), float64
    space_ : str or None
        Fingerprint of the encoder of the vectors.
    n_features_in_ : int
        d.

    Raises
    ------
    InputError
        In fit: classes without concepts, fewer than two classes, labels that
        are no classes, texts without an encoder.
    SpaceMismatchError
        Concept vectors that come from another encoder.

    Notes
    -----
    Memory beyond input and output is below 64 MB for any number of images,
    classes and concepts; vectors may be float16 or a memory map. Scores do not
    depend on how the work is cut but for rounding. Where rounding moves a
    concept across the threshold of an outlier, ``"trim"``, ``"sym"`` and
    ``"gated"`` jump: by hundredths of a logit with 50 concepts a class.

    References
    ----------
    Liu et al., Beyond Heuristic Prompting: A Concept-Guided Bayesian Framework
    for Zero-Shot Image Recognition, CVPR 2026 (arXiv 2603.07911).
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Examples
    --------
    >>> concepts = {"frog": np.eye(4)[:2], "newt": np.eye(4)[2:]}
    >>> model = BayesianZeroShot(concepts, rule="mean", scale=10.0).fit()
    >>> X = np.array([[1.0, 1.0, 0.2, 0.0], [0.0, 0.1, 1.0, 1.0]])
    >>> model.predict(X).tolist(), model.predict_proba(X).round(2).tolist()
    (['frog', 'newt'], [[1.0, 0.0], [0.0, 1.0]])
    """

    _kind = "BayesianZeroShot"

    def __init__(
        self,
        concepts: Any = None,
        encoder: Any = None,
        *,
        rule: str = "trim",
        rule_options: Any = None,
        prompt: str | None = None,
        class_prior: Any = None,
        concept_prior: Any = None,
        scale: float | Literal["model"] = "model",
        temperature: float | Literal["auto"] = "auto",
        device: str | torch.device = "auto",
        progress: Progress = None,
    ) -> None:
        self.concepts = concepts
        self.encoder = encoder
        self.rule = rule
        self.rule_options = rule_options
        self.prompt = prompt
        self.class_prior = class_prior
        self.concept_prior = concept_prior
        self.scale = scale
        self.temperature = temperature
        self.device = device
        self.progress = progress

    # -- fit ----------------------------------------------------------------------
    def fit(self, X: Any = None, y: Any = None) -> BayesianZeroShot:
        """Read the concepts and, where labels are given, fit the temperature.

        Parameters
        ----------
        X : array-like of shape (n, d), or images; optional
            Needed with `y` only.
        y : array-like of shape (n,), optional
            Labels: class names, or integers that count the classes in the
            order of the concepts. Needed where `concepts` is None.

        Returns
        -------
        BayesianZeroShot

        Raises
        ------
        InputError
            See the class; labels of another length or not among the classes
            (``CL-INPUT-LABELS``).
        """
        resolve_rule(self.rule, self.rule_options)
        self.encoder_ = self._resolved_encoder()
        self.n_features_in_ = -1
        matrix = None if X is None else self._features(X, reset=True)
        if y is not None and matrix is None:
            raise InputError("fit got labels y without X. Give both.", code="CL-INPUT-LABELS")
        labels = None if y is None else checked_labels(y, matrix)
        found = self._found(matrix, labels)
        if matrix is not None and matrix.shape[1] != found.vectors.shape[1]:
            raise InputError(
                f"X has {matrix.shape[1]} features, but the concept vectors have "
                f"{found.vectors.shape[1]}. Encode images and concepts with the same encoder.",
                code="CL-INPUT-FEATURES",
            )
        self.n_features_in_ = int(found.vectors.shape[1])
        self._set_concepts(found, labels)
        self.scale_ = self._resolved_scale()
        targets = None if labels is None else label_columns(labels, self.classes_)
        self.class_log_prior_ = log_class_prior(
            self.class_prior, [str(name) for name in self.class_names_], targets
        )
        self.temperature_ = self._fitted_temperature(matrix, targets)
        return self

    def _found(self, X: Any, labels: np.ndarray | None) -> ConceptVectors:
        if self.concepts is not None:
            return resolve_concepts(self.concepts, self.encoder_, self.prompt)
        if X is None or labels is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None. Without "
                "concepts the classes are made from labelled rows; give X and y, or concepts.",
                code="CL-INPUT-LABELS",
            )
        classes, columns = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"A classifier needs at least two classes, got 1 class: {classes.tolist()}. Give "
                "rows of another class too.",
                code="CL-INPUT-FEW",
            )
        vectors = class_means(as_numpy(X), columns, len(classes))
        names = [str(label) for label in classes]
        offsets = np.arange(len(classes) + 1)
        space = None if self.encoder_ is None else self.encoder_.fingerprint
        return ConceptVectors(names, [["mean"]] * len(classes), vectors, offsets, space)

    def _set_concepts(self, found: ConceptVectors, labels: np.ndarray | None) -> None:
        K = len(found.classes)
        if self.concepts is None and labels is not None:
            order, self.classes_ = np.arange(K), np.unique(labels)
        elif found.numbered or (labels is not None and labels.dtype.kind in "iu"):
            order, self.classes_ = np.arange(K), np.arange(K)
        else:
            # Sorted, because scikit-learn's metrics take it that columns are.
            names = np.array(found.classes)
            order = np.argsort(names, kind="stable")
            self.classes_ = names[order]
        self.class_names_ = np.array(found.classes, dtype=object)[order]
        self.concept_names_ = [list(found.texts[k]) for k in order]
        self.vectors_ = found.vectors
        self.space_ = found.space
        columns = np.empty(K, dtype=np.int64)
        columns[order] = np.arange(K)
        self.concept_labels_ = np.repeat(columns, np.diff(found.offsets))
        self._layout = Layout(
            found.vectors, found.offsets, columns, resolve_prior(self.concept_prior, found)
        )
        self._texts = found.concepts

    def _fitted_temperature(self, X: Any, targets: np.ndarray | None) -> float:
        if self.temperature != "auto":
            return float(check_options({"temperature": self.temperature})["temperature"])
        if targets is None:
            return 1.0
        K, group = len(self.classes_), max(1, _GROUP // len(self.classes_))
        cached: list[Any] | None = None
        if self.rule != "lse" and len(X) * K <= _CACHE:
            cached = list(self._groups(X, 1.0, group))

        def loss(T: float) -> float:
            total = 0.0
            for rows, scores in cached or self._groups(X, T, group):
                logits = scores.astype(np.float64) / T + self.class_log_prior_
                hit = logits[np.arange(len(logits)), targets[rows]]
                total += float((logsumexp(logits, axis=1) - hit).sum())
            return total / len(X)

        return fit_temperature(loss)

    def _groups(self, X: Any, T: float, group: int) -> Any:
        """Give the scores of some images for all classes at a time."""
        settings = self._settings(X, T)
        for start in range(0, len(X), group):
            rows = slice(start, min(start + group, len(X)))
            scores: Any = None
            for part in iter_scores(X[rows], self._layout, settings):
                values = part.scores.cpu().numpy() if is_tensor(part.scores) else part.scores
                if scores is None:
                    scores = np.empty((rows.stop - start, len(self.classes_)), values.dtype)
                scores[part.rows, part.place] = values
            yield rows, scores

    # -- what it says ---------------------------------------------------------------
    @like_input
    def scores(self, X: Any) -> Any:
        """Pool the similarities of every class, before temperature and prior.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        array of shape (n, K)
            In units of logits at temperature 1; like in, like out.
        """
        return self._scores(self._checked(X))

    def _scores(self, X: Any) -> Any:
        settings = self._settings(X, self.temperature_)
        shape = (len(X), len(self.classes_))
        out: Any = None
        for part in iter_scores(X, self._layout, settings):
            if out is None and is_tensor(part.scores):
                out = part.scores.new_empty(shape)
            elif out is None:
                out = np.empty(shape, dtype=part.scores.dtype)
            out[part.rows, part.place] = part.scores
        return out

    def _logits(self, X: ArrayLike) -> Any:
        logits = self._scores(X)
        logits /= self.temperature_
        prior = self.class_log_prior_
        if is_tensor(logits):
            logits += torch.from_numpy(prior).to(logits)
        else:
            logits += prior.astype(logits.dtype)
        return logits

    @like_input
    def decision_function(self, X: Any) -> Any:
        """Give the logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        array of shape (n, K), or (n,) for two classes
            Score over temperature plus log prior; with two classes (n,), the
            second logit less the first.
        """
        logits = self._logits(self._checked(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    @like_input
    def predict_log_proba(self, X: ArrayLike) -> Any:
        """Give the logarithm of :meth:`predict_proba`, without underflow."""
        return log_softmax_in_place(self._logits(self._checked(X)))

    @like_input
    def predict_proba(self, X: Any) -> Any:
        """Give the posterior of the classes.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        array of shape (n, K)
            Rows sum to one; columns as in ``classes_``.
        """
        logits = log_softmax_in_place(self._logits(self._checked(X)))
        return logits.exp_() if is_tensor(logits) else np.exp(logits, out=logits)

    def predict(self, X: Any) -> np.ndarray:
        """Give the most probable class of every image.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        ndarray of shape (n,)
            Of ``classes_``; of equal logits the first class.
        """
        matrix = self._checked(X)
        return np.asarray(self.classes_[self._best(matrix)[0][:, 0]])

    def _best(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Give the columns of winner and runner-up, (n, 2), and the mean score, (n,)."""
        n = len(X)
        best = np.full((n, 2), -np.inf)
        columns = np.zeros((n, 2), dtype=np.int64)
        total = np.zeros(n)
        settings = self._settings(X, self.temperature_)
        for part in iter_scores(X, self._layout, settings):
            scores = part.scores.cpu().numpy() if is_tensor(part.scores) else part.scores
            total[part.rows] += scores.sum(axis=1, dtype=np.float64)
            logits = scores / scores.dtype.type(self.temperature_)
            logits += self.class_log_prior_[part.columns].astype(scores.dtype)
            for _ in range(min(2, logits.shape[1])):
                at = logits.argmax(axis=1)
                value = np.take_along_axis(logits, at[:, None], axis=1)[:, 0].astype(np.float64)
                insert_best(best[part.rows], columns[part.rows], value, part.columns[at])
                np.put_along_axis(logits, at[:, None], -np.inf, axis=1)
        return columns, total / len(self.classes_)

    # -- why --------------------------------------------------------------------------
    @like_input
    def concept_posterior(self, X: Any) -> Any:
        """Give the posterior over all concepts of all classes.

        The concept c of class k has the probability p(k | x) p(c | x, k) with
        p(c | x, k) proportional to its prior times exp(s_c / T). The sum over a
        class is :meth:`predict_proba`; with ``rule="lse"`` this is Bayes' rule
        for class and concept together.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        array of shape (n, n_concepts)
            Rows sum to one; columns in the order of the concepts, see
            ``concept_labels_``.
        """
        matrix = self._checked(X)
        log_proba = log_softmax_in_place(self._logits(matrix))
        log_proba = log_proba.cpu().numpy() if is_tensor(log_proba) else log_proba
        settings = self._settings(matrix, self.temperature_)
        return responsibilities(matrix, self._layout, settings, self.temperature_, log_proba)

    def explain(self, X: Any) -> ZeroShotExplanation:
        """Show how the concepts of winner and runner-up make their scores.

        Parameters
        ----------
        X : array-like of shape (n, d), or images

        Returns
        -------
        ZeroShotExplanation
            Evidence per concept that adds up to the score, as table and plot.
        """
        matrix = self._checked(X)
        columns, reference = self._best(matrix)
        return explain_rows(
            matrix,
            self._layout,
            self._settings(matrix, self.temperature_),
            columns,
            reference,
            temperature=self.temperature_,
            log_prior=self.class_log_prior_,
            class_names=[str(name) for name in self.class_names_],
            concept_names=self.concept_names_,
        )

    # -- files ------------------------------------------------------------------------
    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Any = None) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
        encoder : Encoder, str or None
            For images; must be the one of the concepts.

        Returns
        -------
        BayesianZeroShot

        Raises
        ------
        CheckpointError
            Missing, damaged, newer, or another kind.
        SpaceMismatchError
            The encoder is another than that of the concepts.
        """
        model = super().load(path)
        model.encoder = encoder
        model.encoder_ = model._resolved_encoder()
        if model.encoder_ is not None:
            model._check_space()
        return model

    def _parts(self) -> Parts:
        check_is_fitted(self)
        parameters = {name: getattr(self, name) for name in _PLAIN}
        data = {
            "parameters": parameters,
            "rule_options": None if self.rule_options is None else plain(self.rule_options),
            "classes": np.asarray(self.classes_).tolist(),
            "class_names": list(self.class_names_),
            "concept_names": self.concept_names_,
            "scale": self.scale_,
            "temperature": self.temperature_,
            "space": self.space_,
            "encoder": None if self.encoder_ is None else self.encoder_.name,
        }
        return data, {"class_log_prior": self.class_log_prior_, **self._layout.arrays()}

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        layout = Layout.of(tensors)
        texts = {data["class_names"][k]: list(data["concept_names"][k]) for k in layout.columns}
        model = cls(
            with_vectors(texts, layout.vectors, data["space"]),
            rule_options=data["rule_options"],
            class_prior=np.exp(tensors["class_log_prior"]),
            concept_prior=layout.prior,
            **data["parameters"],
        )
        model._layout = layout
        model.classes_ = np.array(data["classes"])
        model.class_names_ = np.array(data["class_names"], dtype=object)
        model.concept_names_ = data["concept_names"]
        model.concept_labels_ = np.repeat(layout.columns, layout.counts)
        model.vectors_ = layout.vectors
        model.space_ = data["space"]
        model.scale_ = float(data["scale"])
        model.temperature_ = float(data["temperature"])
        model.class_log_prior_ = tensors["class_log_prior"]
        model.n_features_in_ = int(layout.vectors.shape[1])
        model.encoder_ = None
        return model

    # -- inside -----------------------------------------------------------------------
    def _resolved_encoder(self) -> Any:
        if self.encoder is None:
            return None
        from conceptlab.encoders import load_encoder

        return load_encoder(self.encoder, device=self.device)

    def _resolved_scale(self) -> float:
        if self.scale == "model":
            own = getattr(self.encoder_, "logit_scale", None)
            return _SCALE if own is None else float(own)
        return float((OneOf("model") | Real(above=0)).check("scale", self.scale))

    def _check_space(self) -> None:
        if self.space_ is not None and self.encoder_.fingerprint != self.space_:
            raise SpaceMismatchError(
                f"The concept vectors were made by another encoder ({self.space_[:12]}...) than "
                f"{self.encoder_.name!r} ({self.encoder_.fingerprint[:12]}...). Load it with the "
                "encoder it was fitted with, or fit again."
            )

    def _settings(self, X: ArrayLike, T: float) -> Settings:
        _, options = resolve_rule(self.rule, self.rule_options)
        if self.rule == "lse":
            options["temperature"] = T
        return Settings(self.rule, options, self.scale_, device=resolve_device(self.device, like=X))

    def _checked(self, X: ArrayLike) -> Any:
        check_is_fitted(self)
        return self._features(X, reset=False)

    def _features(self, X: ArrayLike, *, reset: bool) -> Any:
        if not are_images(X):
            return check_features(self, X, reset=reset)
        if self.encoder_ is None:
            raise InputError(
                "X looks like images, but there is no encoder to read them. Give one, such as "
                "encoder='embedded', or vectors: Expected 2D array, got 1D array instead. Reshape "
                "your data if these are vectors.",
                code="CL-INPUT-RANK",
            )
        vectors = self.encoder_.encode_image(X, progress=self.progress)
        return check_features(self, vectors, reset=reset)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "temperature_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.concepts is None
        return tags
