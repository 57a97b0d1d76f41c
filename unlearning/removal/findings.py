"""What was found, and its arithmetic: scores, ranks with ties, intervals, notes."""

from __future__ import annotations

__all__ = ["MEAN", "RemovalFindings"]

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.values import plain
from unlearning.distances.fid import ROWS_PER_DIMENSION
from unlearning.distances.statistics import compare, tied_ranks
from unlearning.removal.class_result import TOLD, ClassResult
from unlearning.removal.scores import SCORES

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"
_DRAWN_BY = {"fid_debiased": "fid"}  # reflection takes the bias away


class RemovalFindings:
    """Scores of removers on classes, and what can be told from them.

    Parameters
    ----------
    results : sequence of ClassResult
        One for each class.
    skipped : dict of str to str
        Classes that could not be judged, with the reason.
    failed : dict of str to str
        Removers that failed, with the reason.
    settings : dict
        How it was run.
    provenance : dict
        Versions, machine, seed, fingerprints.

    Attributes
    ----------
    removers : list of str
        Those with scores in all classes.
    classes : list of str
        The classes that were judged.
    """

    def __init__(
        self,
        results: Sequence[ClassResult],
        *,
        skipped: dict[str, str] | None = None,
        failed: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.results = list(results)
        self.skipped, self.failed = dict(skipped or {}), dict(failed or {})
        self.settings, self.provenance = dict(settings or {}), dict(provenance or {})
        self.classes = [r.name for r in self.results]
        every = [set(r.labels) for r in self.results]
        self.removers = [k for k in self.results[0].labels if all(k in s for s in every)]

    def scores(self, of: str = MEAN) -> list[str]:
        """Name the scores that all removers have: on a class, or on all for ``"mean"``."""
        chosen = self.results_of(of)
        return [
            name for name in SCORES if all(name in r.rows[k] for r in chosen for k in self.removers)
        ]

    def notes(self) -> list[str]:
        """Say what a reader has to know: what was left out, and where nothing can be told."""
        found = [f"{k} was passed over: {v}." for k, v in self.skipped.items()]
        found += [f"{k} failed and was left out: {v}" for k, v in self.failed.items()]
        for k in self.settings.get("thin_masks", ()):
            if k in self.removers:
                found.append(
                    f"{k} continues what lies at the rim of the hole: where masks are a pixel too "
                    f"small it spreads the object. Run {k}+2 beside it."
                )
        for r in self.results:
            if r.effects and not self.settings.get("whole_pictures"):
                found.append(
                    f"{r.name}: {r.effects} of {r.n} images show effects of the object outside its "
                    "mask (shadow, reflection), which stay when the original is put around the "
                    "hole. Judge removers that take them away with RemoverSetup(remover, "
                    "composite=False)."
                )
            if not r.floors["fid"] < r.ceilings["fid"]:
                found.append(
                    f"{r.name}: a perfect removal would score {r.floors['fid']:.3g} and the "
                    f"originals score {r.ceilings['fid']:.3g}, so these images and features cannot "
                    "tell removers apart. Use more images, or features that see the class."
                )
            dimension = max(row.get("fid_dimension", 0.0) for row in r.rows.values())
            needed = ROWS_PER_DIMENSION * dimension
            if min(r.n, r.n_comparison) < needed:
                found.append(
                    f"FID* of {r.name} has {min(r.n, r.n_comparison)} images for features of "
                    f"{dimension:.0f} effective dimensions, and {needed:.0f} are needed: the "
                    "debiased values are 0 on average for one law, but miss what covariances "
                    "differ by, and do not rank removers. KID* has no bias at any number."
                )
            if r.originals_presence is not None and r.originals_presence < TOLD:
                found.append(
                    f"Presence of {r.name} is not judged: the encoder does not tell the originals, "
                    f"where it is in full view, from places without it (AUC "
                    f"{r.originals_presence:.2f}, {TOLD:g} is needed), so it would call every hole "
                    "empty. Use an encoder that knows the class."
                )
            if r.context_check:
                check = r.context_check
                found.append(
                    f"Matching of contexts for {r.name}: distance {check['distance']:.3f} where "
                    f"{check['null']:.3f} is expected."
                )
        return found

    def values(self, score: str, of: str = MEAN) -> np.ndarray:
        """Give a score of each remover, in the order of :attr:`removers`.

        Parameters
        ----------
        score : str
            One of :meth:`scores`.
        of : str
            A class, or ``"mean"`` over all classes.

        Returns
        -------
        ndarray of shape (r,)
        """
        self.check_score(score, of)
        table = [[r.rows[k][score] for k in self.removers] for r in self.results_of(of)]
        return np.asarray(np.mean(table, axis=0))

    def replicates(self, score: str, of: str = MEAN) -> np.ndarray | None:
        """Give the bootstrap replicates of a score, (r, b), or None where there are none."""
        parts = []
        score = _DRAWN_BY.get(score, score)
        for result in self.results_of(of):
            if score not in result.replicates:
                return None
            rows = [result.labels.index(k) for k in self.removers]
            parts.append(result.replicates[score][rows])
        return np.asarray(np.mean(parts, axis=0))

    def interval(self, score: str, of: str = MEAN) -> np.ndarray:
        """Give bootstrap intervals of a score, (r, 2); NaN where there are no replicates.

        Those of FID* are of the debiased distance: the bootstrap shows the bias of the
        sample, and reflection takes it away.
        """
        draws = self.replicates(score, of)
        values = self.values(_DRAWN_BY.get(score, score), of)
        if draws is None:
            return np.full((len(values), 2), np.nan)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail], axis=1)
        if score in ("presence", "u_ids"):  # shares, without bias to speak of
            return np.stack([low, high], axis=1)
        return np.stack([2 * values - high, 2 * values - low], axis=1)

    def ranking(self, score: str = "fid", of: str = MEAN) -> pd.DataFrame:
        """Rank the removers by a score, as far as the images can prove it.

        Parameters
        ----------
        score : str
            Such as ``"fid"``, ``"kid"``, ``"u_ids"``, ``"psnr_mask"``.
        of : str
            A class, or ``"mean"``.

        Returns
        -------
        pandas.DataFrame
            Columns ``rank``, ``remover``, ``value``, ``low``, ``high``, ``tied_with``, best
            first. A rank is one more than the number of removers that are surely better;
            without replicates there are no ties.
        """
        import pandas as pd

        values = self.values(score, of)
        lower = SCORES[score].better == "lower"
        draws = self.replicates(score, of)
        if draws is None:
            order = np.argsort(values if lower else -values, kind="stable")
            ranks = np.empty(len(values), dtype=np.int64)
            ranks[order] = np.arange(1, len(values) + 1)
            ties: list[str] = [""] * len(values)
        else:
            drawn = self.values(_DRAWN_BY.get(score, score), of)
            table = compare(drawn, draws, confidence=self.confidence)
            ranks = tied_ranks(table, lower_is_better=lower)
            ties = [
                ", ".join(self.removers[j] for j, c in enumerate(row) if c.tied and j != i)
                for i, row in enumerate(table)
            ]
        interval = self.interval(score, of)
        frame = pd.DataFrame(
            {
                "rank": ranks,
                "remover": self.removers,
                "value": values,
                "low": interval[:, 0],
                "high": interval[:, 1],
                "tied_with": ties,
            }
        )
        frame["_order"] = values if lower else -values
        return frame.sort_values(["_order"], ignore_index=True, kind="stable").drop(
            columns="_order"
        )

    def pairs(self, score: str = "fid", of: str = MEAN) -> pd.DataFrame:
        """Compare every pair of removers by the paired bootstrap.

        Parameters
        ----------
        score : str
            One with replicates.
        of : str
            A class, or ``"mean"``.

        Returns
        -------
        pandas.DataFrame
            Columns ``first``, ``second``, ``difference``, ``low``, ``high``, ``tied``.

        Raises
        ------
        InputError
            If the score has no replicates.
        """
        import pandas as pd

        draws = self.replicates(score, of)
        if draws is None:
            raise InputError(
                f"{score!r} has no bootstrap replicates. Run with n_bootstrap > 0; replicates "
                f"are kept of {', '.join(self.results[0].replicates) or 'no score'}.",
                code="CL-INPUT-OPTION",
            )
        drawn = self.values(_DRAWN_BY.get(score, score), of)
        table = compare(drawn, draws, confidence=self.confidence)
        rows = [
            {"first": a, "second": b, **asdict(table[i][j])}
            for i, a in enumerate(self.removers)
            for j, b in enumerate(self.removers)
            if i < j
        ]
        return pd.DataFrame(rows)

    def agreement(self, first: str, second: str, of: str = MEAN) -> float:
        """Compute Kendall's tau-b of two scores over the removers, both turned to "more is better".

        Parameters
        ----------
        first, second : str
            Scores.
        of : str
            A class, or ``"mean"``.

        Returns
        -------
        float
            In [-1, 1].
        """
        from scipy.stats import kendalltau

        sides = []
        for name in (first, second):
            sign = -1 if SCORES[self.check_score(name, of)].better == "lower" else 1
            sides.append(sign * self.values(name, of))
        return float(kendalltau(*sides).statistic)

    def to_frame(self) -> pd.DataFrame:
        """Tabulate all scores: a row for each class and remover.

        Returns
        -------
        pandas.DataFrame
            Columns ``class``, ``remover``, ``n``, ``n_comparison``, then the scores.
        """
        import pandas as pd

        rows = [
            {
                "class": r.name,
                "remover": k,
                "n": r.n,
                "n_comparison": r.n_comparison,
                **{name: r.rows[k].get(name, np.nan) for name in self.scores()},
            }
            for r in self.results
            for k in r.labels
        ]
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """Tabulate means over classes, best FID* first, with ranks.

        Returns
        -------
        pandas.DataFrame
            Columns ``rank``, ``remover``, then the scores.
        """
        import pandas as pd

        ranking = self.ranking("fid")
        columns = {name: self.values(name) for name in self.scores()}
        frame = pd.DataFrame({"remover": self.removers, **columns})
        joined = ranking[["rank", "remover", "low", "high"]].merge(frame, on="remover")
        return joined.rename(columns={"low": "fid_low", "high": "fid_high"})

    def to_dict(self) -> dict[str, Any]:
        """Give everything but pictures and replicates as JSON values."""
        return dict(
            plain(
                {
                    "settings": self.settings,
                    "classes": {
                        r.name: {
                            "n": r.n,
                            "n_comparison": r.n_comparison,
                            "floors": r.floors,
                            "ceilings": r.ceilings,
                            "truth_is_floor": r.truth_is_floor,
                            "context_check": r.context_check,
                            "originals_presence": r.originals_presence,
                            "removers": {k: r.rows[k] for k in r.labels},
                        }
                        for r in self.results
                    },
                    "ranking": self.ranking("fid").to_dict("records"),
                    "skipped": self.skipped,
                    "failed": self.failed,
                    "provenance": self.provenance,
                }
            )
        )

    @property
    def confidence(self) -> float:
        """Level of the intervals."""
        return float(self.settings.get("confidence", 0.95))

    def favourite(self) -> str:
        """Name the remover of the best FID* that is no control."""
        order = [k for k in self.ranking("fid").remover if k not in ("oracle", "nothing")]
        return order[0] if order else self.removers[0]

    def check_score(self, score: str, of: str = MEAN) -> str:
        """Give back the name of a score that all removers have."""
        if score not in self.scores(of):
            raise unknown_name("score", score, self.scores(of))
        return score

    def results_of(self, of: str) -> list[ClassResult]:
        """Give the results of a class, or of all for ``"mean"``."""
        if of == MEAN:
            return self.results
        if of not in self.classes:
            raise unknown_name("class", of, [*self.classes, MEAN])
        return [self.results[self.classes.index(of)]]
