"""What an evaluation found: figures beside their controls, as table, picture and page."""

from __future__ import annotations

__all__ = ["BottleneckReport", "NameFidelity"]

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottlenecks.intervals import rank_p_value
from bottlenecks.leakage import LeakageScores
from conceptlab.errors import unknown_name
from conceptlab.io.files import atomic_write
from conceptlab.io.html import escape, page, picture, section, table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = ("accuracy", "fidelity", "leakage")
_LEVEL = 0.05  # of the rank among random draws
_NOT_COMPARED = (
    "They were fitted on fewer rows than the model, so its own accuracy is set against none of "
    "them: give train=, the rows of the model."
)


@dataclass(frozen=True, eq=False)
class NameFidelity:
    """How well outputs rank rows by the concepts that they are named after.

    Attributes
    ----------
    names : list of q str
        Concepts whose truth is known.
    auc : ndarray of shape (q,), float64
        Area under the ROC curve of output j for concept j; 0.5 is chance.
    raw_auc : ndarray of shape (q,), float64, or None
        Of the scores that the model started from, where they are known.
    intervals : ndarray of shape (q, 2), float64, or None
        Low and high of `auc` (DeLong et al. 1988).

    Examples
    --------
    >>> fidelity = NameFidelity(["red", "round"], np.array([0.9, 0.7]))
    >>> round(fidelity.mean, 2)
    0.8
    """

    names: list[str]
    auc: np.ndarray
    raw_auc: np.ndarray | None = None
    intervals: np.ndarray | None = None

    @property
    def mean(self) -> float:
        """Mean over the concepts."""
        return float(self.auc.mean())

    @property
    def raw_mean(self) -> float:
        """Mean of the scores that the model started from; NaN where they are not known."""
        return float("nan") if self.raw_auc is None else float(self.raw_auc.mean())


@dataclass(frozen=True, eq=False)
class BottleneckReport:
    """Figures of a bottleneck beside their controls.

    Attributes
    ----------
    accuracy : float
        Of the model on all rows.
    refitted_accuracy : float
        Of a sparse head on the model's concepts, at `control_nec`; NaN where no
        concept ever changes.
    random_accuracy : ndarray of shape (n_random,), float64
        Of the same head on random concepts, at the same NEC, on the same rows: the
        kind that is best on average.
    probe_accuracy : float
        Of a logistic regression on the features.
    chance : float
        Share of the largest class.
    completeness : float
        (accuracy - chance) / (probe_accuracy - chance), of heads fitted on as many rows:
        the accuracy of the model where `compared`, else the refitted one.
    nec, ncc : float or None
        Number of effective, and of contributing (95 %), concepts.
    control_nec : float
        NEC of the controls.
    sparsity : float
        Share of activations that are exactly zero.
    fidelity : NameFidelity or None
        Where true concepts were given.
    leakage : LeakageScores or None
        Where true concepts were given.
    skipped : dict of str to str
        True concepts that could not be measured, and why.
    concept_names : list of k str
    settings : dict
    provenance : dict
        Versions and machine.
    controls : dict of str to ndarray of shape (n_random,)
        Accuracy of every kind of random concepts (:func:`bottlenecks.random_bank`).
    control : str
        The kind of `random_accuracy`.
    compared : bool
        Whether the controls saw as many rows as the model (``train=`` was given); where
        not, only the refitted concepts have a baseline.
    intervals : dict of str to (float, float)
        Low and high by the name of the row in :meth:`to_frame`.
    p_value : float
        Rank of `refitted_accuracy` among `random_accuracy`.

    Examples
    --------
    >>> from bottlenecks import PostHocCBM, evaluate
    >>> rng = np.random.default_rng(0)
    >>> X = (rng.random((200, 4)) < 0.5) + 0.1 * rng.normal(size=(200, 4))
    >>> y = X[:, 0] > 0.5
    >>> report = evaluate(PostHocCBM(nec=2).fit(X, y), X, y, n_random=5)
    >>> float(report.accuracy), report.random_accuracy.shape, list(report.controls)
    (1.0, (5,), ['isotropic', 'covariance'])
    """

    accuracy: float
    refitted_accuracy: float
    random_accuracy: np.ndarray
    probe_accuracy: float
    chance: float
    completeness: float
    nec: float | None
    ncc: float | None
    control_nec: float
    sparsity: float
    fidelity: NameFidelity | None
    leakage: LeakageScores | None
    skipped: dict[str, str]
    concept_names: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    controls: dict[str, np.ndarray] = field(default_factory=dict)
    control: str = "isotropic"
    compared: bool = True
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    p_value: float = float("nan")

    @property
    def gain(self) -> float:
        """Accuracy of the refitted concepts less that of the best random ones."""
        return self.refitted_accuracy - float(self.random_accuracy.mean())

    def to_frame(self) -> pd.DataFrame:
        """Tabulate all measures.

        Returns
        -------
        pandas.DataFrame
            Index ``measure``; columns ``value``, ``low`` and ``high`` (its interval),
            ``baseline`` (of the control that belongs to it: the best kind of random
            concepts at the same NEC, chance, raw scores, shuffled outputs),
            ``baseline_sd``, ``p_value`` and ``better`` ("higher" or "lower"). NaN where
            there is none. Of random concepts low and high hold 95 % of the draws.
        """
        import pandas as pd

        random = {
            "baseline": float(self.random_accuracy.mean()),
            "baseline_sd": _spread(self.random_accuracy),
        }
        higher = {"better": "higher"}
        rows: dict[str, dict[str, Any]] = {
            "accuracy": {
                "value": self.accuracy,
                **higher,
                **({**random, "p_value": self._rank(self.accuracy)} if self.compared else {}),
            },
            "accuracy, concepts refitted": {
                "value": self.refitted_accuracy,
                **higher,
                **random,
                "p_value": self.p_value,
            },
            "accuracy, refitted less random": {
                "value": self.gain,
                **higher,
                "baseline": 0.0,
                "p_value": self.p_value,
            },
            **{
                f"accuracy, random concepts: {kind}": {
                    "value": float(draws.mean()),
                    "low": float(np.quantile(draws, 0.025)),
                    "high": float(np.quantile(draws, 0.975)),
                    "baseline": self.chance,
                }
                for kind, draws in self.controls.items()
            },
            "accuracy, dense probe": {
                "value": self.probe_accuracy,
                "baseline": self.chance,
                "better": "higher",
            },
            "completeness": {"value": self.completeness, "better": "higher"},
            "NEC": {"value": self.nec, "better": "lower"},
            "NCC": {"value": self.ncc, "better": "lower"},
            "zeros among activations": {"value": self.sparsity, "better": "higher"},
        }
        if self.fidelity is not None:
            rows["name fidelity (AUC)"] = {
                "value": self.fidelity.mean,
                "baseline": self.fidelity.raw_mean,
                "better": "higher",
            }
        if self.leakage is not None:
            for name, row in self.leakage.to_frame().iterrows():
                kept = {key: row[key] for key in ("value", "baseline", "baseline_sd", "p_value")}
                rows[f"leakage, {name}"] = {**kept, "better": "lower"}
        for name, (low, high) in self.intervals.items():
            if name in rows:
                rows[name] |= {"low": low, "high": high}
        columns = ["value", "low", "high", "baseline", "baseline_sd", "p_value", "better"]
        frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        numbers = columns[:-1]
        frame[numbers] = frame[numbers].astype(float)
        return frame.rename_axis("measure")

    def concept_frame(self) -> pd.DataFrame:
        """Tabulate fidelity and leakage by concept, the worst names first.

        Returns
        -------
        pandas.DataFrame
            Index ``concept``; columns ``auc``, ``low``, ``high``, ``raw_auc``, ``CTL``, ``ICL``;
            empty without true concepts.
        """
        import pandas as pd

        columns = ["auc", "low", "high", "raw_auc", "CTL", "ICL"]
        if self.fidelity is None:
            return pd.DataFrame(columns=columns).rename_axis("concept")
        frame = pd.DataFrame({"auc": self.fidelity.auc}, index=self.fidelity.names)
        known = self.fidelity.intervals
        frame[["low", "high"]] = np.full((len(frame), 2), np.nan) if known is None else known
        frame["raw_auc"] = np.nan if self.fidelity.raw_auc is None else self.fidelity.raw_auc
        for name in ("CTL", "ICL"):
            score = None if self.leakage is None else self.leakage.get(name)
            frame[name] = np.nan if score is None or score.by_concept is None else score.by_concept
        return frame.sort_values("auc", kind="stable").rename_axis("concept")

    def to_dict(self) -> dict[str, Any]:
        """Give measures, concepts and settings as JSON values."""
        frame, concepts = self.to_frame(), self.concept_frame()
        return {
            "measures": {str(name): _json(row) for name, row in frame.iterrows()},
            "concepts": {str(name): _json(row) for name, row in concepts.iterrows()},
            "random_accuracy": self.random_accuracy.tolist(),
            "controls": {kind: draws.tolist() for kind, draws in self.controls.items()},
            "control": self.control,
            "control_nec": self.control_nec,
            "chance": self.chance,
            "skipped": self.skipped,
            "settings": self.settings,
            "provenance": self.provenance,
        }

    def plot(self, kind: str = "accuracy", *, top: int = 20, ax: Axes | None = None) -> Axes:
        """Draw a part of the report.

        Parameters
        ----------
        kind : {"accuracy", "fidelity", "leakage"}
            Accuracy beside its controls; the area under the curve of every
            concept; leakage beside shuffled outputs.
        top : int
            Concepts to show, those with the worst names.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        InputError
            Another kind, or one that needs true concepts where there were none.
        """
        kinds = _KINDS if self.fidelity is not None else _KINDS[:1]
        if kind not in kinds:
            hint = "" if self.fidelity is not None else "Others need evaluate(..., concepts)."
            raise unknown_name("kind of plot", kind, kinds, hint=hint)
        from conceptlab.plot import evaluation as drawing

        if kind == "accuracy":
            return drawing.accuracy_bars(self, ax=ax)
        if kind == "fidelity":
            return drawing.fidelity_bars(self.concept_frame(), top=top, ax=ax)
        return drawing.leakage_bars(self.leakage, ax=ax)

    def to_html(self, title: str = "What the bottleneck does") -> str:
        """Lay the report out as a self-contained page.

        Parameters
        ----------
        title : str
            Heading, plain text.

        Returns
        -------
        str
        """
        parts = [
            section(
                "Accuracy and controls",
                picture(self.plot("accuracy"), "accuracy beside its controls") + self._table(),
                text=f"Random concepts are as many, with the same NEC ({self.control_nec:.2f}), "
                f"on the same rows; the best kind of them ({self.control}) is the baseline. "
                "Concepts that beat them by little owe their accuracy to their number, not to "
                "their meaning." + ("" if self.compared else " " + _NOT_COMPARED),
            )
        ]
        if self.fidelity is not None:
            frame = self.concept_frame().reset_index()
            parts += [
                section(
                    "Do outputs mean their names?",
                    picture(self.plot("fidelity"), "area under the curve by concept")
                    + table(list(frame.columns), frame.itertuples(index=False, name=None)),
                    text="Area under the ROC curve of output j for the true concept j. 0.5 is "
                    "chance.",
                ),
                section(
                    "What leaks",
                    picture(self.plot("leakage"), "leakage beside its baseline"),
                    text="Grey: the same measure after every output was shuffled among rows that "
                    "agree in its concept, so that nothing but that concept is left in it.",
                ),
            ]
        if self.skipped:
            parts.append(
                section("Not measured", table(["concept", "reason"], list(self.skipped.items())))
            )
        footer = f"<code>{escape(json.dumps({**self.settings, **self.provenance}))}</code>"
        return page(title, self._lead(), parts, footer=footer)

    def save(
        self, path: str | os.PathLike[str], *, title: str = "What the bottleneck does"
    ) -> Path:
        """Write :meth:`to_html` to the file `path`, or :meth:`to_dict` where it ends in .json.

        Parameters
        ----------
        path : path-like
        title : str

        Returns
        -------
        pathlib.Path
        """
        if Path(path).suffix == ".json":
            return atomic_write(path, json.dumps(self.to_dict(), indent=2, allow_nan=False))
        return atomic_write(path, self.to_html(title))

    def _lead(self) -> str:
        s = self.settings
        return (
            f"{s.get('model', 'Model')} with {len(self.concept_names)} concepts on "
            f"{s.get('n', '?')} rows of {s.get('n_classes', '?')} classes; controls "
            f"{s.get('controls', '')}. {self._verdict()}"
        )

    def _verdict(self) -> str:
        """Say in a sentence whether the names carry the accuracy."""
        low, high = self.intervals.get("accuracy, refitted less random", (np.nan, np.nan))
        if np.isnan(low):
            return ""
        above = low > 0 and self.p_value <= _LEVEL
        what = "above" if above else "below" if high < 0 else "level with"
        points = ", ".join(f"{100 * v:+.1f}" for v in (low, high))
        # The interval is that of these rows; how much random concepts differ, the rank tells.
        why = (
            ""
            if above or low <= 0
            else f", where single draws reach as much (p {self.p_value:.2f})"
        )
        return (
            f"Its concepts are {what} the best random ones ({self.control}): "
            f"{100 * self.gain:+.1f} points [{points}]{why}."
        )

    def _rank(self, value: float) -> float:
        return rank_p_value(value, self.random_accuracy)

    def _table(self) -> str:
        frame = self.to_frame()
        rows = [
            [name, *(_shown(value) for value in row)]
            for name, row in zip(frame.index, frame.to_numpy().tolist(), strict=True)
        ]
        return table(["measure", *[c.replace("_", " ") for c in frame.columns]], rows)

    def _repr_html_(self) -> str:
        return f"<div><p>{escape(self._lead())}</p>{self._table()}</div>"

    def __repr__(self) -> str:
        nec = "" if self.nec is None else f", NEC {self.nec:.2f}"
        named = "" if self.fidelity is None else f", name AUC {self.fidelity.mean:.3f}"
        low, high = self.intervals.get("accuracy, refitted less random", (np.nan, np.nan))
        return (
            f"BottleneckReport(accuracy {self.accuracy:.3f}{nec}, concepts refitted "
            f"{self.refitted_accuracy:.3f} less random concepts ({self.control}) "
            f"{self.random_accuracy.mean():.3f} = {self.gain:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"dense probe {self.probe_accuracy:.3f}{named})"
        )


def _spread(draws: np.ndarray) -> float:
    return float(draws.std(ddof=1)) if len(draws) > 1 else float("nan")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def _json(row: Any) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and np.isnan(value) else value
        for key, value in row.items()
    }
