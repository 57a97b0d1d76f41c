"""Concepts that mean nothing: what a bottleneck of named ones must beat."""

from __future__ import annotations

__all__ = ["CONTROLS", "Control", "fit_head", "random_bank"]

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression

from bottlenecks.heads import SparseLinearHead
from bottlenecks.measures import as_matrix
from conceptlab.arrays import ArrayLike
from conceptlab.bank import ConceptBank
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Whole
from conceptlab.seeds import RandomState, numpy_generator

Control = Literal["isotropic", "covariance", "words"]
"""A kind of random concepts."""
CONTROLS: tuple[Control, ...] = ("isotropic", "covariance", "words")


def random_bank(
    features: ArrayLike,
    n_concepts: int,
    kind: Control = "covariance",
    *,
    encoder: Any = None,
    words: Sequence[str] | None = None,
    space: str | None = None,
    random_state: RandomState = 0,
) -> ConceptBank:
    """Draw concepts that mean nothing, as a bank.

    None of the kinds is always the hardest to beat, so a control takes them all and the best
    of them as its baseline; :func:`evaluate` does.

    Parameters
    ----------
    features : array-like of shape (n, d)
        Rows of the fit. Only their number of columns counts but for "covariance".
    n_concepts : int
        k, as many as there are named concepts.
    kind : {"isotropic", "covariance", "words"}
        Directions uniform on the sphere; directions with the covariance of the features
        (Gaussian combinations of centred rows), which look where the features move; or the
        vectors of random pairs of words, whose texts mean nothing for the task.
    encoder : Encoder, optional
        Reads the words.
    words : sequence of str, optional
        To draw "words" from, instead of those that ship with the package; each is a text of its
        own then, so there must be at least k of them.
    space : str, optional
        Fingerprint of the encoder of `features`; that of `encoder` for "words".
    random_state : optional

    Returns
    -------
    ConceptBank
        Unit vectors, of k names such as ``"random 3"``, or the texts.

    Raises
    ------
    InputError
        Features that are all the same for "covariance" (``CL-INPUT-ZERO``), "words" without
        an encoder of texts (``CL-INPUT-OPTION``), fewer words than concepts
        (``CL-INPUT-FEW``), vectors of words of another width than `features`
        (``CL-INPUT-FEATURES``).

    References
    ----------
    Srivastava, Yan and Weng, VLG-CBM, NeurIPS 2024 (random words, random concepts).

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(50, 3)) * [10.0, 1.0, 0.1]
    >>> bank = random_bank(X, 4)
    >>> list(bank)[:2], bank.vectors.shape, bool(abs(bank.vectors[:, 0]).mean() > 0.8)
    (['random 0', 'random 1'], (4, 3), True)
    """
    X = as_matrix(features, "features")
    Whole(1).check("n_concepts", n_concepts)
    OneOf(*CONTROLS).check("kind", kind)
    rng = numpy_generator(random_state)
    if kind == "words":
        return _of_words(X, n_concepts, encoder, words, rng)
    if kind == "isotropic":
        vectors = rng.normal(size=(n_concepts, X.shape[1]))
    else:
        centred = X - X.mean(axis=0)
        if not centred.any():
            raise InputError(
                "All rows of the features are equal, so they have no covariance. Give other rows, "
                "or take kind='isotropic'.",
                code="CL-INPUT-ZERO",
            )
        vectors = rng.normal(size=(n_concepts, len(X))) @ centred
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ConceptBank(vectors, [f"random {j}" for j in range(n_concepts)], space=space)


def fit_head(A: np.ndarray, y: np.ndarray, nec: float) -> Any:
    """Fit the head that is the same for named and for random concepts, at `nec`.

    Columns that never change are left out; where all that move may be used, nothing has to be
    searched for and the head is dense.

    Parameters
    ----------
    A : ndarray of shape (n, k)
    y : ndarray of shape (n,)
    nec : float

    Returns
    -------
    callable
        (m, k) -> (m,): the classes of rows.
    """
    moving = A.max(axis=0) > A.min(axis=0)
    mean, scale = A[:, moving].mean(axis=0), A[:, moving].std(axis=0)

    def rows(V: np.ndarray) -> np.ndarray:
        return np.asarray((V[:, moving] - mean) / scale)

    head: Any = LogisticRegression(max_iter=1000)
    if nec < moving.sum():
        head = SparseLinearHead(nec=nec, tol=1e-3, device="cpu")
    head.fit(rows(A), y)
    return lambda V: head.predict(rows(V))


def _of_words(
    X: np.ndarray, k: int, encoder: Any, words: Sequence[str] | None, rng: np.random.Generator
) -> ConceptBank:
    from conceptlab.vocabulary import from_random_words

    if not hasattr(encoder, "encode_text"):
        raise InputError(
            "kind='words' needs an encoder that reads texts: random_bank(..., encoder=encoder).",
            code="CL-INPUT-OPTION",
        )
    if words is None:
        texts = from_random_words(["all"], k, random_state=rng)["all"]
    else:
        pool = list(dict.fromkeys(words))
        if len(pool) < k:
            raise InputError(
                f"{len(pool)} different words were given for {k} random concepts. Give at least "
                "as many words as the bank has concepts.",
                code="CL-INPUT-FEW",
            )
        texts = [pool[int(i)] for i in rng.choice(len(pool), k, replace=False)]
    bank = ConceptBank.from_texts(encoder, texts)
    if bank.n_features != X.shape[1]:
        raise InputError(
            f"The vectors of words have length {bank.n_features}, but the features have "
            f"{X.shape[1]} columns. Give the encoder that made the features.",
            code="CL-INPUT-FEATURES",
        )
    return bank
