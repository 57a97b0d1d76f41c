"""An answer on a row depends on neither its batch nor its place; one on a set on no order.

Bits where the documentation promises them; else the tolerance that it states: 1e-5 of the
largest entry where a float32 model or encoder runs, and rounding of float64 where none does.
"""

import copy
import inspect
from dataclasses import replace

import cases_bottlenecks  # noqa: F401
import cases_conceptlab as made
import cases_unlearning  # noqa: F401
import numpy as np
import pytest
import torch
from answers import far, same
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import answer, feature_estimators, features, fitted, images, name_of
from sklearn.base import is_classifier

from attribution import ConceptGradients
from conceptlab import EncodeImages, SobolImportance

pytestmark = pytest.mark.filterwarnings("ignore")
FLOAT32, FLOAT64 = 1e-5, 1e-9

_BIHARMONIC = "unlearning.removal.removers.biharmonic"
ROWS = {
    "bottlenecks.base.Bottleneck.predict_concepts": (1,),
    "bottlenecks.projection.Projection.__call__": (1,),
    "bottlenecks.search.ConceptMatrixSearch.decision_function": (1,),
    "bottlenecks.search.ConceptMatrixSearch.predict": (1,),
    "bottlenecks.search.ConceptMatrixSearch.predict_concepts": (1,),
    "bottlenecks.targets.Predicting.decision_function": (1,),
    "bottlenecks.targets.Predicting.decision_function[head]": (1,),
    "bottlenecks.targets.Predicting.predict": (1,),
    "bottlenecks.targets.Predicting.predict[head]": (1,),
    "bottlenecks.targets.Predicting.predict_proba": (1,),
    "bottlenecks.targets.Predicting.predict_proba[head]": (1,),
    "conceptlab.arrays.as_numpy": (0,),
    "conceptlab.arrays.as_tensor": (0,),
    "conceptlab.bank.core.ConceptBank.score": (1,),
    "conceptlab.bank.core.ConceptBank.score[cosine]": (1,),
    "conceptlab.batching.run_batched": (1,),
    "conceptlab.datasets.images.as_image_batch": (0,),
    "conceptlab.encoders.base.BaseEncoder.encode_image": (1,),
    "conceptlab.encoders.cache.EmbeddingCache.encode_image": (2,),
    "conceptlab.encoders.open_clip.OpenClipEncoder.encode_maps": (1,),
    "conceptlab.encoders.preprocess.Preprocess.__call__": (1,),
    "conceptlab.encoders.preprocess.Preprocess.tensor": (1,),
    "conceptlab.encoders.step.EncodeImages.transform": (1,),
    "conceptlab.extractors.coding.nnls": (0,),
    "conceptlab.extractors.craft.estimator.CRAFT.maps": (1,),
    "conceptlab.extractors.craft.estimator.CRAFT.transform": (1,),
    "conceptlab.importance.head.HeadOnCoefficients.__call__": (1,),
    "conceptlab.importance.head.HeadOnCoefficients.decode": (1,),
    "conceptlab.maps.concept.concept_maps[implicit]": (2,),
    "conceptlab.maps.concept.concept_maps[occlusion]": (2,),
    "conceptlab.maps.concept.concept_maps[rise]": (2,),
    "conceptlab.maps.concept.concept_maps[upsample]": (2,),
    "conceptlab.maps.scores.energy_pointing": (0, 1),
    "conceptlab.maps.scores.pointing_game": (0, 1),
    "conceptlab.models.load.Normalize.forward": (1,),
    "conceptlab.models.split.SplitModel.f": (1,),
    "conceptlab.models.split.SplitModel.from_positions": (1,),
    "conceptlab.models.split.SplitModel.g": (1,),
    "conceptlab.models.split.SplitModel.h": (1,),
    "conceptlab.models.split.SplitModel.predict": (1,),
    "conceptlab.models.split.SplitModel.spatial": (1,),
    "conceptlab.models.split.SplitModel.to_positions": (1,),
    "conceptlab.zeroshot.estimator.BayesianZeroShot.concept_posterior": (1,),
    "conceptlab.zeroshot.estimator.BayesianZeroShot.decision_function": (1,),
    "conceptlab.zeroshot.estimator.BayesianZeroShot.predict": (1,),
    "conceptlab.zeroshot.estimator.BayesianZeroShot.predict_proba": (1,),
    "unlearning.audit.divergence.js_divergence": (0, 1),
    "unlearning.audit.membership.modified_entropy": (0, 1),
    "unlearning.classes.sharding.ensemble.ShardedEnsemble.predict": (1,),
    "unlearning.classes.sharding.ensemble.ShardedEnsemble.predict_proba": (1,),
    "unlearning.heads.features_and_logits": (1,),
    "unlearning.removal.paired.Lpips.forward": (1, 2),
    "unlearning.removal.paired.Lpips.inside": (1, 2, 3),
    "unlearning.removal.paired.psnr": (0, 1),
    "unlearning.removal.paired.ssim": (0, 1),
    "unlearning.removal.removers.base.CallableRemover.remove": (1, 2),
    "unlearning.removal.removers.base.RemoverSetup.run": (1, 2),
    "unlearning.removal.removers.controls.Oracle.remove": (1, 2, 4),
    "unlearning.removal.removers.simple.GaussianBlur.remove[blur]": (1, 2),
    "unlearning.removal.removers.simple.MeanFill.remove[mean_fill]": (1, 2),
    "unlearning.removal.removers.simple.Nothing.remove[nothing]": (1, 2),
    "unlearning.removal.coherence.removal_coherence": (0, 1),
    "unlearning.removal.surroundings.remove_score": (0, 1),
    **{name: (0,) for name in CASES if name.startswith("conceptlab.zeroshot.pooling.")},
    **{
        name: (1, 2)
        for name in CASES
        if "[" in name and name.startswith(("unlearning.removal.removers.opencv", _BIHARMONIC))
    },
    **{name: (1,) for name in CASES if name.startswith("attribution.gradients.") and "[" in name},
}
"""Cases that answer row by row, and which arguments hold the rows."""

BITS = {
    "conceptlab.extractors.coding.nnls": "the codes do not depend on the batch",
    "conceptlab.maps.scores.energy_pointing": "counts one map at a time",
    "conceptlab.maps.scores.pointing_game": "counts one map at a time",
    "unlearning.removal.removers.base.RemoverSetup.run": "rounded to 8 bits, seeds by image",
}
"""Row by row to the bit."""

SETS = {
    "attribution.faithfulness.gini": (0,),
    "attribution.faithfulness.hoyer": (0,),
    "bottlenecks.heads.objective.number_of_effective_concepts": (0,),
    "bottlenecks.leakage.interconcept_leakage": (0, 1),
    "bottlenecks.leakage.oracle_impurity": (0, 1),
    "bottlenecks.measures.auc_matrix": (0, 1),
    "bottlenecks.measures.name_fidelity": (0, 1),
    "bottlenecks.measures.number_of_contributing_concepts": (0,),
    "bottlenecks.projection.cos_cubed_similarity": (0, 1),
    "bottlenecks.submodular.class_similarity": (0, 1),
    "bottlenecks.submodular.concept_discriminability": (0,),
    "conceptlab.zeroshot.calibration.calibration_error": (0, 1),
    "unlearning.audit.concept_level.concept_surrogate": (0, 1, 2),
    "unlearning.audit.concept_level.find_class_concepts": (0, 1),
    "unlearning.audit.divergence.activation_distance": (0, 1),
    "unlearning.audit.divergence.agreement": (0, 1),
    "unlearning.audit.divergence.zero_retrain_forgetting": (0, 1),
    "unlearning.audit.membership.member_share": (0,),
    "unlearning.audit.membership.non_member_share": (0,),
    "unlearning.gan.gamma.degree_of_unlearning": (0,),
    "unlearning.gan.losses.directional_loss": (0, 1),
    "unlearning.gan.losses.identity_loss": (0, 1),
    "unlearning.gan.losses.margin_loss": (0,),
    "unlearning.gan.losses.perceptual_loss": (0, 1),
    "unlearning.gan.losses.retain_divergence": (0, 1),
    "unlearning.distances.bias.null_bias": (0,),
    "unlearning.removal.concept_shift.concept_fid": (0,),
    "unlearning.distances.fid.frechet_distance": (0,),
    "unlearning.distances.ids.p_ids": (0, 1),
    "unlearning.distances.ids.u_ids": (0,),
    "unlearning.distances.kernels.cmmd": (0,),
    "unlearning.distances.kernels.kid": (0,),
}
"""Cases whose answer is about a set, and which arguments are put in another order together."""

FLOAT32_MODELS = (
    "conceptlab.extractors.craft.estimator",
    "conceptlab.models",
    "conceptlab.maps.concept",
    "conceptlab.encoders",
    "conceptlab.importance.head",
    "conceptlab.importance.sufficiency",
    "attribution.gradients",
    "unlearning.heads",
    "unlearning.classes",
    "unlearning.removal.paired",
    "unlearning.removal.removers",
    "conceptlab.zeroshot.estimator",
)


def tolerance_of(name):
    return FLOAT32 if name.startswith(FLOAT32_MODELS) else FLOAT64


def take(call, where, rows):
    """The same call on some of its rows, in that order."""
    args = list(call.args)
    for place in where:
        values = args[place]
        kept = isinstance(values, np.ndarray | torch.Tensor)
        args[place] = values[rows] if kept else [values[row] for row in rows]
    return replace(call, args=tuple(args))


def parts(found):
    return found if isinstance(found, tuple) else (found,)


def check(name, found, expected):
    if name in BITS:
        assert same(found, expected) == [], BITS[name]
    else:
        assert far(found, expected, tolerance_of(name)) == []


def orders(draw, n):
    return np.array(draw.draw(st.permutations(range(n))))


@pytest.mark.parametrize("name", sorted(ROWS))
@settings(max_examples=4)
@given(draw=st.data())
def test_rows_do_not_depend_on_batch_and_place(name, draw):
    call, where = CASES[name].call(), ROWS[name]
    n = len(call.args[where[0]])
    expected = parts(call())
    order, cut = orders(draw, n), draw.draw(st.integers(1, n - 1))
    moved = parts(take(call, where, order)())
    pieces = [parts(take(call, where, rows)()) for rows in (order[:cut], order[cut:])]
    join = torch.cat if isinstance(expected[0], torch.Tensor) else np.concatenate
    for number, whole in enumerate(expected):
        check(name, moved[number], whole[order])
        check(name, join([piece[number] for piece in pieces]), whole[order])


@pytest.mark.parametrize("name", sorted(SETS))
@settings(max_examples=4)
@given(draw=st.data())
def test_sets_have_no_order(name, draw):
    call, where = CASES[name].call(), SETS[name]
    order = orders(draw, len(call.args[where[0]]))
    assert far(take(call, where, order)(), call(), 1e-8) == []


BATCHED = sorted(
    name
    for name, case in CASES.items()
    if "batch_size" in inspect.signature(case.function).parameters
    and not name.startswith(("unlearning.audit", "unlearning.gan", "conceptlab.batching.check"))
    and not name.endswith("iter_batches")  # gives the batches themselves
)


@pytest.mark.parametrize("name", BATCHED)
@settings(max_examples=3)
@given(size=st.integers(1, 7))
def test_answers_do_not_depend_on_the_size_of_batches(name, size):
    call = CASES[name].call()
    found = replace(call, kwargs={**call.kwargs, "batch_size": size})()
    check(name, found, call())


ESTIMATORS = feature_estimators()
FITTED: dict = {}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
@settings(max_examples=4)
@given(draw=st.data())
def test_estimators_answer_row_by_row(estimator, draw):
    X = features(24)
    if id(estimator) not in FITTED:  # once for all examples
        FITTED[id(estimator)] = fitted(estimator)
    model = FITTED[id(estimator)]
    expected = answer(model, X)
    order, cut = orders(draw, len(X)), draw.draw(st.integers(1, len(X) - 1))
    scale = np.abs(expected).max()
    pieces = np.concatenate([answer(model, X[order[:cut]]), answer(model, X[order[cut:]])])
    np.testing.assert_allclose(pieces, expected[order], rtol=0, atol=1e-9 * scale)
    if is_classifier(model):
        alike = model.predict(X[order]) == model.predict(X)[order]
        best = np.sort(expected[order], axis=1)
        assert (alike | (best[:, -1] - best[:, -2] < 1e-9 * scale)).all()


def by_batches(size):
    """Answers of what is made with a size of batches."""
    craft, x, U = copy.copy(made.fitted_craft()), images(), features(5, 3)
    craft.batch_size = size
    sobol = SobolImportance(n_design=8, n_bootstrap=2, batch_size=size, random_state=0)
    gradients = ConceptGradients(made.split(), made.extractor(), n_steps=3, batch_size=size)
    return {
        "craft": (craft.transform(x), craft.maps(x[:3]), craft.estimate_importance(x).values),
        "encoder": EncodeImages(made.encoder(), batch_size=size).transform(x),
        "sobol": sobol(made.head, U, target=0).values,
        "on coefficients": gradients.coefficients(features(7, 2), target=1),
        "on inputs": gradients.inputs(x, concept=0),
    }


@settings(max_examples=3)
@given(size=st.integers(1, 7))
def test_objects_answer_alike_for_every_size_of_batches(size):
    expected = by_batches("auto")
    for name, found in by_batches(size).items():
        assert far(found, expected[name], FLOAT32) == [], name
