"""Why a bottleneck decided as it did: contributions of concepts that add up to the logits."""

from __future__ import annotations

__all__ = ["Contributions", "weights_frame"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

BIAS, RESIDUAL = "(bias)", "(residual)"


@dataclass(frozen=True, eq=False)
class Contributions:
    """Logits of n rows taken apart: weight times activation, by class and concept.

    ``values[i, c].sum() + bias[c] + residual[i, c] == logits[i, c]`` in float64. A large weight
    on a concept that is absent contributes nothing, so this, and not the weight alone, is why a
    row was given its class.

    Attributes
    ----------
    activations : ndarray of shape (n, k), float64
    coef : ndarray of shape (K, k), float64
    bias : ndarray of shape (K,), float64
    residual : ndarray of shape (n, K), float64, or None
        What goes round the concepts.
    concept_names : list of k str
    classes : ndarray of shape (K,)

    Examples
    --------
    >>> why = Contributions(np.array([[2.0, -1.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]),
    ...                     np.array([0.5, 0.0]), None, ["red", "round"], np.array(["a", "b"]))
    >>> why.of(0, "a").tolist(), why.logits.tolist(), why.predicted.tolist()
    ([2.0, -0.0], [[2.5, -3.0]], ['a'])
    """

    activations: np.ndarray
    coef: np.ndarray
    bias: np.ndarray
    residual: np.ndarray | None
    concept_names: list[str]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        n, k, K = len(self), len(self.concept_names), len(self.classes)
        return f"Contributions({n} rows, {k} concepts, {K} classes)"

    @property
    def values(self) -> np.ndarray:
        """All contributions, (n, K, k); n K k numbers, made at each call."""
        products: np.ndarray = self.activations[:, None, :] * self.coef
        return products

    @property
    def logits(self) -> np.ndarray:
        """Sums of contributions, bias and residual, (n, K)."""
        sums: np.ndarray = self.activations @ self.coef.T + self.bias
        return sums if self.residual is None else sums + self.residual

    @property
    def predicted(self) -> np.ndarray:
        """The class of the largest logit of every row, (n,)."""
        return np.asarray(self.classes[self.logits.argmax(axis=1)])

    @property
    def residual_share(self) -> np.ndarray | None:
        """Part of the size of the predicted logit that goes round the concepts, (n,), or None.

        ``|r| / (|r| + |sum of contributions|)`` for the predicted class, in [0, 1].
        """
        if self.residual is None:
            return None
        rows, best = np.arange(len(self)), self.logits.argmax(axis=1)
        through = np.abs((self.activations @ self.coef.T)[rows, best])
        round_it = np.abs(self.residual[rows, best])
        share: np.ndarray = round_it / np.maximum(round_it + through, np.finfo(float).tiny)
        return share

    def of(self, sample: int, target: Any = None) -> np.ndarray:
        """Give the contributions to one logit.

        Parameters
        ----------
        sample : int
            Row.
        target : object, optional
            A class; the predicted one by default.

        Returns
        -------
        ndarray of shape (k,)
        """
        row = self._row(sample)
        found: np.ndarray = self.activations[row] * self.coef[self._column(row, target)]
        return found

    def to_frame(
        self, sample: int | None = None, target: Any = None, *, top: int | None = None
    ) -> pandas.DataFrame:
        """Give a row for every non-zero contribution, the largest in size first.

        Parameters
        ----------
        sample : int, optional
            One row of the data; all by default.
        target : object, optional
            A class; the predicted one of each row by default.
        top : int, optional
            So many concepts of each row only.

        Returns
        -------
        pandas.DataFrame
            Columns sample, class, concept, activation, weight, contribution; bias (and
            residual) stand last of each row, so that with ``top=None`` the contributions of a
            row sum to its logit.
        """
        import pandas

        table = []
        for i in range(len(self)) if sample is None else [self._row(sample)]:
            c = self._column(i, target)
            values = self.of(i, self.classes[c])
            order = [j for j in np.argsort(-np.abs(values), kind="stable") if values[j] != 0][:top]
            label = self.classes[c]
            for j in order:
                a, w = self.activations[i, j], self.coef[c, j]
                table.append((i, label, self.concept_names[j], a, w, values[j]))
            for name, value in self._rest(i, c):
                table.append((i, label, name, np.nan, np.nan, value))
        columns = ["sample", "class", "concept", "activation", "weight", "contribution"]
        return pandas.DataFrame(table, columns=columns)

    def plot(
        self, sample: int = 0, target: Any = None, *, top: int = 12, ax: Axes | None = None
    ) -> Axes:
        """Draw one logit as a waterfall; see ``conceptlab.plot.bottlenecks.waterfall``."""
        from conceptlab.plot.bottlenecks import waterfall

        row = self._row(sample)
        c = self._column(row, target)
        rest = self._rest(row, c)
        return waterfall(
            self.of(row, self.classes[c]),
            self.concept_names,
            start=rest[0][1],
            residual=rest[1][1] if len(rest) > 1 else None,
            title=f"logit of {self.classes[c]}",
            top=top,
            ax=ax,
        )

    def _rest(self, i: int, c: int) -> list[tuple[str, float]]:
        rest = [(BIAS, float(self.bias[c]))]
        if self.residual is not None:
            rest.append((RESIDUAL, float(self.residual[i, c])))
        return rest

    def _row(self, sample: int) -> int:
        if not -len(self) <= sample < len(self):
            raise InputError(
                f"There is no row {sample}; {len(self)} were explained, from 0 on.",
                code="CL-INPUT-RANGE",
            )
        return int(sample) % len(self)

    def _column(self, row: int, target: Any) -> int:
        if target is None:
            logits = self.coef @ self.activations[row] + self.bias
            return int((logits if self.residual is None else logits + self.residual[row]).argmax())
        found = np.flatnonzero(self.classes == target)
        if not len(found):
            raise unknown_name("class", target, map(str, self.classes), code="CL-INPUT-TARGET")
        return int(found[0])

    def _repr_html_(self) -> str:
        from conceptlab.io.html import escape, picture, table

        rows = []
        for i in range(min(len(self), 10)):
            c = self._column(i, None)
            values = self.of(i, self.classes[c])
            strongest = [j for j in np.argsort(-np.abs(values), kind="stable")[:3] if values[j]]
            reasons = ", ".join(f"{self.concept_names[j]} {values[j]:+.2f}" for j in strongest)
            rows.append((i, str(self.classes[c]), float(self.logits[i, c]), reasons))
        more = f"<p>and {len(self) - 10} more</p>" if len(self) > 10 else ""
        shown = picture(self.plot(0), "contributions to the logit of row 0", dpi=80) if rows else ""
        return (
            f"<div><p><b>Contributions</b> &middot; {escape(repr(self))}</p>"
            + table(("row", "class", "logit", "strongest"), rows)
            + f"{more}{shown}</div>"
        )


def weights_frame(
    coef: np.ndarray, concept_names: Sequence[str], classes: np.ndarray
) -> pandas.DataFrame:
    """Give the non-zero weights of a head as a table.

    Parameters
    ----------
    coef : ndarray of shape (K, k)
    concept_names : sequence of k str
    classes : ndarray of shape (K,)

    Returns
    -------
    pandas.DataFrame
        Columns class, concept, weight; the largest in size of each class first.

    Examples
    --------
    >>> weights_frame(np.array([[0.0, 2.0]]), ["red", "round"], np.array(["a"]))
      class concept  weight
    0     a   round     2.0
    """
    import pandas

    table = [
        (classes[c], concept_names[j], coef[c, j])
        for c in range(len(coef))
        for j in np.argsort(-np.abs(coef[c]), kind="stable")
        if coef[c, j] != 0
    ]
    return pandas.DataFrame(table, columns=["class", "concept", "weight"])
