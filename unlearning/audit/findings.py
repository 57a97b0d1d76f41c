"""What an audit found: figures, verdict, curves, concepts, and the arithmetic of their tables."""

from __future__ import annotations

__all__ = ["Findings"]

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.io.values import plain
from unlearning.audit.evidence import Verdict
from unlearning.audit.figures import COLUMNS, FIGURES
from unlearning.audit.relearning import RelearnCurve

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Findings:
    """The values of an audit, without files and pages; :class:`unlearning.audit.Report` tells them.

    Attributes
    ----------
    values, verdict, forgotten, class_names, baselines, sizes, destinations, curves : object
    concept_names, class_concepts, exclusive, attributions, encoded, earlier, notes : object
    certificate, settings, provenance, pictures, answers : object
        See :class:`unlearning.audit.Report`.
    """

    values: dict[str, dict[str, float]]
    verdict: Verdict
    forgotten: list[int]
    class_names: list[str]
    baselines: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    destinations: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, RelearnCurve] = field(default_factory=dict)
    concept_names: list[str] = field(default_factory=list)
    class_concepts: list[int] = field(default_factory=list)
    exclusive: list[int] = field(default_factory=list)
    attributions: dict[str, np.ndarray] = field(default_factory=dict)
    encoded: dict[str, np.ndarray] = field(default_factory=dict)
    earlier: dict[str, dict[int, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    certificate: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    pictures: np.ndarray | None = None
    answers: dict[str, list[int]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The models, in the order of the tables."""
        return [name for name in COLUMNS if name in self.values]

    @property
    def has_reference(self) -> bool:
        """Whether a retrained model was given."""
        return "retrained" in self.values

    @property
    def of_samples(self) -> bool:
        """Whether samples were to be forgotten, and no whole class."""
        return self.settings.get("request") == "samples"

    def figures(self) -> list[str]:
        """Name the figures that were measured, in the order of the tables."""
        return [key for key in FIGURES if np.isfinite(self.values["after"].get(key, np.nan))]

    def value(self, figure: str, model: str = "after") -> float:
        """Give a figure of a model; NaN where it was not measured.

        Parameters
        ----------
        figure : str
            A key; see :doc:`/reference/audit-figures`.
        model : str
            One of :attr:`columns`.

        Returns
        -------
        float
        """
        if figure not in FIGURES:
            raise unknown_name("figure", figure, FIGURES)
        if model not in self.values:
            raise unknown_name("model", model, self.columns)
        return float(self.values[model].get(figure, np.nan))

    def excess(self, figure: str, model: str = "after") -> float:
        """Give a figure minus that of the retrained model.

        Parameters
        ----------
        figure : str
            A key; see :doc:`/reference/audit-figures`.
        model : str
            One of :attr:`columns`.

        Returns
        -------
        float
            NaN without a retrained model.
        """
        if not self.has_reference:
            return float("nan")
        return self.value(figure, model) - self.value(figure, "retrained")

    def floor(self, figure: str) -> float:
        """Give the distance of two retrained models in a figure, the noise floor.

        Parameters
        ----------
        figure : str
            A key; see :doc:`/reference/audit-figures`.

        Returns
        -------
        float
            NaN without two retrained models.
        """
        if "retrained_b" not in self.values:
            return float("nan")
        return abs(self.excess(figure, "retrained_b"))

    def to_frame(self) -> pd.DataFrame:
        """Tabulate all figures.

        Returns
        -------
        pandas.DataFrame
            A row for each figure: ``figure``, ``title``, ``group``, a column for each model;
            with a retrained model ``excess`` (after minus retrained), with two ``floor``.
        """
        import pandas as pd

        rows = []
        for key in self.figures():
            row: dict[str, Any] = {
                "figure": key,
                "title": FIGURES[key].title,
                "group": FIGURES[key].group,
            }
            row |= {name: self.value(key, name) for name in self.columns}
            if self.has_reference:
                row["excess"] = self.excess(key)
            if "retrained_b" in self.values:
                row["floor"] = self.floor(key)
            rows.append(row)
        return pd.DataFrame(rows)

    def concept_frame(self) -> pd.DataFrame:
        """Tabulate the concepts of the forgotten class.

        Returns
        -------
        pandas.DataFrame
            A row for each concept and model: ``concept``, ``exclusive``, ``model``,
            ``attribution`` (on the class's logit; the mean over forgotten classes), ``auc``.
        """
        import pandas as pd

        rows = [
            {
                "concept": self.concept_names[k],
                "exclusive": k in self.exclusive,
                "model": name,
                "attribution": float(self.attributions[name][self.forgotten, k].mean()),
                "auc": float(self.encoded[name][k]),
            }
            for k in self.class_concepts
            for name in self.columns
        ]
        return pd.DataFrame(rows, columns=["concept", "exclusive", "model", "attribution", "auc"])

    def to_dict(self) -> dict[str, Any]:
        """Give everything but curves as JSON values; what is not finite is None."""
        return {
            "verdict": {
                "word": self.verdict.word,
                "summary": self.verdict.summary,
                "evidence": [plain(asdict(e)) for e in self.verdict.evidence],
            },
            "baselines": self.baselines,
            "forgotten": self.forgotten,
            "class_names": self.class_names,
            "sizes": self.sizes,
            "figures": {name: plain(self.values[name]) for name in self.columns},
            "excess": plain({k: self.excess(k) for k in self.figures()})
            if self.has_reference
            else None,
            "floor": plain({k: self.floor(k) for k in self.figures()})
            if "retrained_b" in self.values
            else None,
            "earlier": {
                name: {str(c): v for c, v in own.items()} for name, own in self.earlier.items()
            },
            "concepts": plain(self.concept_frame().to_dict(orient="records")),
            "notes": self.notes,
            "certificate": self.certificate,
            "settings": self.settings,
            "provenance": self.provenance,
        }

    def classes(self) -> str:
        """Name the forgotten classes."""
        return ", ".join(self.class_names[c] for c in self.forgotten)
