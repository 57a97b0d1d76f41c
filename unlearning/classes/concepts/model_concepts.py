"""Which concepts a classifier knows a class by: a bottleneck on its own features."""

from __future__ import annotations

__all__ = [
    "ModelConcepts",
    "concept_attributions",
    "find_model_concepts",
    "select_concepts",
    "some_rows",
]

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from bottlenecks import PostHocCBM
from conceptlab import ConceptBank
from conceptlab.errors import DependencyError, InputError, unknown_name
from conceptlab.io.html import escape, picture, section, table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEADS = ("linear", "mlp")


class ModelConcepts(dict[str, Any]):
    """The concepts of the forgotten classes; a dict of JSON values and arrays.

    It goes through ``UnlearnResult.save``; after ``load`` give the plain dict
    to ``ModelConcepts(...)`` again.

    Keys: ``classes`` (m forgotten labels), ``names`` (k concepts),
    ``attribution`` (m, k) mean integrated gradients of the class's own logit,
    ``contrast`` (m, k) less the largest mean of another class on its own logit,
    ``frequency`` (m, k) share of bootstrap draws that select the concept,
    ``selected`` (m lists of concept numbers), ``stable`` (m lists of bool),
    ``class_attribution`` (C, k), ``weights`` (C, k), ``activation_gap`` (C, k)
    mean activation of each class less the baseline, ``fidelity``,
    ``min_fidelity``, ``refused`` (bool), ``reason`` (words), ``completeness``
    (largest error of the sum of attributions), ``source`` (where the bank came
    from), and after poisoning ``donor``, ``donor_rule``, ``location``.

    Examples
    --------
    >>> found = ModelConcepts(classes=[1], names=["a", "b"], contrast=np.array([[2.0, -1.0]]),
    ...     attribution=np.array([[3.0, 0.1]]), frequency=np.array([[1.0, 0.0]]),
    ...     selected=[[0]], stable=[[True]], fidelity=0.97, min_fidelity=0.9,
    ...     refused=False, reason="")
    >>> found.to_frame()["concept"].tolist(), found.chosen(1)
    (['a', 'b'], ['a'])
    """

    def chosen(self, label: int | None = None) -> list[str]:
        """Names of the selected concepts of a forgotten class; none where refused."""
        if self["refused"]:
            return []
        row = 0 if label is None else self["classes"].index(label)
        return [self["names"][k] for k in self["selected"][row]]

    def to_frame(self) -> pd.DataFrame:
        """Give a table with a row for each forgotten class and concept, by contrast."""
        import pandas as pd

        rows = []
        for i, label in enumerate(self["classes"]):
            chosen = set(self["selected"][i])
            for k in np.argsort(-np.asarray(self["contrast"])[i], kind="stable"):
                rows.append(
                    {
                        "class": label,
                        "concept": self["names"][k],
                        "attribution": float(self["attribution"][i][k]),
                        "contrast": float(self["contrast"][i][k]),
                        "frequency": float(self["frequency"][i][k]),
                        "selected": int(k) in chosen and not self["refused"],
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, label: int | None = None, *, top: int = 10, ax: Axes | None = None) -> Axes:
        """Draw the concepts of a forgotten class; see :mod:`conceptlab.plot.class_concepts`."""
        from conceptlab.plot.class_concepts import class_concept_bars

        row = 0 if label is None else self["classes"].index(label)
        return class_concept_bars(
            self["names"],
            np.asarray(self["contrast"])[row],
            np.asarray(self["frequency"])[row],
            selected=[] if self["refused"] else self["selected"][row],
            top=top,
            title=self.headline(row),
            ax=ax,
        )

    def headline(self, row: int = 0) -> str:
        """Say in a line what was found for a forgotten class, or that it is refused."""
        label = self["classes"][row]
        if self["refused"]:
            found, least = self["fidelity"], self["min_fidelity"]
            return f"Class {label}: no concept claim (fidelity {found:.0%}, below {least:.0%})"
        names = ", ".join(self["names"][k] for k in self["selected"][row]) or "none"
        return f"Class {label} is known by {names} (fidelity {self['fidelity']:.0%})"

    def _repr_html_(self) -> str:
        parts = []
        for row, label in enumerate(self["classes"]):
            frame = self.to_frame()
            frame = frame[frame["class"] == label].head(10)
            body = picture(self.plot(label), f"concepts of class {label}", dpi=80) + table(
                list(frame.columns), frame.itertuples(index=False, name=None)
            )
            parts.append(section(self.headline(row), body, text=self["reason"]))
        return f"<div>{''.join(parts)}</div>" if parts else f"<p>{escape('No classes.')}</p>"


def find_model_concepts(
    features: torch.Tensor,
    logits: torch.Tensor,
    y: torch.Tensor,
    classes: Sequence[int],
    *,
    bank: ConceptBank | None = None,
    n_concepts: int | str = "auto",
    head: str = "linear",
    min_fidelity: float = 0.9,
    mass: float = 0.8,
    max_concepts: int = 5,
    n_bootstrap: int = 200,
    min_frequency: float = 0.8,
    n_steps: int = 50,
    numpy: np.random.Generator | None = None,
) -> ModelConcepts:
    """Find the concepts that a classifier knows classes by.

    A post-hoc bottleneck is fitted to the classifier's *own answers* on its
    own features. Integrated gradients of a class's logit at the concept layer,
    from the mean activations of the other classes, tell what each concept
    adds; they are compared with what it adds to other classes.

    Parameters
    ----------
    features : torch.Tensor of shape (n, d)
        What enters the classifier's head.
    logits : torch.Tensor of shape (n, C)
        The classifier's answers.
    y : torch.Tensor of shape (n,)
        True labels.
    classes : sequence of int
        The classes asked about.
    bank : ConceptBank, optional
        Directions in the space of the features. By default they are found by
        non-negative factorisation of the features (semi-non-negative where
        features are negative).
    n_concepts : int or "auto"
        Of the factorisation; "auto" doubles it from the number of classes on,
        up to four times, until the bottleneck agrees with the classifier.
    head : {"linear", "mlp"}
        The bottleneck's head: a sparse linear one, or a small network.
    min_fidelity : float
        Below this agreement of bottleneck and classifier on samples held out
        from the bottleneck's fit, the claim is refused.
    mass : float
        Share of the positive contrast that the selected concepts hold.
    max_concepts : int
        Most concepts selected for a class.
    n_bootstrap : int
        Draws of samples for the frequencies.
    min_frequency : float
        Selected concepts below it are called unstable.
    n_steps : int
        Points of captum's integrated gradients; only for ``head="mlp"``.
    numpy : numpy.random.Generator, optional
        For splits and draws.

    Returns
    -------
    ModelConcepts

    References
    ----------
    Yuksekgonul et al., *Post-hoc Concept Bottleneck Models*, ICLR 2023;
    Sundararajan et al., *Axiomatic Attribution for Deep Networks*, ICML 2017,
    equation 1; Chang et al., 2024 (arXiv 2405.15662), who use the weights alone.

    Examples
    --------
    >>> y = torch.arange(3).repeat(40)
    >>> features = torch.eye(3)[y] + 0.05 * torch.rand(120, 3)
    >>> bank = ConceptBank(np.eye(3), ["stripes", "wings", "wheels"], space=None)
    >>> found = find_model_concepts(features, 9 * features, y, [1], bank=bank,
    ...                             numpy=np.random.default_rng(0))
    >>> found.chosen(1), found["refused"]
    (['wings'], False)
    """
    if head not in HEADS:
        raise unknown_name("concept_head", head, HEADS)
    rng = numpy or np.random.default_rng(0)
    X = features.double().numpy()
    said = logits.argmax(dim=1).numpy()
    truth = y.numpy()
    n_classes = logits.shape[1]
    fit, test = _halves(said, rng)
    answered = len(np.unique(said[fit]))
    if answered < 2:
        raise InputError(
            f"The model answers class {int(said[0])} for every sample, so that nothing tells one "
            "class from another and no concept can be found. Check the scale of the inputs and "
            "the model's weights, or use a method without concepts, such as SoftRelabel.",
            code="CL-INPUT-FEW",
        )
    bank, cbm, agreement, source = _bottleneck(X, said, fit, test, bank, n_concepts, answered, rng)
    A = _activations(cbm, X)
    others = A[~np.isin(truth, list(classes))]
    start = others.mean(axis=0) if len(others) else A.mean(axis=0)
    W, function = _linear_head(cbm, n_classes), None
    if head == "mlp":
        function, agreement = _network_head(A, said, fit, test, n_classes, rng)
    own, completeness = np.zeros_like(A), 0.0
    for label in np.unique(truth):
        rows = truth == label
        own[rows], worst = concept_attributions(
            W if function is None else function, A[rows], start, int(label), n_steps=n_steps
        )
        completeness = max(completeness, worst)
    class_attribution = np.zeros((n_classes, A.shape[1]))
    for label in np.unique(truth):
        class_attribution[label] = own[truth == label].mean(axis=0)
    present = [int(j) for j in np.unique(truth)]
    gaps = np.zeros_like(class_attribution)
    for label in present:
        gaps[label] = A[truth == label].mean(axis=0) - start
    rows_of = {j: own[truth == j] for j in present}
    attribution, contrast, frequency, chosen, stable = [], [], [], [], []
    for label in classes:
        gap = _contrast(class_attribution, int(label), present)
        picked = select_concepts(gap, mass, max_concepts)
        drawn = np.zeros(A.shape[1])
        means = {j: _bootstrap_means(v, n_bootstrap, rng) for j, v in rows_of.items()}
        for b in range(n_bootstrap):
            table_ = np.zeros_like(class_attribution)
            for j, values in means.items():
                table_[j] = values[b]
            drawn[select_concepts(_contrast(table_, int(label), present), mass, max_concepts)] += 1
        share = drawn / max(n_bootstrap, 1)
        attribution.append(class_attribution[label])
        contrast.append(gap)
        frequency.append(share)
        chosen.append([int(k) for k in picked])
        stable.append([bool(share[k] >= min_frequency) for k in picked])
    refused = bool(agreement < min_fidelity)
    reason = ""
    if refused:
        reason = (
            f"The bottleneck agrees with the classifier on {agreement:.1%} of held-out samples, "
            f"less than {min_fidelity:.0%}. What its concepts say need not hold for the "
            "classifier, so nothing is claimed. Give another bank, or more concepts."
        )
    return ModelConcepts(
        classes=[int(c) for c in classes],
        names=[str(name) for name in bank.names],
        attribution=np.stack(attribution),
        contrast=np.stack(contrast),
        frequency=np.stack(frequency),
        selected=chosen,
        stable=stable,
        class_attribution=class_attribution,
        weights=W[0],
        activation_gap=gaps,
        fidelity=float(agreement),
        min_fidelity=float(min_fidelity),
        refused=refused,
        reason=reason,
        completeness=float(completeness),
        source=source,
        vectors=np.asarray(bank.vectors, dtype=np.float64),
    )


def concept_attributions(
    head: Any, A: np.ndarray, start: np.ndarray, target: int, *, n_steps: int = 50
) -> tuple[np.ndarray, float]:
    """Attribute a class's logit to concept activations by integrated gradients.

    Parameters
    ----------
    head : (W, b) or torch.nn.Module
        A linear head, weights (C, k) and intercepts (C,): one step is exact.
        For a module captum integrates.
    A : array of shape (n, k)
        Activations.
    start : array of shape (k,)
        The baseline.
    target : int
        The class.
    n_steps : int
        Gauss-Legendre points, for a module.

    Returns
    -------
    attributions : array of shape (n, k), float64
    error : float
        Largest distance of their sum from ``head(A) - head(start)``.

    Examples
    --------
    >>> W, b = np.array([[1.0, 2.0]]), np.zeros(1)
    >>> concept_attributions((W, b), np.array([[3.0, 1.0]]), np.zeros(2), 0)
    (array([[3., 2.]]), 0.0)
    """
    if isinstance(head, tuple):
        W, b = head
        found = W[target] * (A - start)
        change = (A @ W[target] + b[target]) - (start @ W[target] + b[target])
    else:
        attr = _captum()
        values = torch.from_numpy(np.ascontiguousarray(A)).float()
        base = torch.from_numpy(np.ascontiguousarray(start)).float()[None]
        found = (
            attr.IntegratedGradients(head)
            .attribute(values, baselines=base.expand_as(values), target=target, n_steps=n_steps)
            .detach()
            .double()
            .numpy()
        )
        with torch.no_grad():
            change = (head(values)[:, target] - head(base)[:, target]).double().numpy()
    error = float(np.abs(found.sum(axis=1) - change).max(initial=0.0))
    return found, error


def select_concepts(contrast: np.ndarray, mass: float = 0.8, most: int = 5) -> np.ndarray:
    """Take the fewest concepts that hold a share of the positive contrast.

    Parameters
    ----------
    contrast : array of shape (k,)
        What each concept adds to the class more than to others.
    mass : float
        Share of the sum of positive entries.
    most : int
        Never more than these.

    Returns
    -------
    array of int
        Concept numbers, the strongest first; empty where nothing is positive.

    Examples
    --------
    >>> select_concepts(np.array([0.1, 5.0, 3.0, -2.0])).tolist()
    [1, 2]
    """
    positive = np.maximum(contrast, 0)
    total = positive.sum()
    if not total > 0:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(-positive, kind="stable")
    held = np.cumsum(positive[order]) / total
    count = int(np.searchsorted(held, mass - 1e-12)) + 1
    return order[: min(count, most, int((positive > 0).sum()))]


def some_rows(y: torch.Tensor, most: int, numpy: np.random.Generator) -> torch.Tensor:
    """Draw at most about `most` rows, with 20 of every class (or all, where it has fewer)."""
    if len(y) <= most:
        return torch.arange(len(y))
    drawn = torch.from_numpy(numpy.choice(len(y), most, replace=False))
    rare = [(y == label).nonzero()[:20, 0] for label in torch.unique(y)]
    return torch.cat([drawn, *rare]).unique()


def _contrast(class_attribution: np.ndarray, label: int, present: Sequence[int]) -> np.ndarray:
    """Own attribution less that of the class to which the concept adds most."""
    others = class_attribution[[j for j in present if j != label]]
    return class_attribution[label] - others.max(axis=0)


def _bootstrap_means(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    n = len(values)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    return counts @ values / n


def _halves(said: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split rows 80 to 20, so that every answer is in the larger part."""
    order = rng.permutation(len(said))
    first = {int(v): int(i) for i, v in zip(order[::-1], said[order[::-1]], strict=True)}
    rest = np.setdiff1d(order, np.array(list(first.values())))
    rest = rng.permutation(rest)
    test = rest[: math.floor(0.2 * len(said))]
    fit = np.setdiff1d(np.arange(len(said)), test)
    return fit, test if len(test) else fit


def _bottleneck(
    X: np.ndarray,
    said: np.ndarray,
    fit: np.ndarray,
    test: np.ndarray,
    bank: ConceptBank | None,
    n_concepts: int | str,
    n_classes: int,
    rng: np.random.Generator,
) -> tuple[ConceptBank, PostHocCBM, float, str]:
    if bank is not None:
        if bank.n_features != X.shape[1]:
            raise InputError(
                f"The bank's vectors have length {bank.n_features}, but {X.shape[1]} features "
                "enter the model's head. Make the bank from the model's own penultimate features "
                "(unlearning.features_and_logits), or leave bank=None.",
                code="CL-INPUT-FEATURES",
            )
        return bank, *_fit_cbm(bank, X, said, fit, test), "given by the user"
    most = min(X.shape[1], len(fit))
    if n_concepts == "auto":
        tries = sorted({min(most, max(2, m * n_classes)) for m in (1, 2, 4)})
    else:
        tries = [min(int(n_concepts), most)]
    seed = int(rng.integers(2**31 - 1))
    for k in tries:
        found, kind = _factorise(X[fit], k, seed)
        cbm, agreement = _fit_cbm(found, X, said, fit, test)
        if agreement >= 0.95:
            break
    return found, cbm, agreement, f"{len(found)} concepts by {kind} of the model's features"


def _factorise(X: np.ndarray, k: int, seed: int) -> tuple[ConceptBank, str]:
    from conceptlab.extractors import NMFConcepts, SemiNMF

    negative = bool((X < 0).any())
    rows = X.astype(np.float32)
    with warnings.catch_warnings():
        # Directions are wanted, not the last digit of the factorisation.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if negative:
            found: Any = SemiNMF(k, max_iter=100, tol=1e-4, random_state=seed).fit(rows)
        else:
            found = NMFConcepts(k, max_iter=100, tol=1e-4, random_state=seed).fit(rows)
    vectors = np.asarray(found.components_)
    alive = np.linalg.norm(vectors, axis=1) > 1e-8
    names = [f"concept {i}" for i in range(int(alive.sum()))]
    kind = "semi-non-negative factorisation" if negative else "non-negative factorisation"
    return ConceptBank(vectors[alive], names, space=None), kind


def _fit_cbm(
    bank: ConceptBank, X: np.ndarray, said: np.ndarray, fit: np.ndarray, test: np.ndarray
) -> tuple[PostHocCBM, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        cbm = PostHocCBM(bank, device="cpu").fit(X[fit], said[fit])
    return cbm, float((cbm.predict(X[test]) == said[test]).mean())


def _activations(cbm: PostHocCBM, X: np.ndarray) -> np.ndarray:
    return np.asarray(cbm.predict_concepts(X), dtype=np.float64)


def _linear_head(cbm: PostHocCBM, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    W, b = np.zeros((n_classes, cbm.coef_.shape[1])), np.zeros(n_classes)
    # A softmax is blind to what all rows share, so what they share is taken away.
    W[cbm.classes_] = cbm.coef_ - cbm.coef_.mean(axis=0)
    b[cbm.classes_] = cbm.intercept_ - cbm.intercept_.mean()
    return W, b


def _network_head(
    A: np.ndarray,
    said: np.ndarray,
    fit: np.ndarray,
    test: np.ndarray,
    n_classes: int,
    rng: np.random.Generator,
) -> tuple[nn.Module, float]:
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = MLPClassifier(
            (32,), alpha=1e-3, max_iter=200, random_state=int(rng.integers(2**31 - 1))
        ).fit(A[fit], said[fit])
    agreement = float((found.predict(A[test]) == said[test]).mean())
    first, last = nn.Linear(A.shape[1], 32), nn.Linear(32, n_classes)
    coefs, intercepts = found.coefs_, found.intercepts_
    out_W, out_b = coefs[1].T, intercepts[1]
    if len(found.classes_) == 2:  # one logistic output stands for two classes
        out_W, out_b = np.stack([-out_W[0], out_W[0]]) / 2, np.array([-out_b[0], out_b[0]]) / 2
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(coefs[0].T))
        first.bias.copy_(torch.from_numpy(intercepts[0]))
        last.weight.zero_()
        last.bias.zero_()
        rows = torch.from_numpy(np.asarray(found.classes_, dtype=np.int64))
        last.weight[rows] = torch.from_numpy(out_W - out_W.mean(axis=0)).float()
        last.bias[rows] = torch.from_numpy(out_b - out_b.mean()).float()
    return nn.Sequential(first, nn.ReLU(), last).eval().requires_grad_(False), agreement


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise DependencyError(
            f"Integrated gradients of a network need captum, which cannot be imported ({error}). "
            "Install it with: pip install captum"
        ) from error
    return attr
