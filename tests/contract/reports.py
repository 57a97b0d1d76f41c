"""One of each object that a notebook shows or a folder keeps, with names no page may believe."""

from collections.abc import Callable
from functools import cache
from typing import Any

import cases_bottlenecks as judged
import cases_conceptlab as made
import cases_unlearning as forgot
import numpy as np
import torch
from instances import feature_estimators, features, fitted, images
from unlearning_world import request

from attribution.faithfulness_report import FaithfulnessReport
from attribution.stability import StabilityReport, stability
from bottlenecks import (
    BottleneckReport,
    Contributions,
    FilterReport,
    Intervention,
    InterventionCurve,
    LeakageScores,
    PostHocCBM,
    SparseLinearHead,
    evaluate,
    filter_concepts,
    measure_leakage,
)
from bottlenecks.heads import SoftmaxPath
from conceptlab import CRAFT, ConceptBank, Explanation, NMFConcepts, SplitModel, vocabulary
from conceptlab.extractors.rank import RankSelection, select_rank
from conceptlab.importance import Importance
from conceptlab.vocabulary import BankAudit, ClassConcepts
from conceptlab.zeroshot import BayesianZeroShot, ZeroShotExplanation
from unlearning import ShardedEnsemble, UnlearnResult, audit
from unlearning.classes.concepts import model_concepts
from unlearning.gan import GanReport
from unlearning.removal import (
    FeatureStatistics,
    RemovalBenchmark,
    RemovalReport,
    SceneRemovals,
)
from unlearning.removal.removers import CallableRemover

HOSTILE = '<script>alert("x")</script> & co $\\frac$'
"""A mark for browsers, and a formula that matplotlib cannot read."""
NAMES = [HOSTILE, "<b>round</b>", f"{HOSTILE} again", "a 'tail'"]


@cache
def craft() -> CRAFT:
    """Fit on a model whose classes and concepts have such names."""
    split = SplitModel(made.model(), at="0", class_names=NAMES)
    fitted = CRAFT(split, 2, patch_size=8, depth=0, random_state=0).fit(images(), target=0)
    return fitted.rename(NAMES[:2])


def explanation() -> Explanation:
    """Explain images by it."""
    return craft().explain(images(3), target=0, patch_images=images())


@cache
def bottleneck() -> PostHocCBM:
    """Fit on a bank and on classes of such names."""
    bank = ConceptBank(np.eye(4), NAMES, space=None)
    return PostHocCBM(bank, nec=2).fit(judged.outputs(), labels())


def labels() -> np.ndarray:
    """Classes as texts."""
    return np.array(NAMES)[judged.classes().astype(int)]


def bank() -> ConceptBank:
    """Make a bank with everything a bank may have."""
    return ConceptBank(
        np.eye(4) + 0.1,
        NAMES,
        space=HOSTILE,
        intercepts=np.arange(4.0),
        parents=[None, 0, 0, None],
        meta={"made": HOSTILE},
    )


@cache
def texts() -> ClassConcepts:
    """Embed concepts of such classes."""
    return ClassConcepts({HOSTILE: NAMES, "frog": ["no tail", HOSTILE]}).embed(made.encoder())


def audited() -> audit.Report:
    """Audit a model with such classes and concepts."""
    X, y = request()["valid"]
    shown = np.stack([y == 1, y == 2, y % 2 == 0, X.mean(dim=(1, 2, 3)) > 0.3], axis=1)
    return audit.audit(
        forgot.model(),
        forgot.model(),
        forget=request()["forget"],
        retain=request()["retain"],
        test=(X, y),
        concepts=(shown, NAMES),
        class_names=NAMES[::-1],
        relearn=False,
        bits=(),
    )


def traced() -> audit.ConceptTrace:
    """Look for concepts of such names in the model itself."""
    found, X = craft(), images()
    return audit.trace_concepts(
        found, found.split.model, X, np.arange(len(X)) % 2, [1], method="upsample", n_maps=2
    )


def known_by() -> model_concepts.ModelConcepts:
    """Say what a class is known by."""
    return model_concepts.ModelConcepts(
        classes=[1],
        names=NAMES,
        contrast=np.array([[2.0, -1.0, 0.5, 0.0]]),
        attribution=np.ones((1, 4)),
        frequency=np.ones((1, 4)),
        selected=[[0, 1]],
        stable=[[True, True]],
        fidelity=0.97,
        min_fidelity=0.9,
        refused=False,
        reason=HOSTILE,
    )


def unlearned() -> UnlearnResult:
    """Give a result whose certificate says such things."""
    found = forgot.forgotten()
    certificate = {**found.certificate, "method": HOSTILE, "stopped": HOSTILE}
    return UnlearnResult(found.model, found.history, certificate, {"concepts": NAMES})


@cache
def removal() -> RemovalReport:
    """Judge a remover of such a name."""
    grey = CallableRemover(lambda x, masks, seed: 0 * x + 0.5, name=HOSTILE)
    data = SceneRemovals(("star",), n=12, size=32, random_state=0)
    return RemovalBenchmark(_colours, n_min=12, n_bootstrap=5).run(data, [grey])


def _colours(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=(2, 3))


def forgotten_in_a_generator() -> GanReport:
    """Report on a target of such a name."""
    report = GanReport(
        {f"judge: removed {HOSTILE}": 0.9, "guide: removed": 0.8, "degree, guide": 0.7},
        {
            "targets": [HOSTILE],
            "n": 3,
            "seed": 0,
            "scores": {HOSTILE: features(1, 9)[0], "after": features(1, 9)[0]},
        },
        {HOSTILE: images(2), "after": images(2)},
        [HOSTILE],
        {"versions": {HOSTILE: HOSTILE}},
    )
    return report.add(HOSTILE, {"back": 0.1})


REPORTS: dict[type, Callable[[], Any]] = {
    BankAudit: lambda: vocabulary.audit(texts(), made.encoder()),
    BottleneckReport: lambda: evaluate(
        bottleneck(),
        judged.outputs(40),
        labels()[:40],
        judged.shown(40),
        n_random=1,
        n_permutations=1,
    ),
    ClassConcepts: texts,
    ConceptBank: bank,
    Contributions: lambda: bottleneck().explain(judged.outputs(5)),
    Explanation: explanation,
    FaithfulnessReport: made.faithful,
    FilterReport: lambda: filter_concepts(NAMES, lambda names: {HOSTILE: HOSTILE}),
    GanReport: forgotten_in_a_generator,
    Importance: lambda: craft().importance_,
    Intervention: lambda: bottleneck().intervene(judged.outputs(5), {HOSTILE: np.ones(5)}),
    InterventionCurve: lambda: bottleneck().intervention_curve(
        judged.outputs(40), judged.shown(40), labels()[:40], budget=2
    ),
    LeakageScores: lambda: measure_leakage(
        judged.outputs(40), judged.shown(40), labels()[:40], n_permutations=1, concept_names=NAMES
    ),
    RankSelection: lambda: select_rank(features(24, 8), [1, 2], n_fits=2, random_state=0),
    RemovalReport: removal,
    SoftmaxPath: lambda: judged.sparse_head().path_,
    StabilityReport: lambda: stability(
        NMFConcepts(2), features(20, 5), n_repeats=2, n_null=3, random_state=0
    ),
    UnlearnResult: unlearned,
    ZeroShotExplanation: lambda: BayesianZeroShot(texts()).fit().explain(features(3, 5)),
    audit.ConceptTrace: traced,
    audit.Report: audited,
    model_concepts.ModelConcepts: known_by,
}
"""What has a view of its own in a notebook, and how to make one quickly."""

NUMBERS = {
    FaithfulnessReport,
    Importance,
    InterventionCurve,
    LeakageScores,
    RankSelection,
    SoftmaxPath,
    StabilityReport,
}
"""Views of numbers alone; no name of a user is in them."""

SAVED: dict[type, Callable[[], Any]] = {
    **{
        type(estimator): lambda estimator=estimator: fitted(estimator)  # type: ignore[misc]
        for estimator in feature_estimators()
        if hasattr(estimator, "load")
    },
    **{k: v for k, v in REPORTS.items() if hasattr(k, "load")},
    BayesianZeroShot: lambda: BayesianZeroShot(texts()).fit(),
    CRAFT: craft,
    ClassConcepts: texts,
    FeatureStatistics: lambda: FeatureStatistics().update(features()),
    PostHocCBM: bottleneck,
    ShardedEnsemble: forgot.ensemble,
    SparseLinearHead: judged.sparse_head,
}
"""What is saved to a folder."""
