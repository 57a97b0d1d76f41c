"""The recursion of CRAFT: refactorise mixed concepts at an earlier layer.

Fel et al. 2023, section 3.2 and algorithm 1. Late layers collapse a class onto
few directions, so one late concept can hold several visual ones. Its strongest
patches are looked at through an earlier layer; if they are two groups there
(:func:`~conceptlab.explanation.mixing.mixing_test`), they are factorised there,
and the new concepts become its children.
"""

from __future__ import annotations

__all__ = ["Recursion", "earlier_layers", "strongest"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from conceptlab.explanation.mixing import MixingTest, mixing_test
from conceptlab.explanation.tree import ConceptNode
from conceptlab.extractors.base import ConceptExtractor
from conceptlab.extractors.nmf import NMFConcepts
from conceptlab.extractors.semi_nmf import SemiNMF
from conceptlab.models import SplitModel
from conceptlab.seeds import draw_seed

if TYPE_CHECKING:
    from conceptlab.importance import Decision

_MIN_PATCHES = 12
_SEES = 0.8  # share of made mixtures that a layer must show


def strongest(coefficients: np.ndarray, quantile: float, limit: int) -> np.ndarray:
    """Rows in which a concept is strong: above `quantile` and positive, the best first.

    At least a dozen rows are given where that many are positive, so that small
    data sets can be tested too.

    Parameters
    ----------
    coefficients : ndarray of shape (n_rows,)
        One column of U.
    quantile : float
        In [0, 1).
    limit : int
        The most rows.

    Returns
    -------
    numpy.ndarray of int64
    """
    order = np.argsort(-coefficients, kind="stable")
    positive = int((coefficients > 0).sum())
    above = int((coefficients > np.quantile(coefficients, quantile)).sum())
    return order[: min(limit, positive, max(above, _MIN_PATCHES))].astype(np.int64)


def earlier_layers(split: SplitModel, example: Any) -> list[str]:
    """Name the blocks before the cut that have positions too, the latest first.

    Parameters
    ----------
    split : SplitModel
        The model, cut.
    example : tensor or mapping of tensors
        One input as the bare model takes it.

    Returns
    -------
    list of str
        Layers of the same depth of naming as the cut; empty where there is none.
    """
    table = SplitModel.suggest(split.model, example, output=split.output)
    names = list(table["name"])
    if split.layer not in names:
        return []
    place = names.index(split.layer)
    axes = [len(shape) for shape in table["shape"]]
    return [
        name
        for name, count in zip(names[:place][::-1], axes[:place][::-1], strict=True)
        if name.count(".") == split.layer.count(".") and count == axes[place]
    ]


@dataclass
class Recursion:
    """Everything a refinement needs to know.

    Attributes
    ----------
    layers : sequence of str
        Earlier layers, the latest first.
    rows_at : callable
        ``rows_at(layer, rows) -> (len(rows), n_channels)``: pooled activations of
        patches at an earlier layer.
    importance_at : callable
        ``importance_at(layer, extractor, rows) -> (values (k,), intervals (k, 2),
        decision)``: importance of an extractor's concepts by the head of its layer, on the
        images that `rows` come from, and whether they carry the decision there.
    extractor : ConceptExtractor
        Cloned for each refinement.
    n_children : int
        Concepts of a refinement.
    decide : callable
        ``decide(node, test) -> bool``: whether to split.
    quantile, limit : float, int
        Which patches count as a concept's own; see :func:`strongest`.
    seed : int
        Seed of tests and factorisations.
    """

    layers: Sequence[str]
    rows_at: Callable[[str, np.ndarray], np.ndarray]
    importance_at: Callable[
        [str, ConceptExtractor, np.ndarray], tuple[np.ndarray, np.ndarray, Decision]
    ]
    extractor: ConceptExtractor
    n_children: int
    decide: Callable[[ConceptNode, MixingTest], bool]
    quantile: float
    limit: int
    seed: int

    _seen: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False)

    def begin(self, nodes: Sequence[ConceptNode], cut: str) -> tuple[int, int] | None:
        """Begin at the layer where the rule can see: the first that shows made mixtures.

        Whether two things are apart can be seen at some layers and not at others. The latest of
        `layers` comes first and the cut itself last, where concepts are apart by construction;
        where none shows four of five mixtures, the one that shows most is taken.

        Parameters
        ----------
        nodes : sequence of ConceptNode
            The roots.
        cut : str
            Their layer.

        Returns
        -------
        tuple of int, or None
            How many mixtures are seen at that layer, of how many; None where none can be made.
        """
        order, best = [*self.layers, cut], (-1.0, 0, (0, 1))
        for place, layer in enumerate(order):
            found = self.power(nodes, layer)
            if found is None:
                return None
            share = found[0] / found[1]
            if share > best[0]:
                best = share, place, found
            if share >= _SEES:
                break
        first = order[best[1]]
        self.layers = [first, *(name for name in order[best[1] + 1 :] if name != cut)]
        if first == cut:
            self.layers += order[:-1]
        return best[2]

    def refine(self, nodes: Sequence[ConceptNode], depth: int, level: int = 0) -> None:
        """Test every node at the next layer, split those that mix, and go on below."""
        if level >= min(depth, len(self.layers)):
            return
        layer = self.layers[level]
        testable = _testable(nodes)
        if not testable:
            return
        for node, rows in zip(testable, self._look(layer, testable), strict=True):
            seed = draw_seed(np.random.default_rng([self.seed, level, nodes.index(node)]))
            node.test = mixing_test(rows, random_state=seed)
            if self.decide(node, node.test):
                self._split(node, layer, rows, seed)
                self.refine(node.children, depth, level + 1)

    def power(self, nodes: Sequence[ConceptNode], layer: str) -> tuple[int, int] | None:
        """Count in how many made mixtures of two nodes the rule sees two things at a layer.

        Each is made of as many of the best patches of one node as of another: all pairs of
        the five most important that have patches enough.

        Returns
        -------
        tuple of int, or None
            How many were seen, of how many; None where there is no pair.
        """
        testable = _testable(nodes)
        seen = dict(zip(map(id, testable), self._look(layer, testable), strict=True))
        strong = sorted(testable, key=lambda node: -np.nan_to_num(node.importance))[:5]
        pairs, found = list(combinations(strong, 2)), 0
        for number, (a, b) in enumerate(pairs):
            half = max(_MIN_PATCHES, min(len(a.patches), len(b.patches))) // 2
            rows = np.concatenate([seen[id(a)][:half], seen[id(b)][:half]])
            seed = draw_seed(np.random.default_rng([self.seed, 4, number]))
            found += self.decide(a, mixing_test(rows, random_state=seed))
        return (found, len(pairs)) if pairs else None

    def _look(self, layer: str, nodes: Sequence[ConceptNode]) -> list[np.ndarray]:
        """Give the rows of each node's patches at a layer; a patch is seen there once."""
        if not nodes:
            return []
        wanted = np.unique(np.concatenate([node.patches for node in nodes]))
        if layer not in self._seen or not np.isin(wanted, self._seen[layer][0]).all():
            self._seen[layer] = wanted, self.rows_at(layer, wanted)
        known, rows = self._seen[layer]
        return [rows[np.searchsorted(known, node.patches)] for node in nodes]

    def _split(self, node: ConceptNode, layer: str, rows: np.ndarray, seed: int) -> None:
        n_children = min(self.n_children, *rows.shape)
        base = self.extractor
        if isinstance(base, NMFConcepts) and (rows < 0).any():  # an earlier layer may have signs
            base = SemiNMF()
        extractor = clone(base).set_params(n_concepts=n_children, random_state=seed)
        U = np.asarray(extractor.fit(rows).transform(rows))
        values, intervals, node.decision = self.importance_at(layer, extractor, node.patches)
        for child in range(n_children):
            local = strongest(U[:, child], 0.0, len(rows))
            # A patch belongs to the child that explains most of it.
            local = local[U[local].argmax(axis=1) == child]
            node.children.append(
                ConceptNode(
                    name=f"{node.name}.{child}",
                    layer=layer,
                    vector=np.asarray(extractor.components_[child]),
                    importance=float(values[child]),
                    interval=(float(intervals[child, 0]), float(intervals[child, 1])),
                    patches=node.patches[local],
                    coefficients=U[local, child],
                )
            )


def _testable(nodes: Sequence[ConceptNode]) -> list[ConceptNode]:
    return [node for node in nodes if len(node.patches) >= _MIN_PATCHES]
