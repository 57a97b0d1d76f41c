"""What an evaluation found: figures beside their controls, as table, picture and page."""

from __future__ import annotations

__all__ = ["BottleneckReport", "NameFidelity"]

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottlenecks.leakage import LeakageScores
from conceptlab.errors import unknown_name
from conceptlab.io.files import atomic_write
from conceptlab.io.html import escape, page, picture, section, table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KINDS = ("accuracy", "fidelity", "leakage")


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

    Examples
    --------
    >>> fidelity = NameFidelity(["red", "round"], np.array([0.9, 0.7]))
    >>> round(fidelity.mean, 2)
    0.8
    """

    names: list[str]
    auc: np.ndarray
    raw_auc: np.ndarray | None = None

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
        Of the same head on random concepts, at the same NEC, on the same rows.
    probe_accuracy : float
        Of a logistic regression on the features.
    chance : float
        Share of the largest class.
    completeness : float
        (accuracy - chance) / (probe_accuracy - chance).
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

    Examples
    --------
    >>> from bottlenecks import PostHocCBM, evaluate
    >>> rng = np.random.default_rng(0)
    >>> X = (rng.random((200, 4)) < 0.5) + 0.1 * rng.normal(size=(200, 4))
    >>> y = X[:, 0] > 0.5
    >>> report = evaluate(PostHocCBM(nec=2).fit(X, y), X, y)
    >>> float(report.accuracy), report.random_accuracy.shape
    (1.0, (5,))
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

    def to_frame(self) -> pd.DataFrame:
        """Tabulate all measures.

        Returns
        -------
        pandas.DataFrame
            Index ``measure``; columns ``value``, ``baseline`` (of the control
            that belongs to it: random concepts at the same NEC, chance, raw
            scores, shuffled outputs), ``baseline_sd``, ``p_value`` and
            ``better`` ("higher" or "lower"). NaN where there is none.
        """
        import pandas as pd

        rows: dict[str, dict[str, Any]] = {
            "accuracy": {
                "value": self.accuracy,
                "baseline": float(self.random_accuracy.mean()),
                "baseline_sd": float(self.random_accuracy.std()),
                "better": "higher",
            },
            "accuracy, concepts refitted": {
                "value": self.refitted_accuracy,
                "baseline": float(self.random_accuracy.mean()),
                "baseline_sd": float(self.random_accuracy.std()),
                "better": "higher",
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
        columns = ["value", "baseline", "baseline_sd", "p_value", "better"]
        frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        numbers = columns[:-1]
        frame[numbers] = frame[numbers].astype(float)
        return frame.rename_axis("measure")

    def concept_frame(self) -> pd.DataFrame:
        """Tabulate fidelity and leakage by concept, the worst names first.

        Returns
        -------
        pandas.DataFrame
            Index ``concept``; columns ``auc``, ``raw_auc``, ``CTL``, ``ICL``;
            empty without true concepts.
        """
        import pandas as pd

        columns = ["auc", "raw_auc", "CTL", "ICL"]
        if self.fidelity is None:
            return pd.DataFrame(columns=columns).rename_axis("concept")
        frame = pd.DataFrame({"auc": self.fidelity.auc}, index=self.fidelity.names)
        frame["raw_auc"] = np.nan if self.fidelity.raw_auc is None else self.fidelity.raw_auc
        for name in ("CTL", "ICL"):
            score = None if self.leakage is None else self.leakage.get(name)
            known = score is not None and score.by_concept is not None
            frame[name] = score.by_concept if score is not None and known else np.nan
        return frame.sort_values("auc", kind="stable").rename_axis("concept")

    def to_dict(self) -> dict[str, Any]:
        """Give measures, concepts and settings as JSON values."""
        frame, concepts = self.to_frame(), self.concept_frame()
        return {
            "measures": {str(name): _json(row) for name, row in frame.iterrows()},
            "concepts": {str(name): _json(row) for name, row in concepts.iterrows()},
            "random_accuracy": self.random_accuracy.tolist(),
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
                "on the same rows. Concepts that beat them by little owe their accuracy to their "
                "number, not to their meaning.",
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
            f"{s.get('controls', '')}."
        )

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
        return (
            f"BottleneckReport(accuracy {self.accuracy:.3f}{nec}, random concepts "
            f"{self.random_accuracy.mean():.3f} ± {self.random_accuracy.std():.3f}, dense probe "
            f"{self.probe_accuracy:.3f}{named})"
        )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def _json(row: Any) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and np.isnan(value) else value
        for key, value in row.items()
    }
