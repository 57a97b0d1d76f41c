"""What the latents of a survey show, by two views: the encoder's scores and the styles."""

from __future__ import annotations

__all__ = ["shown", "told", "two_views"]

import warnings

import numpy as np
import torch

from unlearning.gan.gate import Gate
from unlearning.gan.groups import two_groups
from unlearning.gan.survey import Survey

_STRENGTHS = (0.01, 0.1, 1.0)  # C of the logistic regression on styles
_ROUNDS = 5
_FOLDS = 4
_SURE = 1e-20  # least probability
_LEAST = 4 * _FOLDS  # latents of a group, below which there is nothing to learn from


def shown(gate: Gate, seen: Survey, draws: torch.Generator | None) -> torch.Tensor:
    """Give the probability that each latent of a survey shows a concept.

    Parameters
    ----------
    gate : Gate
        Its answers are the first.
    seen : Survey
    draws : torch.Generator or None
        None asks the gate alone.

    Returns
    -------
    Tensor of shape (n,)
        0 or 1 by the gate alone, and where too few latents are on one side of it.
    """
    scores = gate.score(seen.embeddings)
    if draws is None:
        return (scores > 0).to(scores)
    column = scores.cpu().double().numpy()[:, None]
    found = two_views(column, (column[:, 0] > 0).astype(np.int64), seen, draws)
    return torch.from_numpy(found[:, 1]).to(scores)


def told(vectors: torch.Tensor, seen: Survey, draws: torch.Generator | None) -> torch.Tensor:
    """Give the probability of each value of a family for each latent of a survey.

    Parameters
    ----------
    vectors : Tensor of shape (k, d)
        Texts of the values; the nearest is the first answer.
    seen : Survey
    draws : torch.Generator or None
        None takes the nearest text's answer alone.

    Returns
    -------
    Tensor of shape (n, k)
    """
    scores = seen.embeddings @ vectors.T
    if draws is None:
        return torch.eye(scores.shape[1]).to(scores)[scores.argmax(1)]
    columns = scores.cpu().double().numpy()
    found = two_views(columns, columns.argmax(1), seen, draws)
    return torch.from_numpy(found).to(scores)


def two_views(
    scores: np.ndarray, answers: np.ndarray, seen: Survey, draws: torch.Generator
) -> np.ndarray:
    """Mend the encoder's answers by what the styles say.

    An encoder errs by rule: the hats of small triangles score below the threshold that suits
    all other hats. Styles are another view of the same latents, in which one attribute mostly
    lies along one direction, and errors by rule do not. Each view in turn is calibrated on the
    answers of the other, and their log-odds are added. Of models of styles that are allowed
    more or less, the one is taken whose answers fall apart most.

    Parameters
    ----------
    scores : ndarray of shape (n, k)
        Of the encoder.
    answers : ndarray of shape (n,), int64
        The first answers: the index of a group.
    seen : Survey
    draws : torch.Generator

    Returns
    -------
    ndarray of shape (n, max(k, 2))
        Probabilities of the groups. Where a group has fewer than 16 latents its answers stand.

    References
    ----------
    Blum and Mitchell 1998, Combining labeled and unlabeled data with co-training.
    Platt 1999, Probabilistic outputs for support vector machines (the calibration).
    """
    whole = np.eye(max(scores.shape[1], 2))[answers]
    groups = np.flatnonzero(whole.sum(0) >= _LEAST)
    rows = np.isin(answers, groups)
    if len(groups) < 2:
        return whole
    y = np.searchsorted(groups, answers[rows])
    styles = (seen.styles[:, 0] if seen.styles.ndim == 3 else seen.styles.flatten(1)).cpu().numpy()
    x, scores = _scaled(styles[rows]), _scaled(scores[rows])
    seed = int(torch.randint(2**31, (1,), generator=draws))
    chosen = max(_STRENGTHS, key=lambda strength: _apart(_unseen(x, y, strength, seed)))
    for _ in range(_ROUNDS):
        second = _unseen(x, y, chosen, seed)
        prior = np.log(np.bincount(y, minlength=len(groups)) / len(y))
        by_style = second.argmax(1)
        if min(np.bincount(by_style, minlength=len(groups))) < _LEAST:
            return whole
        sum_ = _calibrated(scores, by_style) + _calibrated(second, y) - prior
        y = sum_.argmax(1)
        if min(np.bincount(y, minlength=len(groups))) < _LEAST:
            return whole
    odds = np.exp(sum_ - sum_.max(1, keepdims=True))
    whole[np.ix_(rows, groups)] = odds / odds.sum(1, keepdims=True)
    return whole


def _scaled(x: np.ndarray) -> np.ndarray:
    return np.asarray((x - x.mean(0)) / (x.std(0) + 1e-12), dtype=np.float64)


def _apart(logs: np.ndarray) -> float:
    """Mean over groups of how far the log-odds of a group and of the others are apart."""
    found = []
    for own in range(logs.shape[1]):
        others = np.logaddexp.reduce(np.delete(logs, own, axis=1), axis=1)
        groups = two_groups(logs[:, own] - others, rare=False)
        found.append((groups.high - groups.low) / max(groups.deviation, 1e-12))
    return float(np.mean(found))


def _unseen(x: np.ndarray, y: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Log-probabilities of each row by a linear model that has not seen it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(C=strength, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model stopped early is good enough
        found = cross_val_predict(model, x, y, cv=folds, method="predict_proba")
    return np.log(np.asarray(found).clip(_SURE))


def _calibrated(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Log-probabilities of the answers of the other view, given the scores of one."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=1e3, max_iter=500).fit(_scaled(scores), answers)
    return np.log(np.asarray(model.predict_proba(_scaled(scores))).clip(_SURE))
