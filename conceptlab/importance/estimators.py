"""Estimators of first-order and total-order Sobol indices, vectorised.

One design gives three outputs: a = y(A), b = y(B) and c_i = y(C_i), where C_i
is A with column i taken from B. So a and c_i share everything *but* concept i,
and b and c_i share concept i only. All estimators below are functions of the
means of a, b, c, their squares and their products, so that one matrix product
with resampling weights bootstraps all of them.
"""

from __future__ import annotations

__all__ = ["COMPANIONS", "ESTIMATORS", "Moments", "first_order", "total_order"]

from collections.abc import Callable
from dataclasses import dataclass

import torch

from conceptlab.errors import InputError, unknown_name

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Moments:
    """Means over the rows of a design.

    Attributes
    ----------
    a, b, aa, bb, ab : torch.Tensor of shape (..., q)
        Means of a, b, a², b² and a b for q outputs (or images).
    c, cc, ac, bc : torch.Tensor of shape (..., q, k)
        Means of c_i, c_i², a c_i and b c_i.
    floor : torch.Tensor of shape (q,)
        Variances up to here are rounding errors: the output is constant.
    """

    a: torch.Tensor
    b: torch.Tensor
    aa: torch.Tensor
    bb: torch.Tensor
    ab: torch.Tensor
    c: torch.Tensor
    cc: torch.Tensor
    ac: torch.Tensor
    bc: torch.Tensor
    floor: torch.Tensor

    @classmethod
    def of(
        cls,
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        *,
        weights: torch.Tensor | None = None,
        floor: torch.Tensor | None = None,
    ) -> Moments:
        """Average outputs over the rows of a design.

        Outputs are shifted by their pooled mean first, which changes no index
        but the noise of those that are products (Sobol' 2001, section 7).

        Parameters
        ----------
        a, b : torch.Tensor of shape (n_design, q)
            Outputs at A and B.
        c : torch.Tensor of shape (n_design, q, k)
            Outputs at the mixtures.
        weights : torch.Tensor of shape (r, n_design), optional
            Weights of the rows, each row of weights with sum 1, for r
            resamples; equal weights (and no axis r) by default.
        floor : torch.Tensor of shape (q,), optional
            Variances up to here count as none; see :meth:`rounding`.

        Returns
        -------
        Moments
        """
        if a.ndim != 2 or b.shape != a.shape or c.ndim != 3 or c.shape[:2] != a.shape:
            raise InputError(
                "Expected a and b of shape (n_design, q) and c of shape (n_design, q, k), got "
                f"{tuple(a.shape)}, {tuple(b.shape)} and {tuple(c.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        if floor is None:
            floor = cls.rounding(a, b, c, torch.finfo(a.dtype).eps)
        a, b, c = a.double(), b.double(), c.double()
        centre = (a.mean(0) + b.mean(0)) / 2
        a, b, c = a - centre, b - centre, c - centre[:, None]
        if weights is None:
            mean: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.mean(0)  # noqa: E731
        else:
            w = weights.to(a)
            mean = lambda x: (w @ x.flatten(1)).unflatten(1, x.shape[1:])  # noqa: E731
        a_, b_ = a[..., None], b[..., None]
        return cls(
            mean(a),
            mean(b),
            mean(a * a),
            mean(b * b),
            mean(a * b),
            mean(c),
            mean(c * c),
            mean(a_ * c),
            mean(b_ * c),
            floor=floor,
        )

    @staticmethod
    def rounding(
        a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, precision: float
    ) -> torch.Tensor:
        """Give the variance (q,) that rounding errors alone may cause."""
        largest = torch.stack([a.abs().amax(0), b.abs().amax(0), c.abs().amax((0, 2))]).amax(0)
        return (32 * precision * largest.double()).square()

    @property
    def mean(self) -> torch.Tensor:
        """f_0 from A and B together (shifted, see :meth:`of`)."""
        return (self.a + self.b) / 2

    @property
    def variance(self) -> torch.Tensor:
        """V from A and B together, with 1/N as in the published formulas."""
        return ((self.aa + self.bb) / 2 - self.mean**2).clamp_min(0)


def total_order(moments: Moments, estimator: str = "jansen") -> torch.Tensor:
    """Estimate ST_i = E[Var(y | all but i)] / Var(y).

    Parameters
    ----------
    moments : Moments
        Of q outputs, k concepts, and maybe r resamples.
    estimator : str
        A key of :data:`ESTIMATORS`.

    Returns
    -------
    torch.Tensor of shape (..., q, k), float64
        Zero where the output is constant.
    """
    return _finish(moments, _estimator(estimator)(moments)[0])


def first_order(moments: Moments, estimator: str = "jansen") -> torch.Tensor:
    """Estimate S_i = Var(E[y | i]) / Var(y); see :func:`total_order`."""
    return _finish(moments, _estimator(estimator)(moments)[1])


def _estimator(name: str) -> Callable[[Moments], Pair]:
    if name not in ESTIMATORS:
        raise unknown_name("estimator", name, ESTIMATORS)
    return ESTIMATORS[name]


def _finish(moments: Moments, index: torch.Tensor) -> torch.Tensor:
    """Set indices of constant outputs to zero: nothing explains no variance."""
    return torch.where((moments.variance > moments.floor)[..., None], index, 0.0)


def jansen(m: Moments) -> Pair:
    """ST = mean((a - c)²) / 2V and S = 1 - mean((b - c)²) / 2V.

    Jansen, "Analysis of variance designs for model output", 1999; Saltelli et
    al. 2010, table 2 (c) and (f). Never negative for the total order, and the
    least noisy of these.
    """
    v = 2 * m.variance[..., None]
    drop = (m.aa[..., None] - 2 * m.ac + m.cc).clamp_min(0)
    return _divide(drop, v), 1 - _divide(m.bb[..., None] - 2 * m.bc + m.cc, v)


def saltelli(m: Moments) -> Pair:
    """ST = mean(a (a - c)) / V (Sobol' 2007) and S = mean(b (c - a)) / V.

    Sobol', "Global sensitivity analysis indices for the investigation of
    nonlinear mathematical models", 2007; Saltelli et al. 2010, table 2 (b)
    and (e).
    """
    v = m.variance[..., None]
    return _divide(m.aa[..., None] - m.ac, v), _divide(m.bc - m.ab[..., None], v)


def homma(m: Moments) -> Pair:
    """ST = (V - mean(a c) + f0²) / V and S = (mean(b c) - f0²) / V.

    Homma and Saltelli, "Importance measures in global sensitivity analysis of
    nonlinear models", 1996 (Saltelli et al. 2010, table 2 (d)); first order:
    Sobol', 1993 (table 2 (a)). With V and f0 from A alone it would equal
    :func:`saltelli`; from A and B it does not.
    """
    v, square = m.variance[..., None], m.mean[..., None] ** 2
    return _divide(v - m.ac + square, v), _divide(m.bc - square, v)


def janon(m: Moments) -> Pair:
    """Use mean and variance of both outputs of a pair, with 1/N throughout.

    T(y, y') = (mean(y y') - q²) / (mean((y² + y'²) / 2) - q²), where
    q = mean((y + y') / 2). S = T(b, c); ST = 1 - T(a, c). Janon, Klein,
    Lagnoux, Nodet and Prieur, "Asymptotic normality and efficiency of two Sobol
    index estimators", 2014, the estimator T_N (due to Monod et al., 2006).
    """

    def shared(y: torch.Tensor, yy: torch.Tensor, yc: torch.Tensor) -> torch.Tensor:
        q2 = ((y[..., None] + m.c) / 2) ** 2
        return _divide(yc - q2, (yy[..., None] + m.cc) / 2 - q2)

    return 1 - shared(m.a, m.aa, m.ac), shared(m.b, m.bb, m.bc)


def martinez(m: Moments) -> Pair:
    """ST = 1 - corr(a, c) and S = corr(b, c), Pearson's correlations.

    Martinez, "Analyse de sensibilité globale par décomposition de la variance",
    2011; as given by Baudin et al., "Numerical stability of Sobol' indices
    estimation formula", 2016. Also the uncorrected estimator of Glen and Isaacs.
    """
    with_a, with_b, _ = _correlations(m)
    return 1 - with_a, with_b


def glen(m: Moments) -> Pair:
    """Correlations, corrected for the chance correlation of A and B.

    With r_a = corr(a, c), r_b = corr(b, c), p = corr(a, b) and the adjusted
    α = (r_b - p r_a) / (1 - p²), β = (r_a - p r_b) / (1 - p²):
    ST = 1 - r_a + p α / (1 - α β) and S = r_b - p β / (1 - α β). Glen and Isaacs,
    "Estimating Sobol sensitivity indices using correlations", 2012, their
    correction (D3) on single correlations: the second set of mixtures (B with
    a column of A), which its double ones need, is not run.
    """
    with_a, with_b, p = _correlations(m)
    spread = 1 - p**2
    alpha, beta = _divide(with_b - p * with_a, spread), _divide(with_a - p * with_b, spread)
    crossed = 1 - alpha * beta
    total = 1 - with_a + _divide(p * alpha, crossed)
    return total, with_b - _divide(p * beta, crossed)


def _correlations(m: Moments) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlate a with c, b with c (..., q, k), and a with b (..., q, 1)."""
    a, b = m.a[..., None], m.b[..., None]
    va = (m.aa[..., None] - a**2).clamp_min(0)
    vb = (m.bb[..., None] - b**2).clamp_min(0)
    vc = (m.cc - m.c**2).clamp_min(0)
    return (
        _divide(m.ac - a * m.c, (va * vc).sqrt()),
        _divide(m.bc - b * m.c, (vb * vc).sqrt()),
        _divide(m.ab[..., None] - a * b, (va * vb).sqrt()),
    )


def _divide(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Divide, with 0 where the denominator is 0 (a resample may be constant)."""
    return torch.where(denominator.abs() > 0, numerator / denominator, 0.0)


ESTIMATORS: dict[str, Callable[[Moments], Pair]] = {
    "jansen": jansen,
    "saltelli": saltelli,
    "sobol": saltelli,
    "homma": homma,
    "janon": janon,
    "martinez": martinez,
    "glen": glen,
}
"""Estimators by name; ``"sobol"`` is another name for ``"saltelli"``."""

COMPANIONS = {name: "saltelli" if name == "jansen" else name for name in ESTIMATORS}
"""Which first-order estimator goes with a total-order one. Jansen's own, 1 - ..., turns a
relative error of V into the same absolute error of every index, however small; Saltelli's keeps
it relative, and the pair is the usual one (Saltelli et al. 2010, section 6)."""
