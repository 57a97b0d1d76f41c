"""Pooling rules: many similarities of one class to one score.

Every rule is a functional of the measure ``sum_c p_c delta(s_c)`` that a prior p
over concepts puts on the similarities, so that a concept with twice the prior
counts as two. Here the rules are written for clarity, on any device, with
priors and gradients; :mod:`conceptlab.zeroshot.fast` has the same rules for
many rows on the CPU.
"""

from __future__ import annotations

__all__ = ["RULES", "Options", "Rule", "Spread", "check_options", "resolve_rule", "spread_of"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from conceptlab.errors import InputError, unknown_name
from conceptlab.parameters import Real

Options = dict[str, Any]
_TIE = 1e-6  # masses that sum to one half but for rounding count as one half
_SPREAD: Options = {"lam": 2.5, "kappa": (0.1, 4.0), "eps": 1e-6}


class Spread(NamedTuple):
    """Location, scale and share of outliers of rows (..., C); each of shape (..., 1).

    Attributes
    ----------
    m : Tensor
        Lower median.
    mad : Tensor
        Lower median of the distances to `m`, plus `eps`.
    rho : Tensor
        Mass further than ``lam * mad`` from `m`.
    kappa : Tensor
        ``log((1 - rho) / rho)`` held within its range.
    """

    m: torch.Tensor
    mad: torch.Tensor
    rho: torch.Tensor
    kappa: torch.Tensor


@dataclass(frozen=True)
class Rule:
    """One pooling rule.

    Attributes
    ----------
    name : str
        For ``rule=``.
    options : dict
        What can be set, with defaults.
    weights : callable
        From similarities (..., C), prior (..., C) or None, and options to
        weights (..., C) that sum to one.
    source : str
        Where it comes from.
    linear : bool
        Whether the score is the weighted mean of the similarities.
    pools : bool
        Whether it can be computed from similarities alone.

    Examples
    --------
    >>> from conceptlab.zeroshot import RULES
    >>> RULES["trim"].name, sorted(RULES["trim"].options)
    ('trim', ['eps', 'kappa', 'lam'])
    """

    name: str
    options: Options
    weights: Callable[[torch.Tensor, torch.Tensor | None, Options], torch.Tensor]
    source: str
    linear: bool = True
    pools: bool = True

    def score(self, S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
        """Pool `S` (..., C) to (...) with weights `p` of the concepts and options `o`."""
        if self.linear:
            return (self.weights(S, p, o) * S).sum(-1)
        T = o["temperature"]
        return T * (torch.logsumexp(S / T + _log(p, S), dim=-1))


def spread_of(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> Spread:
    """Give location, scale and share of outliers of each row.

    Parameters
    ----------
    S : Tensor of shape (..., C)
        Similarities.
    p : Tensor of shape (..., C) or None
        Prior that sums to one; None is uniform.
    o : dict
        With ``lam``, ``kappa``, ``eps``.

    Returns
    -------
    Spread
    """
    if p is None:
        C = S.shape[-1]
        k = (C - 1) // 2
        rows = S.sort(dim=-1).values
        m = rows[..., k : k + 1]
        # The k + 1 nearest of the median are neighbours of each other in the sorted row.
        reach = torch.maximum(m - rows[..., : C - k], rows[..., k:] - m)
        mad = reach.amin(dim=-1, keepdim=True) + o["eps"]
        far = (S - m).abs() > o["lam"] * mad
        rho = far.to(S.dtype).mean(dim=-1, keepdim=True)
    else:
        m = _weighted_median(S, p)
        mad = _weighted_median((S - m).abs(), p) + o["eps"]
        rho = (p * ((S - m).abs() > o["lam"] * mad)).sum(dim=-1, keepdim=True)
    low, high = o["kappa"]
    kappa = torch.log((1 - rho) / rho).clamp(low, high)
    return Spread(m, mad, rho, kappa)


def _weighted_median(S: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Give the least value up to which half of the mass lies, (..., 1)."""
    rows, order = S.sort(dim=-1)
    mass = p.expand_as(S).gather(-1, order).cumsum(-1)
    place = (mass < 0.5 - _TIE).sum(dim=-1, keepdim=True).clamp(max=S.shape[-1] - 1)
    return rows.gather(-1, place)


def _log(p: torch.Tensor | None, S: torch.Tensor) -> torch.Tensor | float:
    return -math.log(S.shape[-1]) if p is None else p.log()


def _by(w: torch.Tensor, p: torch.Tensor | None) -> torch.Tensor:
    """Multiply weights by the prior and let them sum to one."""
    w = w if p is None else w * p
    return w / w.sum(dim=-1, keepdim=True)


def _mean(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    return _by(torch.ones_like(S), p)


def _max(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    held = S if p is None else S.masked_fill(p.expand_as(S) <= 0, -math.inf)
    return torch.zeros_like(S).scatter(-1, held.argmax(dim=-1, keepdim=True), 1.0)


def _median(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    order = S.argsort(dim=-1)
    mass = (torch.full_like(S, 1 / S.shape[-1]) if p is None else p.expand_as(S)).gather(-1, order)
    place = (mass.cumsum(-1) < 0.5 - _TIE).sum(dim=-1, keepdim=True).clamp(max=S.shape[-1] - 1)
    return torch.zeros_like(S).scatter(-1, order.gather(-1, place), 1.0)


def _trimmed_mean(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    order = S.argsort(dim=-1)
    mass = torch.full_like(S, 1 / S.shape[-1]) if p is None else p.expand_as(S)
    sorted_mass = mass.gather(-1, order)
    above = sorted_mass.cumsum(-1)
    low, high = o["share"], 1 - o["share"]
    kept = (above.clamp(max=high) - (above - sorted_mass).clamp(min=low)).clamp(min=0)
    kept = torch.zeros_like(S).scatter(-1, order, kept)
    return kept / kept.sum(dim=-1, keepdim=True)


def _tukey(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    s = spread_of(S, p, {**_SPREAD, "eps": o["eps"]})
    u = (S - s.m) / (o["cutoff"] * s.mad)
    return _by((1 - u * u).clamp(min=0) ** 2, p)


def _trim(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    s = spread_of(S, p, o)
    return _by(torch.sigmoid((S - s.m) * (s.kappa / s.mad)), p)


def _sym(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    s = spread_of(S, p, o)
    return _by(torch.sigmoid((S - s.m).abs() * (-o["slope"] * s.kappa / s.mad)), p)


def _gated(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    s = spread_of(S, p, o)
    return _by(torch.sigmoid(s.kappa * (o["lam"] - (S - s.m).abs() / s.mad)), p)


def _lse(S: torch.Tensor, p: torch.Tensor | None, o: Options) -> torch.Tensor:
    return torch.softmax(S / o["temperature"] + _log(p, S), dim=-1)


_CGBC = "Liu et al., CVPR 2026 (CGBC), released code"
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("trim", _SPREAD, _trim, f"{_CGBC}: adaptive soft-trim"),
        Rule("sym", {**_SPREAD, "slope": 1.0}, _sym, "soft-trim by the distance to the median"),
        Rule("gated", _SPREAD, _gated, "soft-trim that is flat up to lam deviations"),
        Rule("lse", {"temperature": 1.0}, _lse, "the marginal over concepts", linear=False),
        Rule("mean", {}, _mean, "Menon and Vondrick, ICLR 2023 (DCLIP)"),
        Rule("mean_embedding", {}, _mean, "Pratt et al., ICCV 2023 (CuPL)", pools=False),
        Rule("max", {}, _max, "DCLIP, option"),
        Rule("median", {}, _median, f"{_CGBC}, option"),
        Rule("trimmed_mean", {"share": 0.2}, _trimmed_mean, f"{_CGBC}, option"),
        Rule("tukey", {"cutoff": 6.0, "eps": 1e-6}, _tukey, "biweight, Mosteller and Tukey 1977"),
    )
}
"""Every pooling rule by name."""


def resolve_rule(rule: str, options: Mapping[str, Any] | None = None) -> tuple[Rule, Options]:
    """Give a rule by its name, and its options with defaults filled in.

    Raises
    ------
    InputError
        Unknown rule or option, or a value out of range (``CL-INPUT-OPTION``,
        ``CL-INPUT-RANGE``).
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise unknown_name("pooling rule", rule, RULES)
    found = RULES[rule]
    if options is not None and not isinstance(options, Mapping):
        raise InputError(
            f"rule_options must be a mapping such as {{'lam': 2.5}}, got {options!r}.",
            code="CL-INPUT-TYPE",
        )
    for name in options or {}:
        if name not in found.options:
            hint = f"Rule {rule!r} has no options." if not found.options else ""
            raise unknown_name(f"option of rule {rule!r}", name, found.options, hint=hint)
    return found, check_options({**found.options, **(options or {})})


def check_options(options: Options) -> Options:
    """Check the values of options and give them as floats."""
    checked: Options = {}
    for name, value in options.items():
        if name == "kappa":
            checked[name] = _checked_range(value)
            continue
        checked[name] = _ALLOWED[name].check(name, value)
    return checked


_ALLOWED = {
    "lam": Real(least=1),
    "eps": Real(above=0),
    "slope": Real(above=0),
    "share": Real(least=0, below=0.5, hint="the share that is cut at either end"),
    "cutoff": Real(above=1),
    "temperature": Real(above=0),
}


def _checked_range(value: Any) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < low <= high < math.inf:
        raise InputError(
            f"kappa must be two numbers 0 < low <= high, such as (0.1, 4.0), got {value!r}.",
            code="CL-INPUT-RANGE",
        )
    return low, high
