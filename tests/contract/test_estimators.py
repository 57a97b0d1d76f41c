"""What every estimator keeps: scikit-learn's contract, and ours on top."""

import copy

import numpy as np
import pytest
import torch
from exceptions import SKLEARN_CHECKS
from instances import (
    all_estimators,
    answer,
    extractors,
    feature_estimators,
    features,
    fitted,
    images,
    name_of,
    small_model,
    small_split,
    without_instance,
)
from sklearn.base import clone, is_classifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from conceptlab.extractors import ConceptExtractor

FEATURE = feature_estimators()
EXTRACTORS = extractors()
TRANSFORMERS = [estimator for estimator in FEATURE if hasattr(estimator, "transform")]
ALL = all_estimators()
KINDS = {
    "numpy float32": (np.float32, 1e-4),
    "numpy float64": (np.float64, 1e-9),
    "torch float32": (torch.float32, 1e-4),
    "torch float64": (torch.float64, 1e-9),
    "torch bfloat16": (torch.bfloat16, 0.1),
}
each_feature = pytest.mark.parametrize("estimator", FEATURE, ids=name_of)
each_transformer = pytest.mark.parametrize("estimator", TRANSFORMERS, ids=name_of)
each_extractor = pytest.mark.parametrize("estimator", EXTRACTORS, ids=name_of)
each = pytest.mark.parametrize("estimator", ALL, ids=name_of)


def cast(X, kind):
    dtype = KINDS[kind][0]
    return X.astype(dtype) if kind.startswith("numpy") else torch.tensor(X, dtype=dtype)


def state_of(estimator):
    """Fitted arrays, for comparison bit by bit."""
    return {
        key: np.asarray(value)
        for key, value in vars(estimator).items()
        if key.endswith("_") and isinstance(value, np.ndarray | float | int)
    }


def same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[key], b[key], equal_nan=a[key].dtype.kind == "f") for key in a
    )


def test_every_public_estimator_is_under_contract():
    assert without_instance() == [], "add them to tests/contract/instances.py"
    assert FEATURE
    assert len(ALL) > len(FEATURE)


@parametrize_with_checks(
    [e for e in FEATURE if not isinstance(e, ConceptExtractor)],
    expected_failed_checks=lambda est: SKLEARN_CHECKS.get(name_of(est), {}),
)
def test_scikit_learn(estimator, check):
    check(estimator)


# ------------------------------------------------------------------ arrays
@each_transformer
@pytest.mark.parametrize("kind", KINDS)
def test_like_in_like_out(estimator, kind):
    X = features()
    model = fitted(estimator)
    given = cast(X, kind)
    U = model.transform(given)
    assert type(U) is type(given)
    assert U.dtype == given.dtype
    assert tuple(U.shape) == (len(X), len(model.get_feature_names_out()))
    if hasattr(model, "inverse_transform"):
        again = model.inverse_transform(U)
        assert type(again) is type(given)
        assert again.dtype == given.dtype
    expected = model.transform(X)
    scale = np.abs(expected).max()
    found = U.double().numpy() if isinstance(U, torch.Tensor) else U
    np.testing.assert_allclose(found, expected, atol=KINDS[kind][1] * scale)


@pytest.mark.parametrize("estimator", [e for e in FEATURE if is_classifier(e)], ids=name_of)
@pytest.mark.parametrize("kind", ["numpy float32", "torch bfloat16"])
def test_classifiers_take_every_kind_and_answer_in_it(estimator, kind):
    X, y = cast(features(), kind), np.arange(len(features())) % 3
    model = clone(estimator).fit(X, torch.tensor(y) if kind.startswith("torch") else y)
    assert [key for key, value in vars(model).items() if isinstance(value, torch.Tensor)] == []
    assert isinstance(model.predict(X), np.ndarray)
    for name in ("predict_proba", "predict_log_proba", "decision_function", "predict_concepts"):
        if hasattr(model, name):
            found = getattr(model, name)(X)
            assert type(found) is type(X), name
            assert found.dtype == X.dtype, name


@each_extractor
@pytest.mark.parametrize("kind", KINDS)
def test_fits_every_kind_and_keeps_numpy(estimator, kind):
    model = fitted(estimator, cast(features(), kind))
    assert isinstance(model.components_, np.ndarray)
    assert model.components_.shape == (model.n_concepts_, features().shape[1])
    tensors = [key for key, value in vars(model).items() if isinstance(value, torch.Tensor)]
    assert tensors == []


@each_feature
def test_a_row_does_not_depend_on_its_batch(estimator):
    X = features()
    model = fitted(estimator)
    alone = np.concatenate([answer(model, X[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(alone, answer(model, X)[:8], rtol=1e-9, atol=1e-12)


@each_extractor
def test_module_computes_the_same_and_has_a_gradient(estimator):
    X = torch.tensor(features())
    model = fitted(estimator)
    module = model.as_module().double()
    rows = X.clone().requires_grad_()
    U = module(rows)
    np.testing.assert_allclose(U.detach().numpy(), model.transform(X.numpy()), atol=1e-8)
    grid = module(X.reshape(5, 8, -1))
    assert torch.equal(grid.reshape(U.shape), module(X))
    if U.requires_grad:
        U.sum().backward()
        assert torch.isfinite(rows.grad).all()


# ------------------------------------------------------------------- seeds
@each_feature
def test_same_seed_same_bits(estimator):
    assert same(state_of(fitted(estimator)), state_of(fitted(estimator)))


@each_feature
def test_global_state_and_input_are_untouched(estimator, global_state_untouched):
    for kind in ("numpy float64", "torch float32"):
        X = cast(features(), kind)
        before = copy.deepcopy(X)
        model = fitted(estimator, X)
        U = answer(model, X)
        kept = copy.deepcopy(U)
        if hasattr(model, "inverse_transform"):
            model.inverse_transform(U)
        assert bool((before == X).all())
        assert bool((kept == U).all())


@each_extractor
def test_seed_is_recorded_and_gives_the_fit_again(estimator):
    if "random_state" not in estimator.get_params():
        pytest.skip("nothing random in it")
    first = clone(estimator).set_params(random_state=None).fit(features())
    again = clone(estimator).set_params(random_state=first.seed_).fit(features())
    assert np.array_equal(first.components_, again.components_)


# ------------------------------------------------------------------- files
@each_extractor
def test_loaded_estimator_is_like_the_saved_one(estimator, tmp_path):
    model = fitted(estimator)
    assert model.save(tmp_path / "saved") == tmp_path / "saved"
    again = type(model).load(tmp_path / "saved")
    assert repr(again) == repr(model)
    assert same(state_of(again), state_of(model))
    assert again.fingerprint == model.fingerprint


# ------------------------------------------------------- clone, repr, views
@each
def test_clone_keeps_parameters_and_shares_what_is_heavy(estimator):
    copied = clone(estimator)
    assert copied is not estimator
    for name, value in estimator.get_params(deep=False).items():
        other = getattr(copied, name)
        if isinstance(value, int | float | str | bool | type(None) | tuple):
            assert other == value, name
    assert type(copied)(**copied.get_params(deep=False)).get_params().keys() == (
        copied.get_params().keys()
    )
    if "split" in estimator.get_params():
        assert copied.split is estimator.split


@each
def test_repr_names_the_class_and_is_short(estimator):
    text = repr(estimator)
    assert text.startswith(type(estimator).__name__ + "(")
    assert len(text) < 2000


@each
def test_html_view_is_escaped(estimator):
    strings = [k for k, v in estimator.get_params(deep=False).items() if isinstance(v, str)]
    target = clone(estimator)
    for name in strings:
        setattr(target, name, "<script>alert(1)</script>")
    html = target._repr_html_()
    assert type(estimator).__name__ in html
    assert "<script>alert(1)" not in html


@each
def test_constructor_stores_what_it_gets(estimator):
    marks = {name: object() for name in estimator.get_params(deep=False)}
    made = type(estimator)(**marks)
    assert all(getattr(made, name) is mark for name, mark in marks.items())


# ---------------------------------------------------- image-level estimators
def craft():
    return next(estimator for estimator in ALL if name_of(estimator) == "CRAFT")


def test_craft_same_seed_same_bits(global_state_untouched):
    x = images()
    kept = x.copy()
    first, second = (clone(craft()).fit(x, target=0) for _ in range(2))
    assert np.array_equal(first.components_, second.components_)
    assert np.array_equal(first.importances_, second.importances_)
    assert np.array_equal(first.maps(x[:2]), second.maps(x[:2]))
    assert np.array_equal(x, kept)


def test_craft_like_in_like_out():
    model = clone(craft()).fit(images(), target=None)
    U = model.transform(images())
    assert isinstance(U, np.ndarray)
    tensor = model.transform(torch.from_numpy(images()))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), U, atol=1e-6)


def test_craft_leaves_the_model_as_it_was():
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    try:
        fresh = clone(craft()).fit(images(), target=0)
        fresh.explain(images(3), target=0, patch_images=images())
        assert model.training
        assert all(not module._forward_hooks for module in model.modules())
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        with pytest.raises(ValueError, match=r"\[CL-INPUT-TARGET\]"):
            clone(craft()).fit(images(), target=99)
        assert model.training
        assert all(not module._forward_hooks for module in model.modules())
    finally:
        model.eval()


def test_craft_loads_to_the_same_bits(tmp_path):
    model = clone(craft()).fit(images(), target=0)
    model.save(tmp_path / "craft")
    again = type(model).load(tmp_path / "craft", small_split())
    assert np.array_equal(again.transform(images()), model.transform(images()))
    assert np.array_equal(again.importances_, model.importances_)
    assert str(again.tree_) == str(model.tree_)
