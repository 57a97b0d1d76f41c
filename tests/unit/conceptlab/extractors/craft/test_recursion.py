"""Where the recursion looks: the layer in which made mixtures can be seen."""

import numpy as np
import pytest

from conceptlab.explanation.tree import ConceptNode
from conceptlab.extractors import NMFConcepts
from conceptlab.extractors.craft.recursion import Recursion

N = 40


def recursion(sharp, alpha=0.05):
    """Two concepts of 40 patches each, that lie apart at the layers named in `sharp` only."""
    looked = []

    def rows_at(layer, rows):
        looked.append(layer)
        rng = np.random.default_rng(len(layer))
        noise = 1 + 0.05 * rng.normal(size=(2 * N, 6))
        if layer in sharp:
            noise[N:, 0] += 2.0
        return noise[rows]

    made = Recursion(
        layers=["second", "first"],
        rows_at=rows_at,
        importance_at=None,
        extractor=NMFConcepts(),
        n_children=2,
        decide=lambda node, test: test.mixes(alpha),
        quantile=0.9,
        limit=N,
        seed=0,
    )
    nodes = [
        ConceptNode(f"concept {i}", "cut", np.ones(6), 0.5, patches=np.arange(i * N, (i + 1) * N))
        for i in range(2)
    ]
    return made, nodes, looked


@pytest.mark.parametrize(
    ("sharp", "layers", "seen"),
    [
        (["second", "first"], ["second", "first"], ["second"]),
        (["first"], ["first"], ["second", "first"]),
        ([], ["second", "first"], ["second", "first", "cut"]),
        (["cut"], ["cut", "second", "first"], ["second", "first", "cut"]),
    ],
)
def test_it_goes_to_the_first_layer_that_shows_a_made_mixture(sharp, layers, seen):
    made, nodes, looked = recursion(sharp)
    assert made.begin(nodes, "cut") == (int(bool(sharp)), 1)
    assert made.layers == layers
    assert looked == seen
    made.refine(nodes, 1)
    assert looked == seen, "patches are seen at a layer once"
    assert all(node.test is not None and not node.children for node in nodes)


def test_no_mixture_can_be_made_of_a_single_concept():
    made, nodes, _ = recursion(["first"])
    assert made.begin(nodes[:1], "cut") is None
    assert made.layers == ["second", "first"]
