"""Are concepts the same when the fit is repeated? Matched across seeds or resamples."""

from __future__ import annotations

__all__ = ["StabilityReport", "stability"]

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, check_finite
from conceptlab.errors import InputError, unknown_name
from conceptlab.extractors.matching import match_concepts
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.html import table
from conceptlab.io.reading import rebuilding
from conceptlab.parameters import Whole
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, numpy_generator

if TYPE_CHECKING:
    import pandas as pd

_HOW = ("seeds", "bootstrap", "both")
_ARRAYS = ("cosine", "coefficients", "importances", "null_cosine", "per_concept")
_PLAIN = ("how", "signed", "n_repeats", "seed")


@dataclass(frozen=True, eq=False)
class StabilityReport:
    """How alike repeated fits are, pair by pair.

    Attributes
    ----------
    cosine : numpy.ndarray of shape (n_pairs,), float64
        Mean cosine of matched concepts for each pair of fits.
    coefficients : numpy.ndarray of shape (n_pairs,), float64
        Mean Pearson correlation of the matched concepts' coefficients on the
        same rows.
    importances : numpy.ndarray of shape (n_pairs,), float64
        Spearman correlation of the matched concepts' importances; NaN without
        them.
    null_cosine : numpy.ndarray of shape (n_null,), float64
        Mean matched cosine of a fit with random rows of the data: what rows
        that share a strong mean reach without any structure in common.
    per_concept : numpy.ndarray of shape (k,), float64
        For each concept of the first fit the mean cosine with its partners.
    how : str
        What was varied: ``"seeds"``, ``"bootstrap"`` or ``"both"``.
    signed : bool
        Whether opposite directions count as different.
    n_repeats : int
        Number of fits.
    seed : int
        Gives the same numbers again.

    Examples
    --------
    >>> from conceptlab import NMFConcepts
    >>> X = np.eye(2).repeat(10, axis=0) + 0.01
    >>> report = stability(NMFConcepts(2), X, n_repeats=2, random_state=0)
    >>> report.per_concept.round(2).tolist()
    [1.0, 1.0]
    """

    cosine: np.ndarray
    coefficients: np.ndarray
    importances: np.ndarray
    null_cosine: np.ndarray
    per_concept: np.ndarray
    how: str
    signed: bool
    n_repeats: int
    seed: int

    @property
    def p_value(self) -> float:
        """Share of null draws with at least the mean cosine of the fits."""
        beaten = (self.null_cosine >= self.cosine.mean() - 1e-12).sum()
        return float((1 + beaten) / (1 + len(self.null_cosine)))

    def to_frame(self) -> pd.DataFrame:
        """Tabulate the measures.

        Returns
        -------
        pandas.DataFrame
            Index ``measure``; columns ``mean``, ``low`` and ``high`` (over pairs
            of fits), ``null`` and ``null_high`` (mean and 95 % quantile of random
            directions), ``p_value``.
        """
        import pandas as pd

        rows = {}
        for name, values in (
            ("matched cosine", self.cosine),
            ("correlation of coefficients", self.coefficients),
            ("rank correlation of importances", self.importances),
        ):
            if np.isfinite(values).any():
                rows[name] = {
                    "mean": float(np.nanmean(values)),
                    "low": float(np.nanmin(values)),
                    "high": float(np.nanmax(values)),
                }
        rows["matched cosine"].update(
            null=float(self.null_cosine.mean()),
            null_high=float(np.quantile(self.null_cosine, 0.95)),
            p_value=self.p_value,
        )
        columns = ["mean", "low", "high", "null", "null_high", "p_value"]
        frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        return frame.rename_axis("measure")

    def to_dict(self) -> dict[str, Any]:
        """Give the measures and settings as JSON values."""
        frame = self.to_frame().astype(object)
        frame = frame.where(frame.notna(), None)
        return {
            "measures": {str(name): dict(row) for name, row in frame.iterrows()},
            "per_concept": self.per_concept.tolist(),
            "settings": {name: getattr(self, name) for name in _PLAIN},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to the folder `path`; read again with :meth:`load`."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        data = {name: getattr(self, name) for name in _PLAIN}
        return write_bundle(path, Bundle("StabilityReport", data, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StabilityReport:
        """Read what :meth:`save` wrote."""
        bundle = read_bundle(path, "StabilityReport")
        with rebuilding(path, "StabilityReport"):
            fields: dict[str, Any] = {**bundle.tensors, **bundle.data}
            return cls(**fields)

    def __repr__(self) -> str:
        return (
            f"StabilityReport({self.n_repeats} fits, {self.how}: matched cosine "
            f"{self.cosine.mean():.3f}, random directions {self.null_cosine.mean():.3f})"
        )

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        blank = frame.astype(object).where(frame.notna(), "")
        rows = [
            [str(name), *(v if v == "" else f"{v:.3f}" for v in row)]
            for name, row in zip(frame.index, blank.to_numpy().tolist(), strict=True)
        ]
        shown = table(["measure", *[c.replace("_", " ") for c in frame.columns]], rows)
        return f"<div><p>Stability over {self.n_repeats} fits ({self.how})</p>{shown}</div>"


def stability(
    extractor: Any,
    X: Any,
    *,
    n_repeats: int = 5,
    how: str = "bootstrap",
    groups: Any = None,
    importance: Callable[[Any], Any] | None = None,
    signed: bool = True,
    n_null: int = 200,
    random_state: RandomState = None,
    progress: Progress = None,
) -> StabilityReport:
    """Fit again and again, match the concepts, and compare with chance.

    Parameters
    ----------
    extractor : ConceptExtractor
        Cloned for every fit; needs not be fitted.
    X : array-like of shape (n, p)
        Activations.
    n_repeats : int
        Number of fits, at least 2.
    how : {"bootstrap", "seeds", "both"}
        A resample of the rows for each fit, another ``random_state``, or both. Seeds alone say
        little of a fit whose start does not depend on them, such as :class:`NMFConcepts`.
    groups : array-like of shape (n,), optional
        Rows that are resampled together, such as the image each row is from.
        Positions of one image are no independent samples, so give it for
        bootstraps of maps.
    importance : callable, optional
        Maps a fitted extractor to importances (k,), whose ranks are compared.
    signed : bool
        Whether opposite directions are different concepts; False for PCA and
        ICA, whose signs are arbitrary.
    n_null : int
        Draws of random directions.
    random_state : int, RandomState, Generator or None
        Seed of everything.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    StabilityReport

    Raises
    ------
    InputError
        Fewer than two fits, groups that do not fit, an unknown way, or an
        extractor without ``random_state`` where seeds are to be varied.

    Notes
    -----
    Concepts are paired by assignment (Hungarian algorithm) so that the sum of
    cosines is largest. Matching alone makes random directions look alike, the
    more so as activations share a mean; the null therefore pairs a fit with
    random rows of the data, by the same assignment.

    Examples
    --------
    >>> import numpy as np
    >>> from conceptlab import NMFConcepts
    >>> rng = np.random.default_rng(0)
    >>> U = rng.random((200, 3)) * (rng.random((200, 3)) > 0.5)
    >>> report = stability(NMFConcepts(3), U @ rng.random((3, 8)), n_repeats=3, random_state=0)
    >>> bool(report.cosine.min() > 0.95)
    True
    """
    if how not in _HOW:
        raise unknown_name("way to repeat", how, _HOW)
    Whole(2, code="CL-INPUT-FEW").check("n_repeats", n_repeats)
    Whole(1, code="CL-INPUT-FEW").check("n_null", n_null)
    rows = as_tensor(X).detach()
    if rows.ndim != 2:
        raise InputError(
            f"X must have shape (n, p), got {tuple(rows.shape)}. Put positions into rows: "
            "A.reshape(-1, p), with groups= the image of each row.",
            code="CL-INPUT-RANK",
        )
    check_finite(rows, "X")
    varies_seed = "random_state" in extractor.get_params()
    if how in ("seeds", "both") and not varies_seed:
        raise InputError(
            f"{type(extractor).__name__} has no random_state to vary. Use how='bootstrap'.",
            code="CL-INPUT-OPTION",
        )
    seed = draw_seed(random_state)
    generator = numpy_generator(seed)
    members = _members(groups, len(rows))
    fits = []
    for number in track(range(n_repeats), description="fit again", progress=progress, unit="fit"):
        fit = clone(extractor)
        if varies_seed:
            fit.set_params(random_state=seed if how == "bootstrap" else seed + number)
        chosen = slice(None) if how == "seeds" else _resample(members, generator)
        fits.append(fit.fit(rows[chosen]))
    codes = [as_numpy(fit.transform(rows)).astype(np.float64) for fit in fits]
    weights = None if importance is None else [_importances(importance, fit) for fit in fits]

    pairs = [
        _compare(fits, codes, weights, first, second, signed)
        for first, second in combinations(range(n_repeats), 2)
    ]
    cosine, coefficients, importances = (np.array(column) for column in zip(*pairs, strict=True))
    partners = [
        match_concepts(fits[0].components_, f.components_, signed=signed)[1] for f in fits[1:]
    ]
    k = len(fits[0].components_)
    null = []
    for _ in range(n_null):
        draw = generator.choice(len(rows), k, replace=len(rows) < k)
        directions = as_numpy(rows[draw])
        if not signed:
            directions = directions - as_numpy(rows).mean(0)
        null.append(match_concepts(fits[0].components_, directions, signed=signed)[1].mean())
    return StabilityReport(
        cosine=cosine,
        coefficients=coefficients,
        importances=importances,
        null_cosine=np.array(null),
        per_concept=np.mean(partners, axis=0),
        how=how,
        signed=bool(signed),
        n_repeats=int(n_repeats),
        seed=seed,
    )


def _members(groups: ArrayLike, n: int) -> list[np.ndarray]:
    """List the rows of each group; without groups each row is one."""
    if groups is None:
        return [np.array([i]) for i in range(n)]
    labels = as_numpy(groups)
    if labels.shape != (n,):
        raise InputError(
            f"groups must have one entry for each of the {n} rows, got shape {labels.shape}.",
            code="CL-INPUT-SHAPE",
        )
    _, index = np.unique(labels, return_inverse=True)
    order = np.argsort(index, kind="stable")
    return np.split(order, np.cumsum(np.bincount(index))[:-1])


def _resample(members: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    drawn = generator.integers(len(members), size=len(members))
    return np.concatenate([members[i] for i in drawn])


def _importances(importance: Callable[[Any], Any], fit: Any) -> np.ndarray:
    values = as_numpy(importance(fit)).astype(np.float64)
    if values.shape != (len(fit.components_),):
        raise InputError(
            f"importance(extractor) must give shape ({len(fit.components_)},), got {values.shape}.",
            code="CL-INPUT-SHAPE",
        )
    return values


def _compare(
    fits: list[Any],
    codes: list[np.ndarray],
    weights: list[np.ndarray] | None,
    first: int,
    second: int,
    signed: bool,
) -> tuple[float, float, float]:
    """Compare two fits: mean cosine, mean correlation of codes, rank correlation."""
    one, two = fits[first].components_, fits[second].components_
    order, cosines = match_concepts(one, two, signed=signed)
    left, right = codes[first], codes[second][:, order]
    left, right = left - left.mean(0), right - right.mean(0)
    scale = np.sqrt((left**2).sum(0) * (right**2).sum(0))
    # A coefficient that never moves agrees with nothing.
    moving = scale > 0
    correlation = np.zeros(len(scale))
    correlation[moving] = (left * right).sum(0)[moving] / scale[moving]
    if not signed:
        correlation = abs(correlation)
    ranks = np.nan
    if weights is not None and len(order) > 1:
        from scipy.stats import rankdata

        a, b = rankdata(weights[first]), rankdata(weights[second][order])
        if a.std() > 0 and b.std() > 0:
            ranks = float(np.corrcoef(a, b)[0, 1])
    return float(cosines.mean()), float(correlation.mean()), ranks
