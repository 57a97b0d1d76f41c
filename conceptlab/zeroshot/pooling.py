"""Pooling as a function: similarities of one class in, one score out."""

from __future__ import annotations

__all__ = ["pool", "pool_weights"]

from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayKind, ArrayLike, as_tensor, check_finite
from conceptlab.errors import InputError
from conceptlab.zeroshot.fast import RowPooler
from conceptlab.zeroshot.rules import Options, Rule, resolve_rule

_PIECE = 1 << 20  # numbers of S that are worked on at once


def pool(S: ArrayLike, rule: str = "trim", *, prior: Any = None, **options: Any) -> Any:
    """Pool the similarities of a class's concepts to one score.

    Parameters
    ----------
    S : array-like of shape (..., C)
        Similarities in units of logits: the model's scale times the cosine.
    rule : str
        A key of :data:`conceptlab.zeroshot.RULES` but ``"mean_embedding"``:

        - ``"trim"``: adaptive soft-trim as published. With m the lower median,
          MAD the lower median of ``|s - m|`` plus `eps`, rho the share of
          concepts further than ``lam * MAD`` and kappa = log((1 - rho) / rho)
          within `kappa`, weights are sigmoid(kappa (s - m) / MAD): low
          outliers are trimmed, high ones count in full.
        - ``"sym"``: weights sigmoid(-slope kappa |s - m| / MAD).
        - ``"gated"``: weights sigmoid(kappa (lam - |s - m| / MAD)), flat for
          what is no outlier.
        - ``"lse"``: T log sum_c p_c exp(s_c / T), the marginal over concepts.
        - ``"mean"``, ``"max"``, ``"median"`` (the lower one), ``"trimmed_mean"``
          (`share` of the mass cut at either end), ``"tukey"`` (biweight with
          `cutoff` MADs).
    prior : array-like broadcastable to (..., C), optional
        Weights of the concepts, at least 0 and in each row above 0 somewhere;
        they need not sum to one. A concept with prior 2 counts as two, one with
        0 as none, so rows of different lengths are padded with it.
    **options
        Of the rule; see ``RULES[rule].options``.

    Returns
    -------
    array of shape (...)
        Like in, like out; gradients flow through tensors that ask for them.

    Raises
    ------
    InputError
        Unknown rule or option (``CL-INPUT-OPTION``), no concepts
        (``CL-INPUT-EMPTY``), NaN (``CL-INPUT-NONFINITE``), a prior that does not
        fit (``CL-INPUT-SHAPE``, ``CL-INPUT-RANGE``).

    References
    ----------
    Liu et al., Beyond Heuristic Prompting: A Concept-Guided Bayesian Framework
    for Zero-Shot Image Recognition, CVPR 2026 (arXiv 2603.07911), released code.

    Examples
    --------
    >>> S = np.array([[30.0, 31.0, 29.0, 30.0, 5.0]])
    >>> pool(S, "mean"), pool(S, "trim").round(3), pool(S, "median")
    (array([25.]), array([30.3]), array([30.]))
    """
    found, o = resolve_rule(rule, options)
    kind = ArrayKind.of(S)
    tensor, p = _checked(S, prior, found)
    C = tensor.shape[-1]
    if tensor.requires_grad:
        return kind.restore(found.score(tensor, p, o))
    rows = tensor.reshape(-1, C)
    prior_rows = None if p is None else p.expand_as(tensor).reshape(-1, C)
    step = max(1, _PIECE // C)
    parts = [
        _pooled(
            rows[i : i + step],
            prior_rows if prior_rows is None else prior_rows[i : i + step],
            found,
            o,
        )
        for i in range(0, max(1, len(rows)), step)
    ]
    return kind.restore(torch.cat(parts).reshape(tensor.shape[:-1]))


def pool_weights(S: ArrayLike, rule: str = "trim", *, prior: Any = None, **options: Any) -> Any:
    """Give the weight of every concept in the score of :func:`pool`.

    Parameters
    ----------
    S, rule, prior, **options
        See :func:`pool`.

    Returns
    -------
    array of shape (..., C)
        At least 0, sums to one. For every rule but ``"lse"`` the score is the
        weighted mean of the similarities; for ``"lse"`` the weights are the
        posterior of the concepts within the class.

    Examples
    --------
    >>> S = np.array([30.0, 31.0, 29.0, 30.0, 5.0])
    >>> pool_weights(S).round(2)
    array([0.25, 0.4 , 0.1 , 0.25, 0.  ])
    """
    found, o = resolve_rule(rule, options)
    tensor, p = _checked(S, prior, found)
    return ArrayKind.of(S).restore(found.weights(tensor, p, o))


def _pooled(rows: torch.Tensor, p: torch.Tensor | None, rule: Rule, o: Options) -> torch.Tensor:
    if p is None and rows.device.type == "cpu":
        numbers = np.array(rows.detach().numpy(), order="C")  # a copy: it is overwritten
        return torch.from_numpy(RowPooler(rule.name, o, rows.shape[1], numbers.dtype)(numbers))
    return rule.score(rows, p, o)


def _checked(S: ArrayLike, prior: Any, rule: Rule) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not rule.pools:
        raise InputError(
            f"{rule.name!r} averages vectors, so it cannot be had from similarities. Use "
            f"BayesianZeroShot(rule={rule.name!r}), or pool with 'mean'.",
            code="CL-INPUT-OPTION",
        )
    tensor = _numbers(S, "S")
    if tensor.ndim == 0 or tensor.shape[-1] == 0:
        raise InputError(
            f"S must have the concepts on its last axis, at least one, got shape "
            f"{tuple(tensor.shape)}.",
            code="CL-INPUT-EMPTY",
        )
    check_finite(tensor, "S")
    if prior is None:
        return tensor, None
    p = _numbers(prior, "prior").to(tensor)
    try:
        p = p.expand_as(tensor)
    except RuntimeError as error:
        raise InputError(
            f"prior of shape {tuple(p.shape)} does not fit S of shape {tuple(tensor.shape)}. Give "
            "one number a concept, or as many as S has.",
            code="CL-INPUT-SHAPE",
        ) from error
    check_finite(p, "prior")
    total = p.sum(dim=-1, keepdim=True)
    if bool((p < 0).any()) or bool((total <= 0).any()):
        raise InputError(
            "prior must be at least 0, and above 0 for one concept of every row.",
            code="CL-INPUT-RANGE",
        )
    return tensor, p / total


def _numbers(values: ArrayLike, name: str) -> torch.Tensor:
    try:
        return as_tensor(values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must hold numbers, got {values!r:.60}.", code="CL-INPUT-TYPE"
        ) from error
