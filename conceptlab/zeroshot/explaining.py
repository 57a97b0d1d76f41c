"""From a fitted classifier to its reasons: evidence per concept and posteriors."""

from __future__ import annotations

__all__ = ["explain_rows", "responsibilities"]


import numpy as np
import torch
from scipy.special import log_softmax

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.zeroshot.explanation import ZeroShotExplanation
from conceptlab.zeroshot.rules import RULES, resolve_rule, spread_of
from conceptlab.zeroshot.stream import Layout, Settings

_ROWS = 256


def responsibilities(
    X: ArrayLike, layout: Layout, settings: Settings, temperature: float, log_proba: np.ndarray
) -> np.ndarray:
    """Give p(k | x) p(c | x, k) for all concepts.

    Parameters
    ----------
    X : ndarray or Tensor of shape (N, d)
    layout, settings
        Of the classifier.
    temperature : float
        T of p(c | x, k).
    log_proba : ndarray of shape (N, K)
        Log posterior of the classes by column.

    Returns
    -------
    ndarray of shape (N, n), dtype of `log_proba`
    """
    rows = as_numpy(X)
    out = np.empty((len(rows), len(layout.vectors)), dtype=log_proba.dtype)
    p = layout.weights()
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    for members in layout.blocks(settings.block_rows, 8):
        C, k = int(layout.counts[members[0]]), len(members)
        where = layout.rows(members)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            S = _similarities(rows[part], layout.vectors[where]) * settings.scale
            logits = (S / temperature + log_p[where]).reshape(-1, k, C)
            within = log_softmax(logits, axis=-1)
            joint = np.exp(within + log_proba[part][:, layout.columns[members], None])
            out[part, where] = joint.reshape(-1, k * C)
    return out


def explain_rows(
    X: ArrayLike,
    layout: Layout,
    settings: Settings,
    columns: np.ndarray,
    reference: np.ndarray,
    *,
    temperature: float,
    log_prior: np.ndarray,
    class_names: list[str],
    concept_names: list[list[str]],
) -> ZeroShotExplanation:
    """Take the scores of winner and runner-up apart, in float64.

    With weights v that sum to one, the score is ``sum_c v_c s_c`` and concept c
    brings ``v_c (s_c - reference) / T``. The marginal (lse) is no such sum; its
    excess over the reference is shared out by the posterior of the concepts.

    Parameters
    ----------
    X : ndarray or Tensor of shape (N, d)
    layout, settings
        Of the classifier.
    columns : ndarray of shape (N, 2)
        Winner and runner-up.
    reference : ndarray of shape (N,)
        Mean score over all classes.
    temperature : float
    log_prior : ndarray of shape (K,)
    class_names, concept_names
        By column.

    Returns
    -------
    ZeroShotExplanation
    """
    rows = as_numpy(X)
    class_of = np.argsort(layout.columns)
    width = int(layout.counts[class_of[columns]].max()) if len(rows) else 0
    shape = (len(rows), 2, width)
    cells = {
        name: np.full(shape, np.nan) for name in ("similarity", "weight", "evidence", "posterior")
    }
    outlier = np.zeros(shape, dtype=np.int8)
    facts = {name: np.empty(shape[:2]) for name in ("score", "rho", "kappa")}
    rule, options = resolve_rule(settings.rule)[0], settings.options
    flags = {
        **RULES["trim"].options,
        **{k: v for k, v in options.items() if k in RULES["trim"].options},
    }
    p_all = layout.weights()
    for column in np.unique(columns):
        image, role = np.nonzero(columns == column)
        k = class_of[column]
        where = slice(layout.offsets[k], layout.offsets[k + 1])
        C = where.stop - where.start
        vectors = layout.vectors[where].astype(np.float64)
        cosine = _similarities(rows[image], vectors)
        S = torch.from_numpy(cosine * settings.scale)
        p = torch.from_numpy(p_all[where])
        given = None if layout.prior is None else p
        v = rule.weights(S, given, options)
        m = torch.from_numpy(reference[image])[:, None]
        if rule.name == "mean_embedding":
            length = float(np.linalg.norm(p_all[where] @ vectors))
            evidence = v * S / length - v * m
        elif rule.linear:
            evidence = v * (S - m)
        else:
            evidence = v * (rule.score(S, given, options)[:, None] - m)
        evidence = evidence / temperature
        spread = spread_of(S, given, flags)
        far = (S - spread.m).abs() > flags["lam"] * spread.mad
        at = (image, role, slice(None, C))
        cells["similarity"][at] = cosine
        cells["weight"][at] = v.numpy()
        cells["evidence"][at] = evidence.numpy()
        cells["posterior"][at] = torch.softmax(S / temperature + p.log(), dim=-1).numpy()
        outlier[at] = torch.where(far, torch.sign(S - spread.m), torch.zeros_like(S)).numpy()
        facts["score"][image, role] = (evidence.sum(dim=-1) + m[:, 0] / temperature).numpy()
        facts["rho"][image, role] = spread.rho[:, 0].numpy()
        facts["kappa"][image, role] = spread.kappa[:, 0].numpy()
    return ZeroShotExplanation(
        columns=columns,
        class_names=class_names,
        concept_names=concept_names,
        reference=reference / temperature,
        log_prior=log_prior,
        outlier=outlier,
        settings={
            "rule": settings.rule,
            "options": dict(options),
            "scale": settings.scale,
            "temperature": temperature,
        },
        **cells,
        **facts,
    )


def _similarities(X: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Give cosines in float64; a row of zeros has cosine 0."""
    wide = X.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    cosines: np.ndarray = (wide / np.where(norms == 0, 1, norms)) @ vectors.astype(np.float64).T
    return cosines
