"""How often the word of the audit was wrong on models whose truth is known."""

from __future__ import annotations

__all__ = ["RATES", "Rates", "in_words"]

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
    2: Rates(216, 0, 108, 2, 9),
    1: Rates(216, 0, 108, 4, 0),
    0: Rates(216, 0, 108, 0, 106),
}
"""By number of retrained models; measured by ``docs/results/audit_errors.py`` on digits."""


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
    >>> in_words(2)[:63]
    'Measured with two references on small networks whose truth is k'
    """
    rates = RATES[references]
    beside = {0: "without a reference", 1: "with one reference", 2: "with two references"}
    return (
        f"Measured {beside[references]} on small networks whose truth is known: of "
        f"{rates.holding} models that still held the class {rates.called_removed} were called "
        f"removed; of {rates.free} that never saw it {rates.called_suppressed} were called "
        f"suppressed and {rates.called_undecided} undecided."
    )
