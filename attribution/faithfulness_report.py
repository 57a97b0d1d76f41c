"""The table of faithfulness measures, with its curves."""

from __future__ import annotations

__all__ = ["METRICS", "Curve", "FaithfulnessReport"]

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.explanation.files import saved_as
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.html import table
from conceptlab.io.reading import rebuilding

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

METRICS = ("probability", "logit", "accuracy")
_ORDERS = ("importance", "reverse")
_CURVES = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Curve:
    """One measure while concepts are removed or restored one by one.

    Attributes
    ----------
    importance : numpy.ndarray of shape (k + 1,), float64
        Mean over the images, the most important concept first.
    interval : numpy.ndarray of shape (k + 1, 2), float64
        Its bootstrap interval over the images.
    reverse : numpy.ndarray of shape (k + 1,), float64
        The least important first.
    random : numpy.ndarray of shape (n_random, k + 1), float64
        Random orders, each the same for all images.
    auc_interval : numpy.ndarray of shape (2,), float64
        Bootstrap interval of the area under `importance`.
    """

    importance: np.ndarray
    interval: np.ndarray
    reverse: np.ndarray
    random: np.ndarray
    auc_interval: np.ndarray

    def auc(self, order: str = "importance") -> float:
        """Give the area under the curve, share of concepts on the x-axis: the mean height.

        Parameters
        ----------
        order : {"importance", "reverse", "random"}
            ``"random"`` averages over the draws.
        """
        if order == "random":
            return float(self.random_aucs().mean())
        return float(area(getattr(self, order)))

    def random_aucs(self) -> np.ndarray:
        """Give the area for each random order, (n_random,)."""
        return area(self.random)


def area(curves: np.ndarray) -> np.ndarray:
    """Integrate curves (..., k + 1) over [0, 1] by the trapezoid rule: (...)."""
    steps = curves.shape[-1] - 1
    found: np.ndarray = (curves[..., 1:] + curves[..., :-1]).sum(-1) / (2 * steps)
    return found


@dataclass(frozen=True, eq=False)
class FaithfulnessReport:
    """Whether the important concepts are those that the model needs, and U W is its features.

    Attributes
    ----------
    curves : dict of str to dict of str to Curve
        ``curves["deletion"]["probability"]``; see :class:`Curve`.
    metric : str
        The measure that :attr:`deletion_auc` and its fellows speak of.
    order : str
        ``"global"``, one ranking for all images, or ``"local"``.
    gini : float
        Gini coefficient of the importances: 0 for all alike, towards 1 for one
        that has all.
    hoyer : float
        Mean Hoyer sparsity of the coefficients, row by row: 0 for all alike, 1
        for a single concept.
    agreement, kl, logit_r2 : float or None
        How often h(U W) and f predict the same class, the mean divergence
        KL(f, h(U W)) in nats, and the share of the logits' variance that is
        kept; None without the model's own logits.
    reconstruction_error : float or None
        Frobenius norm of A - U W over that of A; None without activations.
    n_images, n_concepts, n_random : int
        Sizes.
    n_evaluations : int
        Rows of coefficients that the head was run on.
    confidence : float
        Level of the intervals.
    seed : int
        Gives the same numbers again.

    Examples
    --------
    >>> import torch
    >>> from attribution.faithfulness import faithfulness
    >>> U = np.random.default_rng(0).random((10, 3))
    >>> def head(u):
    ...     return u @ torch.eye(3).double()
    >>> report = faithfulness(head, U, [3.0, 2.0, 1.0], target=0, random_state=0)
    >>> report.n_concepts, report.fractions.round(2).tolist()
    (3, [0.0, 0.33, 0.67, 1.0])
    """

    curves: dict[str, dict[str, Curve]]
    metric: str
    order: str
    gini: float
    hoyer: float
    agreement: float | None
    kl: float | None
    logit_r2: float | None
    reconstruction_error: float | None
    n_images: int
    n_concepts: int
    n_random: int
    n_evaluations: int
    confidence: float
    seed: int

    @property
    def fractions(self) -> np.ndarray:
        """Share of the concepts removed or restored at each step: (k + 1,)."""
        return np.linspace(0, 1, self.n_concepts + 1)

    @property
    def deletion_auc(self) -> float:
        """Area under the deletion curve; lower is better."""
        return self.curves["deletion"][self.metric].auc()

    @property
    def deletion_auc_random(self) -> float:
        """Mean area under the deletion curve of random orders."""
        return self.curves["deletion"][self.metric].auc("random")

    @property
    def deletion_auc_reverse(self) -> float:
        """Area under the deletion curve, the least important concept first."""
        return self.curves["deletion"][self.metric].auc("reverse")

    @property
    def insertion_auc(self) -> float:
        """Area under the insertion curve; higher is better."""
        return self.curves["insertion"][self.metric].auc()

    @property
    def insertion_auc_random(self) -> float:
        """Mean area under the insertion curve of random orders."""
        return self.curves["insertion"][self.metric].auc("random")

    @property
    def insertion_auc_reverse(self) -> float:
        """Area under the insertion curve, the least important concept first."""
        return self.curves["insertion"][self.metric].auc("reverse")

    def p_value(self, curve: str = "deletion", metric: str | None = None) -> float:
        """Rank the order by importance among the random orders.

        Parameters
        ----------
        curve : {"deletion", "insertion"}
            Which curve.
        metric : str, optional
            Which measure; :attr:`metric` by default.

        Returns
        -------
        float
            Share of random orders, this one included, that are at least as
            good; never below ``1 / (n_random + 1)``.
        """
        chosen = self.curve(curve, metric)
        sign = -1.0 if curve == "deletion" else 1.0
        beaten = sign * chosen.random_aucs() >= sign * chosen.auc() - 1e-12
        return float((1 + beaten.sum()) / (1 + self.n_random))

    def curve(self, curve: str, metric: str | None = None) -> Curve:
        """Give one curve by name; raise an InputError for another name.

        Parameters
        ----------
        curve : {"deletion", "insertion"}
            Which curve.
        metric : str, optional
            Which measure; the report's own by default.

        Returns
        -------
        Curve
        """
        metric = metric or self.metric
        if curve not in _CURVES:
            raise unknown_name("curve", curve, _CURVES)
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        return self.curves[curve][metric]

    def to_frame(self) -> pd.DataFrame:
        """Tabulate all measures.

        Returns
        -------
        pandas.DataFrame
            Index ``measure``; columns ``value``, ``low``, ``high`` (bootstrap over
            images), ``random``, ``random_low``, ``random_high`` (over random
            orders), ``reverse``, ``p_value``, and ``better`` ("lower" or
            "higher"). NaN where a measure has no such column.
        """
        import pandas as pd

        rows: dict[str, dict[str, Any]] = {}
        tail = (1 - self.confidence) / 2
        for name in _CURVES:
            for metric in METRICS:
                curve = self.curves[name][metric]
                low, high = np.quantile(curve.random_aucs(), [tail, 1 - tail])
                rows[f"{name} AUC, {metric}"] = {
                    "value": curve.auc(),
                    "low": float(curve.auc_interval[0]),
                    "high": float(curve.auc_interval[1]),
                    "random": curve.auc("random"),
                    "random_low": float(low),
                    "random_high": float(high),
                    "reverse": curve.auc("reverse"),
                    "p_value": self.p_value(name, metric),
                    "better": "lower" if name == "deletion" else "higher",
                }
        for label, value, better in (
            ("agreement of h(UW) with f", self.agreement, "higher"),
            ("KL of h(UW) from f", self.kl, "lower"),
            ("R² of the logits", self.logit_r2, "higher"),
            ("reconstruction error", self.reconstruction_error, "lower"),
            ("Gini of the importances", self.gini, "higher"),
            ("Hoyer sparsity of U", self.hoyer, "higher"),
        ):
            if value is not None:
                rows[label] = {"value": value, "better": better}
        columns = [
            "value",
            "low",
            "high",
            "random",
            "random_low",
            "random_high",
            "reverse",
            "p_value",
            "better",
        ]
        frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        return frame.rename_axis("measure")

    def to_dict(self) -> dict[str, Any]:
        """Give measures, curves and settings as JSON values."""
        frame = self.to_frame().astype(object)
        frame = frame.where(frame.notna(), None)
        return {
            "measures": {str(name): dict(row) for name, row in frame.iterrows()},
            "curves": {
                name: {
                    metric: {
                        "importance": curve.importance.tolist(),
                        "interval": curve.interval.tolist(),
                        "reverse": curve.reverse.tolist(),
                        "random": curve.random.mean(0).tolist(),
                    }
                    for metric, curve in by_metric.items()
                }
                for name, by_metric in self.curves.items()
            },
            "settings": {name: getattr(self, name) for name in _SETTINGS},
        }

    def plot(
        self, kind: str = "both", *, metric: str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw deletion and insertion curves with their controls.

        Parameters
        ----------
        kind : {"both", "deletion", "insertion"}
            Which curves.
        metric : str, optional
            Which measure; :attr:`metric` by default.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from conceptlab.plot.curves import faithfulness_curves

        return faithfulness_curves(self, kind, metric=metric, ax=ax)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`."""
        data = {name: getattr(self, name) for name in (*_SETTINGS, *_FIGURES)}
        arrays = {
            f"{name}/{metric}/{part}": value
            for name, by_metric in self.curves.items()
            for metric, curve in by_metric.items()
            for part, value in vars(curve).items()
        }
        return write_bundle(path, Bundle("FaithfulnessReport", data, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FaithfulnessReport:
        """Read what :meth:`save` wrote."""
        bundle = read_bundle(path, "FaithfulnessReport")
        with rebuilding(path, "FaithfulnessReport"):
            parts: dict[str, dict[str, dict[str, np.ndarray]]] = {}
            for key, value in bundle.tensors.items():
                name, metric, part = key.split("/")
                parts.setdefault(name, {}).setdefault(metric, {})[part] = value
            curves = {
                name: {metric: Curve(**fields) for metric, fields in by_metric.items()}
                for name, by_metric in parts.items()
            }
            return cls(curves=curves, **bundle.data)

    def __repr__(self) -> str:
        return (
            f"FaithfulnessReport({self.n_images} images, {self.n_concepts} concepts, deletion AUC "
            f"{self.deletion_auc:.3f} (random {self.deletion_auc_random:.3f}), insertion AUC "
            f"{self.insertion_auc:.3f} (random {self.insertion_auc_random:.3f}), "
            f"{self.metric} of the target)"
        )

    def to_table(self) -> str:
        """Give :meth:`to_frame` as an HTML table under a line that says of how many images."""
        frame = self.to_frame()
        blank = frame.astype(object).where(frame.notna(), "")
        told = zip(frame.index, blank.to_numpy().tolist(), strict=True)
        rows = [[str(name), *row] for name, row in told]
        shown = table(["measure", *[c.replace("_", " ") for c in frame.columns]], rows)
        return f"<div><p>Faithfulness on {self.n_images} images</p>{shown}</div>"

    def _repr_html_(self) -> str:
        return self.to_table()


_SETTINGS = (
    "metric",
    "order",
    "n_images",
    "n_concepts",
    "n_random",
    "n_evaluations",
    "confidence",
    "seed",
)
_FIGURES = ("gini", "hoyer", "agreement", "kl", "logit_r2", "reconstruction_error")


saved_as(Curve)
saved_as(FaithfulnessReport)
