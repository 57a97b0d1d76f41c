"""Evidence, the verdict that it makes, and figures beside what they are compared with."""

from __future__ import annotations

__all__ = ["VERDICTS", "Case", "Evidence", "Values", "Verdict", "auc_error", "standard_error"]

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from unlearning.audit.thresholds import Thresholds

VERDICTS: dict[str, str] = {
    "removed": "No test found more of the class than in a model that never saw it.",
    "suppressed": "The class no longer comes out, but it is still in there.",
    "not forgotten": "The model still gives the class as an answer.",
    "damaged": "The retained classes suffered.",
    "undecided": "The evidence does not settle it.",
}
"""The words, with their meaning."""


@dataclass(frozen=True)
class Evidence:
    """One sentence of evidence.

    Attributes
    ----------
    side : {"removed", "suppressed", "not forgotten", "damaged", "trace", "note"}
        What it speaks for.
    text : str
        The sentence.
    figure : str
        Key of the figure.
    value, reference, tolerance : float or None
        What was compared.
    mask : float or None
        The figure of the logit mask.
    power : bool or None
        Whether the mask, which forgets nothing, fails this check; None where it is not known
        or not asked.

    Examples
    --------
    >>> Evidence("suppressed", "A probe still finds the class.", figure="probe", value=0.9).side
    'suppressed'
    """

    side: str
    text: str
    figure: str = ""
    value: float | None = None
    reference: float | None = None
    tolerance: float | None = None
    mask: float | None = None
    power: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """A word with its evidence.

    Attributes
    ----------
    word : str
        A key of :data:`VERDICTS`.
    summary : str
        Why, in a sentence or two.
    evidence : tuple of Evidence
        Sentence by sentence.

    Examples
    --------
    >>> before = {"fa_train": 1.0, "fa_test": 0.98, "ta": 0.99}
    >>> from unlearning.audit import judge
    >>> verdict = judge(before, before=before, mask={})
    >>> verdict.word, len(verdict.evidence) > 0
    ('not forgotten', True)
    """

    word: str
    summary: str
    evidence: tuple[Evidence, ...] = ()

    def __str__(self) -> str:
        return f"{self.word}: {self.summary}"

    def text(self) -> str:
        """Give verdict and evidence as lines of plain text."""
        return "\n".join([str(self), *(f"- [{e.side}] {e.text}" for e in self.evidence)])


Values = Mapping[str, float]


@dataclass
class Case:
    """The figures of one model beside what they are compared with."""

    own: Values
    before: Values
    mask: Values
    reference: Values | None
    second: Values | None
    sizes: Mapping[str, int]
    limits: Thresholds
    found: list[Evidence] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """Say whether the figure is there, on both sides where there is a reference."""
        sides = [self.own] if self.reference is None else [self.own, self.reference]
        return all(np.isfinite(side.get(key, np.nan)) for side in sides)

    def base(self, key: str, *, best: str = "high") -> float:
        """Give the retrained model's figure; of two, the one nearer to where guilt begins."""
        if self.reference is None:
            return float("nan")
        both = [self.reference.get(key, np.nan)]
        if self.second is not None:
            both.append(self.second.get(key, np.nan))
        if best == "near":
            return float(min(both, key=lambda v: abs(v - self.own[key]) if v == v else np.inf))
        return float(np.fmax.reduce(both) if best == "high" else np.fmin.reduce(both))

    def floor(self, key: str) -> float:
        """Give the distance of the two retrained models."""
        if self.reference is None or self.second is None:
            return 0.0
        gap = self.second.get(key, np.nan) - self.reference.get(key, np.nan)
        return abs(float(gap)) if np.isfinite(gap) else 0.0

    def tolerance(self, key: str, limit: float, other: float, size: str) -> float:
        """Give what a difference from the nearer retrained model has to exceed."""
        error = standard_error(self.own[key], self.sizes.get(size, 0))
        noise = np.hypot(error, standard_error(other, self.sizes.get(size, 0)))
        return float(max(limit, self.floor(key) / 2, self.limits.significance * noise))

    def add(
        self,
        side: str,
        text: str,
        key: str,
        reference: float | None,
        tolerance: float,
        *,
        power: bool | None = None,
    ) -> None:
        """Note a sentence."""
        mask = self.mask.get(key, np.nan)
        known = float(mask) if np.isfinite(mask) else None
        if side == "removed" and power is False:
            text += " A logit mask passes that, too."
        self.found.append(
            Evidence(side, text, key, float(self.own[key]), reference, tolerance, known, power)
        )

    def masked(self, key: str, default: float = np.nan) -> float:
        """Give the figure of the mask; what it has by construction where it was not measured."""
        value = float(self.mask.get(key, np.nan))
        return value if np.isfinite(value) else default

    def sides(self, side: str) -> list[Evidence]:
        """Give what speaks for one side."""
        return [e for e in self.found if e.side == side]


def standard_error(share: float, n: int) -> float:
    """Standard error of a share, with one success and one failure added."""
    if n <= 0 or not np.isfinite(share):
        return 0.0
    p = (np.clip(share, 0, 1) * n + 1) / (n + 2)
    return float(np.sqrt(p * (1 - p) / n))


def auc_error(first: float, second: float, case: Case) -> float:
    """Significant difference of two AUCs, by Hanley and McNeil (1982)."""
    n, m = case.sizes.get("concept", 0), case.sizes.get("no_concept", 0)
    if n < 1 or m < 1:
        return 0.0
    total = 0.0
    for a in (min(first, 0.99), min(second, 0.99)):
        q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
        total += (a * (1 - a) + (n - 1) * (q1 - a**2) + (m - 1) * (q2 - a**2)) / (n * m)
    return float(case.limits.significance * np.sqrt(max(total, 0.0)))
