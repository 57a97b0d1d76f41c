"""How often the word of the audit was wrong on models whose truth is known."""

from __future__ import annotations

__all__ = ["RATES", "Rates", "in_words", "interval"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Errors with a number of references, counted.

    Attributes
    ----------
    holding : int
        Models that certainly held the class; of them `called_removed` were called removed.
    free : int
        Models that never saw it; of them `called_suppressed` and `called_undecided`.
    """

    holding: int
    called_removed: int
    free: int
    called_suppressed: int
    called_undecided: int


RATES: dict[int, Rates] = {
    2: Rates(378, 0, 168, 2, 11),
    1: Rates(378, 0, 168, 6, 2),
    0: Rates(378, 0, 168, 0, 160),
}
"""By number of retrained models; measured by ``docs/results/audit_errors.py``."""


def interval(k: int, n: int) -> tuple[float, float]:
    """Compute the exact 95 % interval of a share.

    Parameters
    ----------
    k, n : int
        Successes and trials.

    Returns
    -------
    low, high : float
        In [0, 1].

    References
    ----------
    Clopper and Pearson, Biometrika 26 (1934).

    Examples
    --------
    >>> tuple(round(v, 3) for v in interval(0, 60))
    (0.0, 0.06)
    """
    from scipy.stats import beta

    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return low, high


def in_words(references: int) -> str:
    """Say the rates with a number of references.

    Parameters
    ----------
    references : int
        0, 1 or 2.

    Returns
    -------
    str

    Examples
    --------
    >>> in_words(2)[:49]
    'Of 100 small networks like those that this was me'
    """
    rates = RATES[references]
    beside = {0: "without a reference", 1: "with one reference", 2: "with two references"}

    def per_hundred(k: int, n: int) -> str:
        low, high = interval(k, n)
        return f"{100 * k / n:.0f} ({100 * low:.0f} to {100 * high:.0f})"

    return (
        "Of 100 small networks like those that this was measured on, judged "
        f"{beside[references]}: if they still hold the class, "
        f"{per_hundred(rates.called_removed, rates.holding)} are called removed; if they never "
        f"saw it, {per_hundred(rates.called_suppressed, rates.free)} are called suppressed and "
        f"{per_hundred(rates.called_undecided, rates.free)} undecided. In brackets 95 % intervals; "
        f"measured on {rates.holding} and {rates.free} models whose truth is known."
    )
