"""Quick calls of what ``bottlenecks`` offers."""

from functools import cache

import numpy as np
from cases import case
from cases_conceptlab import encoder
from instances import features

import bottlenecks
from bottlenecks import (
    Bottleneck,
    ConceptMatrixSearch,
    PostHocCBM,
    SparseLinearHead,
    gates,
    losses,
)
from conceptlab import ConceptBank
from conceptlab.seeds import torch_generator

N, K = 60, 4


def shown(n=N, k=K):
    """Which sample shows which concept, bool."""
    return np.random.default_rng(3).random((n, k)) < 0.5


def outputs(n=N, k=K):
    """What a bottleneck says of the same concepts, with noise."""
    return shown(n, k) + 0.3 * np.random.default_rng(4).normal(size=(n, k))


def classes(n=N):
    """Classes that two concepts decide, with some of a third."""
    return shown(n)[:, 0] + (shown(n)[:, 1] & shown(n)[:, 2])


@cache
def bottleneck():
    """Fit a bottleneck on the outputs as features."""
    return PostHocCBM(nec=2).fit(outputs(), classes())


@cache
def search():
    """Fit the search on the same."""
    return ConceptMatrixSearch().fit(outputs(), classes())


@cache
def sparse_head():
    """Fit a head on the same."""
    return SparseLinearHead(lam=0.05, tol=1e-3).fit(outputs(), classes())


def named_bank():
    """Name the outputs."""
    return ConceptBank(np.eye(K), [f"concept {j}" for j in range(K)], space=None)


def learned_bank():
    """Make a bank with the quality that `learnable` asks for."""
    rng = np.random.default_rng(0)
    examples = {
        name: (rng.normal(size=(12, 5)) + shift, rng.normal(size=(12, 5)))
        for name, shift in (("red", 3.0), ("round", 0.0))
    }
    return ConceptBank.from_examples(None, examples)


# ------------------------------------------------------------------- measures
case(bottlenecks.auc_matrix, lambda c: (c(outputs()), c.of(shown())), "numpy")
case(bottlenecks.name_fidelity, lambda c: (c(outputs()), c.of(shown())), "numpy")
case(
    bottlenecks.number_of_contributing_concepts,
    lambda c: (c(outputs()), c(features(3, K))),
    "numpy",
)
case(bottlenecks.number_of_effective_concepts, lambda c: (c(features(3, K)),), "numpy")
case(bottlenecks.completeness, lambda c: (0.8, 0.9, 0.1))
case(bottlenecks.mutual_information, lambda c: (c(outputs()[:, 0]), c.of(classes())), "numpy")
case(
    bottlenecks.concept_task_leakage,
    lambda c: (c(outputs()), c.of(shown()), c.of(classes())),
    "numpy",
)
case(bottlenecks.interconcept_leakage, lambda c: (c(outputs()), c.of(shown())), "numpy")
case(bottlenecks.oracle_impurity, lambda c: (c(outputs()), c.of(shown())), "numpy")
case(bottlenecks.niche_impurity, lambda c: (c(outputs()), c.of(shown())), "numpy")
case(
    bottlenecks.measure_leakage,
    lambda c: ((c(outputs()), c.of(shown()), c.of(classes())), {"n_permutations": 1}),
    "numpy",
)
case(
    bottlenecks.joint_leakage,
    lambda c: (c(outputs(40)), c.of(shown(40)), c.of(classes(40))),
    "numpy",
    tolerance=100,
)
case(
    bottlenecks.evaluate,
    lambda c: (
        (bottleneck(), c(outputs(40)), c.of(classes(40)), c.of(shown(40))),
        {"n_random": 1, "n_permutations": 1},
    ),
    "numpy",
    tolerance=100,
)
case(bottlenecks.random_bank, lambda c: (c(outputs()), 2), "numpy")
case(
    bottlenecks.relevance,
    lambda c: ((named_bank(), c(outputs()), c.of(classes())), {"n_random": 1}),
    "numpy",
    tolerance=100,
)
case(bottlenecks.concept_entropy, lambda c: (c(outputs()), c.of(classes())), "numpy")
case(
    bottlenecks.Relevance.to_frame,
    lambda c: (bottlenecks.relevance(named_bank(), outputs(), classes(), n_random=1),),
)
case(bottlenecks.class_similarity, lambda c: (c(outputs()), c.of(classes())), "numpy")
case(bottlenecks.concept_discriminability, lambda c: (c(features(3, K)),), "numpy")
case(bottlenecks.cos_cubed_similarity, lambda c: (c(outputs()), c(outputs()[::-1])), "numpy")
case(
    bottlenecks.fit_projection,
    lambda c: (c(outputs()), c(outputs()[:, :2] ** 2)),
    "numpy",
    tolerance=100,
)
case(
    bottlenecks.Projection.__call__,
    lambda c: (bottlenecks.fit_projection(outputs(), outputs()[:, :2]), c(outputs())),
    "like",
)
case(
    bottlenecks.split_rows,
    lambda c: ((c(outputs()), c.of(classes())), {"random_state": 0}),
    "numpy",
)
case(bottlenecks.check_disjoint, lambda c: (c(outputs()[:30]), c(outputs()[30:])), "numpy")

case(
    bottlenecks.LeakageScores.to_frame,
    lambda c: (bottlenecks.measure_leakage(outputs(), shown(), classes(), n_permutations=0),),
)

# ------------------------------------------------------------- heads and losses
case(
    bottlenecks.sparse_softmax_path,
    lambda c: ((c(outputs()), c.of(classes())), {"n_lambdas": 2}),
    "numpy",
    tolerance=100,
)
for method, kind in (
    ("decision_function", "like"),
    ("predict_proba", "like"),
    ("predict", "numpy"),
):
    case(
        getattr(SparseLinearHead, method),
        lambda c: (sparse_head(), c(outputs())),
        kind,
        variant="head",
    )
case(SparseLinearHead.predict_concepts, lambda c: (sparse_head(), c(outputs())), "like")
case(SparseLinearHead.explain, lambda c: (sparse_head(), c(outputs())), "numpy")
case(losses.reference_l1, lambda c: (tensor(c(features(3, 3))),), "tensor")
case(losses.reference_contrastive, lambda c: (tensor(c(outputs())),), "tensor")
case(losses.reference_gumbel, lambda c: (tensor(c(outputs())), 1.0, torch_generator(0)), "tensor")
case(losses.positives_loss, lambda c: (tensor(c(outputs())), tensor(shown())), "tensor")
case(gates.sample_gates, lambda c: (tensor(c(outputs())), 0.5, torch_generator(0)), "tensor")
case(gates.temperatures, lambda c: ((1.0, 0.25), 3))
case(gates.budget_threshold, lambda c: (tensor(c(outputs())), 0.5), "numpy")

# ---------------------------------------------------------------- bottlenecks
case(Bottleneck.predict_concepts, lambda c: (bottleneck(), c(outputs())), "like")
case(Bottleneck.decision_function, lambda c: (bottleneck(), c(outputs())), "like")
case(Bottleneck.predict_proba, lambda c: (bottleneck(), c(outputs())), "like")
case(Bottleneck.predict, lambda c: (bottleneck(), c(outputs())), "numpy")
case(Bottleneck.explain, lambda c: (bottleneck(), c(outputs())), "numpy")
case(Bottleneck.intervene, lambda c: (bottleneck(), c(outputs()), {"concept0": 1.0}), "numpy")
case(
    Bottleneck.intervention_curve,
    lambda c: (bottleneck(), c(outputs()), c.of(shown()), c.of(classes())),
    "numpy",
)
case(ConceptMatrixSearch.decision_function, lambda c: (search(), c(outputs())), "like")
case(ConceptMatrixSearch.predict_concepts, lambda c: (search(), c(outputs())), "like")
case(ConceptMatrixSearch.predict, lambda c: (search(), c(outputs())), "numpy")
case(ConceptMatrixSearch.explain, lambda c: (search(), c(outputs())), "numpy")

# -------------------------------------------------------------------- filters
NAMES = ["red skin", "an apple", "smooth surface"]
case(bottlenecks.filter_concepts, lambda c: (NAMES, bottlenecks.readable(["apple"])))
case(bottlenecks.readable, lambda c: (["apple"],))
case(bottlenecks.unlike_classes, lambda c: (["apple"], encoder()))
case(bottlenecks.distinct, lambda c: (encoder(),))
case(bottlenecks.activated, lambda c: (c(outputs()[:, :3]), NAMES), "numpy")
case(bottlenecks.learnable, lambda c: (learned_bank(),))
case(bottlenecks.scored, lambda c: ("seen", NAMES, c([0.2, 0.7, 0.1]), 0.5), "numpy")


def tensor(array):
    """Give a tensor: losses and gates are made of torch and take nothing else."""
    import torch

    return torch.as_tensor(array)
