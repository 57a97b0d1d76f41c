"""SparseCBM: what each mode keeps, and what bad input is told."""

import numpy as np
import pytest
import torch
from planted_concepts import bank_of, planted
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bottlenecks import Bottleneck, SparseCBM
from conceptlab.errors import CheckpointError, InputError, SpaceMismatchError

OURS = ("anchored", "contrastive", "l1")
S, Y, TRUTH, TABLE = planted()
FAST = {"max_epochs": 8, "random_state": 0}
each_mode = pytest.mark.parametrize("mode", OURS)


def fitted(**options):
    return SparseCBM(**{**FAST, **options}).fit(S, Y)


# ------------------------------------------------------------- what is promised
@each_mode
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8])
def test_share_of_zeros_is_what_was_asked_for(mode, sparsity):
    model = fitted(mode=mode, sparsity=sparsity, head="dense")
    A = model.predict_concepts(S)
    assert (A == 0).sum() == np.ceil(sparsity * A.size)
    assert model.sparsity_ == (A == 0).mean()
    assert (A >= 0).all()


@each_mode
def test_output_j_depends_on_score_j_only_and_never_falls(mode):
    model = fitted(mode=mode, nec=2)
    base = model.predict_concepts(S[:1])
    for j in (0, 5):
        grid = np.repeat(S[:1], 9, axis=0)
        grid[:, j] = np.linspace(S[:, j].min(), S[:, j].max(), 9)
        A = model.predict_concepts(grid)
        assert (np.delete(A, j, axis=1) == np.delete(base, j, axis=1)).all()
        assert (np.diff(A[:, j]) >= 0).all()
        assert A[-1, j] > A[0, j]


@each_mode
def test_mean_number_of_concepts_is_exact_and_finds_the_signatures(mode):
    model = fitted(mode=mode, nec=2)
    assert model.nec_ == 2
    assert ((model.coef_ > 0) == TABLE).all()
    assert model.score(S, Y) > 0.85


def test_thresholds_are_learned_but_for_a_strong_anchor():
    free, held = (fitted(sparsity=0.7, anchor=a, max_epochs=30) for a in (0.1, 1e4))
    used, unused = TABLE.any(axis=0), ~TABLE.any(axis=0)
    assert np.ptp(held.threshold_) < 1e-2
    assert free.threshold_[used].mean() < free.threshold_[unused].mean() - 0.1


def test_learned_thresholds_beat_a_common_one_where_few_gates_may_open():
    test, y, *_ = planted(seed=9)
    free, held = (
        fitted(sparsity=0.8, anchor=a, max_epochs=30, head="dense").score(test, y)
        for a in (1.0, 1e4)
    )
    assert free > held


def test_contrastive_positives_come_from_the_table():
    by_default = fitted(mode="contrastive", n_positives=2)
    assert (by_default.positives_ == TABLE).all()
    names = {c: [f"concept{j}" for j in np.flatnonzero(row)] for c, row in enumerate(TABLE)}
    named, array = (fitted(mode="contrastive", class_concepts=t) for t in (names, TABLE))
    assert (named.positives_ == TABLE).all()
    assert np.array_equal(named.threshold_, array.threshold_)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("mode", ["anchored", "contrastive"])
def test_losses_are_finite_hard_or_soft_at_low_temperature(mode, hard):
    model = fitted(mode=mode, hard=hard, temperature=(0.1, 0.01))
    assert np.isfinite(model.history_["loss"]).all()
    assert np.isfinite(model.coef_).all()
    np.testing.assert_allclose(model.history_["temperature"][::7], [0.1, 0.01])


@each_mode
def test_same_seed_same_bits_another_seed_another_fit(mode):
    a, b, c = (fitted(mode=mode, random_state=seed) for seed in (3, 3, 4))
    assert np.array_equal(a.threshold_, b.threshold_)
    assert not np.array_equal(a.threshold_, c.threshold_)
    assert a.seed_ == 3


def test_a_model_can_be_fitted_again_in_another_mode():
    model = fitted(mode="reference")
    model.set_params(mode="anchored").fit(S, Y)
    fresh = fitted(mode="anchored")
    assert not hasattr(model, "concept_map_")
    assert np.array_equal(model.predict_proba(S), fresh.predict_proba(S))


@pytest.mark.parametrize("loss", ["gumbel", "contrastive", "l1"])
def test_reference_is_a_dense_linear_map_and_names_say_nothing(loss):
    model = fitted(mode="reference", reference_loss=loss, max_epochs=3)
    A = model.predict_concepts(S)
    np.testing.assert_allclose(A, S @ model.concept_map_.T)
    assert model.sparsity_ == 0
    assert model.nec_ == 12


def test_reference_takes_a_sparse_head_where_one_is_asked_for():
    model = fitted(mode="reference", lam=0.02, max_epochs=1)
    assert 0 < model.nec_ < 12


def test_common_scale_keeps_a_concept_that_hardly_varies_small():
    scores = S.copy()
    leak = TRUTH[:, 0] + 0.1 * np.random.default_rng(0).normal(size=len(S))
    scores[:, 11] = 0.2 + 1e-3 * leak  # nobody has concept 11; it leaks a little of concept 0
    common, own = (
        SparseCBM(scale=scale, nec=2, **FAST).fit(scores, Y) for scale in ("common", "concept")
    )
    assert ((common.coef_ > 0) == TABLE).all()
    assert own.coef_[0, 11] > 0
    assert (common.coef_[:, 11] == 0).all()
    assert np.ptp(common.score_scale_) == 0


# ------------------------------------------------------------- banks, arrays, files
def test_a_bank_scores_the_features():
    bank = bank_of()
    X = S @ bank.vectors
    by_bank = SparseCBM(bank, nec=2, **FAST).fit(X, Y)
    by_scores = fitted(nec=2, scale="common")
    assert by_bank.concept_names_ == list(bank.names)
    np.testing.assert_allclose(by_bank.predict_proba(X), by_scores.predict_proba(S), atol=1e-6)
    assert by_bank.active_concepts_ == [f"word {j}" for j in np.flatnonzero(TABLE.any(axis=0))]


@pytest.mark.parametrize("head", ["sparse", "dense"])
def test_fits_tensors_as_arrays_and_leaves_them_alone(head):
    given = torch.tensor(S)
    by_tensor = SparseCBM(head=head, **FAST).fit(given, torch.tensor(Y))
    assert torch.equal(given, torch.tensor(S))
    np.testing.assert_allclose(by_tensor.coef_, fitted(head=head).coef_, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_like_in_like_out(dtype):
    model = fitted(nec=2)
    given = torch.tensor(S, dtype=dtype)
    for answer in (model.predict_concepts(given), model.predict_proba(given)):
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == dtype
    assert isinstance(model.predict(given), np.ndarray)
    assert isinstance(model.predict_proba(S.astype(np.float32)), np.ndarray)
    assert model.predict_proba(S.astype(np.float32)).dtype == np.float32


def test_names_come_from_the_columns_of_a_table():
    import pandas as pd

    frame = pd.DataFrame(S, columns=[f"c{j}" for j in range(S.shape[1])])
    model = SparseCBM(nec=2, **FAST).fit(frame, Y)
    assert model.concept_names_[:2] == ["c0", "c1"]
    assert set(model.to_frame()["concept"]) == set(model.active_concepts_)


@pytest.mark.parametrize("mode", [*OURS, "reference"])
def test_loaded_model_answers_with_the_same_bits(mode, tmp_path):
    bank = bank_of()
    labels = np.array(["ant", "bee", "cow", "doe", "eel"])[Y]
    names = {str(c): ["word 0"] for c in np.unique(labels)} if mode == "contrastive" else None
    X = S @ bank.vectors
    model = SparseCBM(bank, mode=mode, class_concepts=names, **FAST).fit(X, labels)
    model.save(tmp_path / "model")
    for again in (Bottleneck.load(tmp_path / "model"), SparseCBM.load(tmp_path / "model")):
        assert type(again) is SparseCBM
        assert np.array_equal(again.decision_function(X), model.decision_function(X))
        assert np.array_equal(again.predict_concepts(X), model.predict_concepts(X))
        assert again.predict(X).tolist() == model.predict(X).tolist()
        assert again.bank == bank
        assert repr(again) == repr(model)
        assert np.array_equal(clone(again).fit(X, labels).coef_, model.coef_)


def test_load_refuses_what_is_no_bottleneck(tmp_path):
    bank_of().save(tmp_path / "bank")
    with pytest.raises(CheckpointError, match="holds a 'ConceptBank', expected a Bottleneck"):
        Bottleneck.load(tmp_path / "bank")
    with pytest.raises(CheckpointError, match="expected a 'SparseCBM'"):
        SparseCBM.load(tmp_path / "bank")


# ------------------------------------------------------------- bad input, by message
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "anchord"}, "Unknown mode 'anchord'. Did you mean 'anchored'"),
        ({"scale": "own"}, "Unknown scale 'own'"),
        ({"head": "spars"}, "Unknown head 'spars'"),
        ({"reference_loss": "l2"}, "Unknown reference_loss 'l2'"),
        ({"sparsity": 1.0}, "sparsity must be a number of at least 0 and below 1, got 1.0"),
        ({"sparsity": "many"}, "sparsity must be a number"),
        ({"anchor": -1}, "anchor must be a number of at least 0"),
        ({"temperature": (1.0, 0.0)}, "temperature must be a number above 0"),
        ({"temperature": "hot"}, "temperature must be a number above 0"),
        ({"lam": -0.1}, "lam must be a number of at least 0, got -0.1"),
        ({"nec": 13}, "nec=13 asks for more concepts a class than the 12"),
        ({"nec": 2, "head": "dense"}, "nec bounds the concepts of a sparse head"),
        ({"nec": 2, "lam": 0.1}, "lam"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"bank": "red, round"}, "bank must be a ConceptBank or None, got str"),
        ({"mode": "contrastive", "class_concepts": {9: ["concept0"]}}, "Unknown class 9"),
        (
            {"mode": "contrastive", "class_concepts": {0: ["concpt1"]}},
            "Unknown concept 'concpt1'. Did you mean 'concept1'",
        ),
        (
            {"mode": "contrastive", "class_concepts": {0: ["concept1"]}},
            r"4 class\(es\) have no concepts in class_concepts: \['1'",
        ),
        ({"mode": "contrastive", "class_concepts": {0: "concept1"}}, "must be a list of concepts"),
        ({"mode": "contrastive", "class_concepts": TABLE[:2]}, "got bool of shape"),
    ],
)
def test_bad_parameters(options, text):
    with pytest.raises(InputError, match=text):
        fitted(**options)


def test_bad_data():
    holes, flat = S.copy(), S.copy()
    holes[3, 4] = np.nan
    flat[:, 2] = 0.5
    model = SparseCBM(**FAST)
    with pytest.raises(InputError, match=r"X contains NaN: 1 of 7200 .* index \(3, 4\)"):
        model.fit(holes, Y)
    with pytest.raises(InputError, match=r"same score in all 600 rows.*\['concept2'\]"):
        model.fit(flat, Y)
    with pytest.raises(InputError, match=r"at least two classes, got 1 class: \[0.0\]"):
        model.fit(S, np.zeros(len(S)))
    with pytest.raises(InputError, match="requires y to be passed"):
        model.fit(S)
    with pytest.raises(InputError, match=r"\[CL-INPUT-LABELS\]"):
        model.fit(S, Y[:-1])
    with pytest.raises(NotFittedError):
        model.predict_concepts(S)
    with pytest.raises(NotFittedError):
        model.intervene(S, {"concept0": True})


def test_bank_of_another_encoder():
    bank = bank_of()
    X = S @ bank.vectors
    with pytest.raises(InputError, match="X has 12 features, but the vectors of the bank"):
        SparseCBM(bank).fit(S, Y)
    with pytest.raises(SpaceMismatchError, match="space space-a.* but space-b"):
        SparseCBM(bank, **FAST).fit(X, Y, space="space-b")
    model = SparseCBM(bank, **FAST).fit(X, Y, space="space-a")
    model.check_space("space-a")
    with pytest.raises(SpaceMismatchError, match="fitted on features of space space-a"):
        model.check_space("space-b")
