"""What an audit found: figures, verdict, curves, concepts, pictures, files."""

from __future__ import annotations

__all__ = ["Report"]

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.files import Bundle, atomic_write, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding
from unlearning.audit.figures import COLUMNS, FIGURES
from unlearning.audit.relearning import RelearnCurve
from unlearning.audit.verdict import Evidence, Verdict

if TYPE_CHECKING:
    import pandas as pd

_KIND = "UnlearningReport"
_PLOTS = ("figures", "concepts", "relearn", "destinations")


@dataclass(eq=False)
class Report:
    """Results of :func:`unlearning.audit.audit`.

    Attributes
    ----------
    values : dict of str to dict of str to float
        By model (``before``, ``after``, ``mask``, and ``retrained``, ``retrained_b`` where
        they were given) the figures; see :doc:`/reference/audit-figures`.
    verdict : Verdict
        On ``after``.
    baselines : dict of str to str
        What the same rules call the original and its logit mask.
    forgotten : list of int
        The forgotten classes.
    class_names : list of str
        Names of all classes.
    sizes : dict of str to int
        Numbers of samples.
    destinations : dict of str to ndarray of shape (C,)
        Mean probability of each class on test samples of the forgotten ones.
    curves : dict of str to RelearnCurve
        Relearning, by model.
    concept_names : list of str
        Names of the concepts, empty without.
    class_concepts, exclusive : list of int
        Concepts of the forgotten class, and those that are its own.
    attributions : dict of str to ndarray of shape (C, k)
        What each concept adds to each logit on samples of the class, by model.
    encoded : dict of str to ndarray of shape (k,)
        AUC of a probe for each concept, by model; NaN where it was not asked.
    earlier : dict of str to dict of int to float
        Test accuracy on classes of earlier requests, by model.
    notes : list of str
        What a reader has to know.
    certificate : dict or None
        Of the unlearned model.
    settings, provenance : dict
        How it was run; versions, seed, sha256 of models and samples.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import LogitMask
    >>> from unlearning.audit import audit
    >>> X, y = torch.rand(90, 3, 4, 4), torch.arange(90) % 3
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    >>> Z, z = X[60:], y[60:]  # for the test
    >>> X, y = X[:60], y[:60]
    >>> parts = {"forget": (X[y == 0], y[y == 0]), "retain": (X[y > 0], y[y > 0])}
    >>> result = LogitMask().unlearn(model, **parts)
    >>> report = audit(model, result, **parts, test=(Z, z), relearn=False, bits=())
    >>> report.value("fa_test")
    0.0
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

    @property
    def columns(self) -> list[str]:
        """The models, in the order of the tables."""
        return [name for name in COLUMNS if name in self.values]

    @property
    def has_reference(self) -> bool:
        """Whether a retrained model was given."""
        return "retrained" in self.values

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
                "evidence": [_plain(asdict(e)) for e in self.verdict.evidence],
            },
            "baselines": self.baselines,
            "forgotten": self.forgotten,
            "class_names": self.class_names,
            "sizes": self.sizes,
            "figures": {name: _plain(self.values[name]) for name in self.columns},
            "excess": _plain({k: self.excess(k) for k in self.figures()})
            if self.has_reference
            else None,
            "floor": _plain({k: self.floor(k) for k in self.figures()})
            if "retrained_b" in self.values
            else None,
            "earlier": {
                name: {str(c): v for c, v in own.items()} for name, own in self.earlier.items()
            },
            "concepts": [_plain(row) for row in self.concept_frame().to_dict(orient="records")],
            "notes": self.notes,
            "certificate": self.certificate,
            "settings": self.settings,
            "provenance": self.provenance,
        }

    def to_json(self, path: str | os.PathLike[str] | None = None, *, indent: int = 2) -> str:
        """Give :meth:`to_dict` as text, and write it where `path` is given.

        Parameters
        ----------
        path : path-like, optional
            A file.
        indent : int
            Spaces a level.

        Returns
        -------
        str
        """
        text = json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        if path is not None:
            atomic_write(Path(path), text)
        return text

    def plot(self, kind: str = "figures", *, top: int = 10, ax: Any = None) -> Any:
        """Draw the report.

        Parameters
        ----------
        kind : {"figures", "concepts", "relearn", "destinations"}
            Shares of the unlearned model beside reference and noise floor; what concepts add
            to the class's logit before and after, side by side; forget accuracy while the
            class is learned again; where samples of the class go.
        top : int
            Concepts or classes to show.
        ax : matplotlib.axes.Axes, optional
            Where to draw; concepts make a figure of their own.

        Returns
        -------
        matplotlib.axes.Axes or matplotlib.figure.Figure

        Raises
        ------
        InputError
            An unknown kind, or one for which nothing was measured.
        """
        from conceptlab.plot import unlearning

        if kind not in _PLOTS:
            raise unknown_name("plot", kind, _PLOTS)
        if kind == "concepts":
            if not self.attributions or not self.concept_names:
                raise InputError("Concepts need audit(..., concepts=...).", code="CL-INPUT-OPTION")
            return unlearning.concept_pair(
                self.concept_names,
                {
                    COLUMNS[k]: self.attributions[k][self.forgotten].mean(axis=0)
                    for k in self.columns
                },
                own=self.class_concepts,
                exclusive=self.exclusive,
                left=COLUMNS["before"],
                right=COLUMNS["after"],
                title=f"logit of {self._classes()}",
                top=top,
            )
        if kind == "relearn":
            if not self.curves:
                raise InputError("Curves need audit(..., relearn=True).", code="CL-INPUT-OPTION")
            shown = [k for k in COLUMNS if k in self.curves]
            first = self.curves[shown[0]]
            return unlearning.relearn_curves(
                {COLUMNS[k]: (self.curves[k].steps, self.curves[k].forget) for k in shown},
                target=first.target,
                emphasis=COLUMNS["after"],
                ax=ax,
            )
        if kind == "destinations":
            return unlearning.destination_bars(
                self.class_names,
                {COLUMNS[k]: self.destinations[k] for k in self.columns},
                forgotten=self.forgotten,
                top=top,
                ax=ax,
            )
        keys = [k for k in self.figures() if FIGURES[k].share and FIGURES[k].group != "cost"]
        return unlearning.figure_bars(
            [FIGURES[k].title for k in keys],
            {COLUMNS[m]: np.array([self.value(k, m) for k in keys]) for m in self.columns},
            main=COLUMNS["after"],
            reference=COLUMNS["retrained"],
            floor=np.array([self.floor(k) for k in keys]),
            groups=[FIGURES[k].group for k in keys],
            ax=ax,
        )

    def to_html(
        self, path: str | os.PathLike[str], *, title: str = "Is the class forgotten?"
    ) -> Path:
        """Write a self-contained page: verdict, evidence, tables, pictures.

        Parameters
        ----------
        path : path-like
            The file.
        title : str
            Its heading.

        Returns
        -------
        pathlib.Path
        """
        from unlearning.audit.page import audit_page

        return atomic_write(path, audit_page(self, title))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`.

        Parameters
        ----------
        path : path-like
            The folder.

        Returns
        -------
        pathlib.Path
        """
        tensors: dict[str, np.ndarray] = {}
        for name, values in self.destinations.items():
            tensors[f"destinations/{name}"] = values
        for name, values in self.attributions.items():
            tensors[f"attributions/{name}"] = values
        for name, values in self.encoded.items():
            tensors[f"encoded/{name}"] = values
        curves = {}
        for name, curve in self.curves.items():
            for part in ("steps", "forget", "test"):
                tensors[f"curves/{name}/{part}"] = getattr(curve, part)
            curves[name] = {
                "target": curve.target,
                "reached": curve.reached,
                "max_steps": curve.max_steps,
                "broken": curve.broken,
                "start": curve.start,
            }
        data = self.to_dict() | {
            "curves": curves,
            "concept_names": self.concept_names,
            "class_concepts": self.class_concepts,
            "exclusive": self.exclusive,
        }
        return write_bundle(path, Bundle(_KIND, data, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder.

        Returns
        -------
        Report
        """
        bundle = read_bundle(path, _KIND)
        with rebuilding(path, "audit report"):
            data, tensors = bundle.data, bundle.tensors

            def part(prefix: str) -> dict[str, np.ndarray]:
                return {
                    name.removeprefix(f"{prefix}/"): value
                    for name, value in tensors.items()
                    if name.startswith(f"{prefix}/")
                }

            said = data["verdict"]
            return cls(
                values={
                    name: {k: float("nan") if v is None else float(v) for k, v in own.items()}
                    for name, own in data["figures"].items()
                },
                verdict=Verdict(
                    said["word"], said["summary"], tuple(Evidence(**e) for e in said["evidence"])
                ),
                curves={
                    name: RelearnCurve(
                        tensors[f"curves/{name}/steps"],
                        tensors[f"curves/{name}/forget"],
                        tensors[f"curves/{name}/test"],
                        **facts,
                    )
                    for name, facts in data["curves"].items()
                },
                destinations=part("destinations"),
                attributions=part("attributions"),
                encoded=part("encoded"),
                earlier={
                    name: {int(c): v for c, v in own.items()}
                    for name, own in data["earlier"].items()
                },
                **{
                    key: data[key]
                    for key in (
                        "baselines",
                        "forgotten",
                        "class_names",
                        "sizes",
                        "concept_names",
                        "class_concepts",
                        "exclusive",
                        "notes",
                        "certificate",
                        "settings",
                        "provenance",
                    )
                },
            )

    def __repr__(self) -> str:
        beside = "a retrained model" if self.has_reference else "its logit mask"
        return f"Report({self._classes()}: {self.verdict.word}, beside {beside})"

    def _repr_html_(self) -> str:
        from unlearning.audit.page import audit_summary

        return audit_summary(self)

    def _classes(self) -> str:
        return ", ".join(self.class_names[c] for c in self.forgotten)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Turn NumPy numbers to Python's, and what is not finite to None."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        kept = value.item() if isinstance(value, np.generic) else value
        out[name] = None if isinstance(kept, float) and not np.isfinite(kept) else kept
    return out
