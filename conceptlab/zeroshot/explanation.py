"""Why an image was given its class: the evidence of every concept."""

from __future__ import annotations

__all__ = ["ZeroShotExplanation"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_ROLES = ("winner", "runner-up")
_FLAGS = {-1: "low", 0: "", 1: "high"}


@dataclass(frozen=True, eq=False)
class ZeroShotExplanation:
    """The scores of winner and runner-up, taken apart by concept.

    For image i and role r (0 the winner, 1 the runner-up)
    ``evidence[i, r].sum() + reference[i] == score[i, r]``, and the logit is
    ``score + log_prior``. All in logits, so the difference of two logits is a
    log-odds.

    Attributes
    ----------
    columns : ndarray of shape (n, 2), int64
        Columns of winner and runner-up.
    class_names : list of str
        By column.
    concept_names : list of lists of str
        By column.
    score : ndarray of shape (n, 2)
        Pooled similarity over temperature.
    reference : ndarray of shape (n,)
        Mean score over all classes, over temperature.
    log_prior : ndarray of shape (K,)
    similarity, weight, evidence, posterior : ndarray of shape (n, 2, C_max)
        Cosine; weight in the pooled score; what it adds to the score, in
        logits; its posterior within the class. NaN beyond the class's concepts.
    outlier : ndarray of shape (n, 2, C_max), int8
        -1 and 1 for concepts further than lam MADs below or above the median.
    rho, kappa : ndarray of shape (n, 2)
        Share of outliers and slope of the gate.
    settings : dict
        Rule, options, scale, temperature.

    Examples
    --------
    >>> from conceptlab.zeroshot import BayesianZeroShot
    >>> model = BayesianZeroShot({"frog": np.eye(4)[:2], "newt": np.eye(4)[2:]}, rule="mean").fit()
    >>> model.explain(np.eye(4)[:1]).to_frame(0).shape
    (4, 9)
    """

    columns: np.ndarray
    class_names: list[str]
    concept_names: list[list[str]]
    score: np.ndarray
    reference: np.ndarray
    log_prior: np.ndarray
    similarity: np.ndarray
    weight: np.ndarray
    evidence: np.ndarray
    posterior: np.ndarray
    outlier: np.ndarray
    rho: np.ndarray
    kappa: np.ndarray
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"ZeroShotExplanation({len(self)} images, rule={self.settings['rule']!r})"

    @property
    def predicted(self) -> list[str]:
        """Name of the winner of every image."""
        return [self.class_names[k] for k in self.columns[:, 0]]

    @property
    def runner_up(self) -> list[str]:
        """Name of the second of every image."""
        return [self.class_names[k] for k in self.columns[:, 1]]

    @property
    def log_odds(self) -> np.ndarray:
        """Log-odds of the winner against the runner-up, (n,)."""
        logits = self.score + self.log_prior[self.columns]
        odds: np.ndarray = logits[:, 0] - logits[:, 1]
        return odds

    def names(self, image: int, role: int = 0) -> list[str]:
        """Name the concepts of an `image`'s winner (`role` 0) or runner-up (1)."""
        return self.concept_names[self.columns[self._at(image), role]]

    def to_frame(self, image: int | None = None) -> pandas.DataFrame:
        """Give one row for every concept of winner and runner-up, strongest first.

        Parameters
        ----------
        image : int, optional
            One image; all by default.

        Returns
        -------
        pandas.DataFrame
            Columns image, role, class, concept, similarity, weight, evidence,
            posterior, outlier ("low", "high" or "").
        """
        import pandas

        images = range(len(self)) if image is None else [self._at(image)]
        rows = []
        for i in images:
            for r, role in enumerate(_ROLES):
                names = self.names(i, r)
                for c in np.argsort(-self.evidence[i, r, : len(names)], kind="stable"):
                    rows.append(
                        {
                            "image": i,
                            "role": role,
                            "class": self.class_names[self.columns[i, r]],
                            "concept": names[c],
                            "similarity": self.similarity[i, r, c],
                            "weight": self.weight[i, r, c],
                            "evidence": self.evidence[i, r, c],
                            "posterior": self.posterior[i, r, c],
                            "outlier": _FLAGS[int(self.outlier[i, r, c])],
                        }
                    )
        return pandas.DataFrame(rows)

    def to_dict(self, image: int | None = None, *, top: int | None = None) -> dict[str, Any]:
        """Give predictions and evidence as JSON values.

        Parameters
        ----------
        image : int, optional
            One image; all by default.
        top : int, optional
            So many concepts of each class only, by the size of their evidence.
        """
        images = range(len(self)) if image is None else [self._at(image)]
        return {"settings": self.settings, "images": [self._facts(i, top) for i in images]}

    def _facts(self, i: int, top: int | None) -> dict[str, Any]:
        facts: dict[str, Any] = {"image": i, "log_odds": float(self.log_odds[i])}
        for r, role in enumerate(_ROLES):
            names = self.names(i, r)
            evidence = self.evidence[i, r, : len(names)]
            order = np.argsort(-np.abs(evidence), kind="stable")[:top]
            facts[role] = {
                "class": self.class_names[self.columns[i, r]],
                "score": float(self.score[i, r]),
                "log_prior": float(self.log_prior[self.columns[i, r]]),
                "reference": float(self.reference[i]),
                "rho": float(self.rho[i, r]),
                "kappa": float(self.kappa[i, r]),
                "concepts": [
                    {
                        "concept": names[c],
                        "evidence": float(evidence[c]),
                        "weight": float(self.weight[i, r, c]),
                        "similarity": float(self.similarity[i, r, c]),
                        "posterior": float(self.posterior[i, r, c]),
                        "outlier": _FLAGS[int(self.outlier[i, r, c])],
                    }
                    for c in order
                ],
            }
        return facts

    def plot(self, image: int = 0, *, top: int = 8, ax: Axes | None = None) -> Axes:
        """Draw the evidence of winner beside runner-up; see ``conceptlab.plot.posterior``."""
        from conceptlab.plot.posterior import evidence_bars

        return evidence_bars(self, self._at(image), top=top, ax=ax)

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, picture, table

        rows = [
            (i, self.predicted[i], self.runner_up[i], float(self.log_odds[i]))
            for i in range(min(len(self), 10))
        ]
        more = f"<p>and {len(self) - 10} more</p>" if len(self) > 10 else ""
        shown = picture(self.plot(0), "evidence for image 0", dpi=80) if len(self) else ""
        return (
            f"<div><p><b>ZeroShotExplanation</b> &middot; rule {escape(self.settings['rule'])}</p>"
            + table(("image", "winner", "runner-up", "log-odds"), rows)
            + f"{more}{shown}</div>"
        )

    def _at(self, image: int) -> int:
        if not -len(self) <= image < len(self):
            raise InputError(
                f"There is no image {image} among the {len(self)} explained.", code="CL-INPUT-RANGE"
            )
        return int(image) % len(self)
