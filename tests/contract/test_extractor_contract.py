"""What every extractor promises, whatever its method."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from instances import extractors as under_contract
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from conceptlab.errors import CheckpointError, InputError
from conceptlab.extractors import (
    ConceptExtractor,
    ConvexNMF,
    ICAConcepts,
    KMeansConcepts,
    NMFConcepts,
    PCAConcepts,
    RandomConcepts,
    SemiNMF,
    SparseAutoencoder,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def extractors(k=2):
    return [
        NMFConcepts(k, random_state=0),
        NMFConcepts(k, l2=0.01, init="random", max_iter=50, random_state=0),
        SemiNMF(k, max_iter=50, random_state=0),
        ConvexNMF(k, max_iter=20, random_state=0),
        PCAConcepts(k, random_state=0),
        ICAConcepts(k, random_state=0),
        KMeansConcepts(k, random_state=0),
        KMeansConcepts(k, assignment="soft", random_state=0),
        RandomConcepts(k, random_state=0),
        SparseAutoencoder(k, lr=0.02, n_steps=60, random_state=0),
        SparseAutoencoder(
            k, activation="l1", dictionary="archetypal", lr=0.02, n_steps=60, random_state=0
        ),
    ]


every = pytest.mark.parametrize("extractor", extractors(3), ids=repr)


def data(n=60, p=12, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.gamma(0.5, size=(n, 4)) @ rng.gamma(0.5, size=(4, p)) + 0.01).astype(dtype)


def test_every_extractor_takes_scikit_learn_s_checks():
    """With more settings than the other estimators, so they are not run there again."""
    assert {type(e) for e in under_contract()} <= {type(e) for e in extractors()}


@parametrize_with_checks(extractors())
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_scikit_learns_checks_with_the_array_api():
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from conceptlab.extractors import NMFConcepts, KMeansConcepts\n"
        "[check_estimator(e) for e in (NMFConcepts(2), KMeansConcepts(2))]"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"SCIPY_ARRAY_API": "1"}
    )


@every
def test_shapes_names_and_decode(extractor):
    A = data()
    model = clone(extractor).fit(A)
    U = model.transform(A)
    assert model.components_.shape == (3, 12)
    assert model.n_concepts_ == 3
    assert U.shape == (60, 3)
    np.testing.assert_array_equal(clone(extractor).fit_transform(A), U)
    expected = U @ model.components_ + getattr(model, "offset_", 0)
    np.testing.assert_allclose(model.inverse_transform(U), expected, atol=1e-12)
    assert list(model.get_feature_names_out()) == [
        f"{type(model).__name__.lower()}{i}" for i in range(3)
    ]
    cube = U.reshape(3, 20, 3)
    np.testing.assert_allclose(model.inverse_transform(cube), expected.reshape(3, 20, 12))
    if not isinstance(model, RandomConcepts):
        centred = np.linalg.norm(A - A.mean(0))
        assert np.linalg.norm(A - model.inverse_transform(U)) < 0.9 * centred


@every
@pytest.mark.parametrize(
    "like",
    [
        lambda A: A,
        lambda A: A.astype(np.float32),
        lambda A: torch.from_numpy(A),
        lambda A: torch.from_numpy(A).float(),
        lambda A: torch.from_numpy(A).bfloat16(),
    ],
    ids=["numpy64", "numpy32", "torch64", "torch32", "bf16"],
)
def test_like_in_like_out(extractor, like):
    A = like(data())
    model = clone(extractor).fit(A)
    U = model.transform(A)
    for out in (U, model.inverse_transform(U)):
        assert type(out) is type(A)
        assert out.dtype == A.dtype
    assert isinstance(model.components_, np.ndarray)
    assert model.components_.dtype == (np.float64 if "64" in str(A.dtype) else np.float32)


@every
def test_module_gives_the_codes_of_transform_for_any_leading_axes(extractor):
    A = data()
    model = clone(extractor).fit(A)
    module = model.as_module()
    codes = module(torch.from_numpy(A).reshape(3, 4, 5, 12))
    np.testing.assert_allclose(codes.reshape(60, 3).numpy(), model.transform(A), atol=1e-9)
    assert module.state_dict(), "the basis is a buffer, so that it moves with the module"
    assert not list(module.parameters())
    for buffer in module.buffers():
        buffer.zero_()
    assert model.components_.any(), "the module shares no memory with the estimator"


@every
def test_module_is_differentiable(extractor):
    if isinstance(extractor, KMeansConcepts) and extractor.assignment == "hard":
        pytest.skip("one-hot codes have no derivative")
    A = data()
    module = clone(extractor).fit(A).as_module()
    rows = torch.from_numpy(A[:5]).requires_grad_()
    v = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3)))
    (vjp,) = torch.autograd.grad(module(rows), rows, v)
    step = 1e-6 * torch.from_numpy(np.random.default_rng(1).normal(size=(5, 12)))
    with torch.no_grad():
        change = (module(rows + step) - module(rows - step)) * v / 2
    torch.testing.assert_close((vjp * step).sum(1), change.sum(1), rtol=1e-4, atol=1e-11)


@every
def test_a_saved_extractor_answers_with_the_same_bits(extractor, tmp_path):
    A = data(dtype=np.float32)
    model = clone(extractor).fit(pd.DataFrame(A, columns=[f"unit {i}" for i in range(12)]))
    frame = pd.DataFrame(A, columns=[f"unit {i}" for i in range(12)])
    folder = model.save(tmp_path / "model")
    for loaded in (type(model).load(folder), ConceptExtractor.load(folder)):
        assert type(loaded) is type(model)
        assert loaded.get_params() == model.get_params()
        np.testing.assert_array_equal(loaded.transform(frame), model.transform(frame))
        assert loaded.fingerprint == model.fingerprint
        assert set(loaded._fitted()) == set(model._fitted())
        np.testing.assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    assert not list(folder.rglob("*.pkl"))
    other = NMFConcepts if not isinstance(model, NMFConcepts) else PCAConcepts
    with pytest.raises(CheckpointError, match=f"holds a '{type(model).__name__}'"):
        other.load(folder)


def test_a_loaded_factorisation_goes_on_as_the_saved_one(tmp_path):
    A = data()
    model = NMFConcepts(3, init=A[:3], random_state=np.random.default_rng(0)).fit(A)
    loaded = NMFConcepts.load(model.save(tmp_path / "model"))
    assert loaded.random_state == model.seed_
    np.testing.assert_array_equal(loaded.init, A[:3])
    more = data(seed=1)
    np.testing.assert_array_equal(
        loaded.partial_fit(more).components_, model.partial_fit(more).components_
    )


def test_files_that_are_no_extractor(tmp_path):
    with pytest.raises(CheckpointError, match=r"manifest\.json does not exist"):
        ConceptExtractor.load(tmp_path / "nowhere")
    folder = PCAConcepts(2).fit(data()).save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "SomethingElse"}))
    with pytest.raises(CheckpointError, match="is no extractor"):
        ConceptExtractor.load(folder)


@every
def test_fingerprint_changes_with_the_concepts(extractor):
    first = clone(extractor).fit(data())
    assert first.fingerprint == clone(extractor).fit(data()).fingerprint
    if not isinstance(extractor, RandomConcepts):
        assert first.fingerprint != clone(extractor).fit(data(seed=1)).fingerprint


@every
def test_bank(extractor):
    model = clone(extractor).fit(data())
    bank = model.to_bank(["wheel", "fur", "sky"], space="some encoder")
    assert list(bank.names) == ["wheel", "fur", "sky"]
    np.testing.assert_allclose(np.asarray(bank.vectors), model.components_)
    assert bank.space == "some encoder"
    assert list(model.to_bank().names) == list(model.get_feature_names_out())
    assert model.fingerprint in model.to_bank().space


@every
def test_set_output_and_html(extractor):
    frame = pd.DataFrame(data())
    out = clone(extractor).set_output(transform="pandas").fit(frame).transform(frame)
    assert out.columns[0].endswith("0")
    assert type(extractor).__name__ in extractor._repr_html_()


def test_pipeline_and_grid_search():
    A = data(n=90)
    y = A[:, 0] > np.median(A[:, 0])
    pipeline = make_pipeline(NMFConcepts(2, random_state=0), LogisticRegression())
    search = GridSearchCV(pipeline, {"nmfconcepts__n_concepts": [1, 4]}, cv=3).fit(A, y)
    assert search.best_params_ == {"nmfconcepts__n_concepts": 4}


@every
def test_random_state_and_global_state(extractor, global_state_untouched):
    A = data()
    first = clone(extractor).fit(A)
    np.testing.assert_array_equal(first.components_, clone(extractor).fit(A).components_)
    fresh = clone(extractor).set_params(random_state=None).fit(A)
    again = clone(extractor).set_params(random_state=fresh.seed_).fit(A)
    np.testing.assert_array_equal(fresh.components_, again.components_)
    clone(extractor).set_params(random_state=2**31 - 2).fit(A)


@every
def test_a_row_alone_has_the_code_of_the_batch(extractor):
    A = data()
    model = clone(extractor).fit(A)
    alone = np.concatenate([model.transform(A[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, model.transform(A)[:20], rtol=0, atol=1e-12)


def spoiled(value, where=(4, 2)):
    A = data()
    A[where] = value
    return A


@every
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (spoiled(np.nan), r"contains NaN: 1 of 720 entries .* index \(4, 2\)"),
        (spoiled(np.inf), r"contains infinity: 1 of 720 entries .* index \(4, 2\)"),
        (torch.from_numpy(spoiled(np.nan)), r"contains NaN"),
        (data()[0], "Expected 2D array"),
        (data().reshape(6, 10, 12), r"got 3D array instead: shape \(6, 10, 12\)"),
        (torch.from_numpy(data()).reshape(6, 10, 12), r"got 3D array"),
        (data()[:1], r"1 sample\(s\)"),
        (data()[:0], r"0 sample\(s\)"),
        (np.zeros((20, 5)), r"All entries of X, of shape \(20, 5\), are zero"),
    ],
)
def test_bad_input_to_fit(extractor, X, message):
    with pytest.raises(InputError, match=message):
        clone(extractor).fit(X)


@every
def test_bad_number_of_concepts(extractor):
    A = data()
    for value, message in (
        (0, "n_concepts must be a whole number of at least 1, got 0"),
        (2.5, "n_concepts must be a whole number of at least 1, got 2.5"),
        (61, None)
        if isinstance(extractor, SparseAutoencoder)
        else (61, r"cannot find 61 concepts in 60 sample\(s\) with 12 feature\(s\).*at most"),
    ):
        model = clone(extractor).set_params(n_concepts=value)
        if message is None:  # more latents than rows are told, not refused
            with pytest.warns(UserWarning, match="61 latents for 60 rows"):
                model.fit(A)
            continue
        with pytest.raises(InputError, match=message):
            model.fit(A)
    above = clone(extractor).set_params(n_concepts=13)
    if isinstance(extractor, KMeansConcepts | SparseAutoencoder):
        assert above.fit(A).components_.shape == (13, 12)
    else:
        with pytest.raises(InputError, match="at most 12"):
            above.fit(A)


@every
def test_bad_input_after_the_fit(extractor):
    with pytest.raises(NotFittedError):
        clone(extractor).transform(data())
    with pytest.raises(NotFittedError):
        clone(extractor).as_module()
    with pytest.raises(NotFittedError):
        clone(extractor).to_bank()
    model = clone(extractor).fit(data())
    with pytest.raises(InputError, match="X has 11 features, but .* is expecting 12"):
        model.transform(data()[:, :11])
    with pytest.raises(InputError, match="contains NaN"):
        model.transform(spoiled(np.nan))
    with pytest.raises(InputError, match=r"3 concepts on the last axis, got shape \(60, 4\)"):
        model.inverse_transform(np.ones((60, 4)))


@every
def test_zero_columns_and_constant_data(extractor):
    A = data()
    A[:, [0, 5]] = 0
    model = clone(extractor).fit(A)
    assert np.isfinite(model.components_).all()
    assert np.isfinite(model.transform(A)).all()
    if isinstance(extractor, ICAConcepts | SparseAutoencoder):
        with pytest.raises(InputError, match="X is constant: all rows are equal"):
            clone(extractor).fit(np.full((20, 6), 2.0))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constant = clone(extractor).fit(np.full((20, 6), 2.0))
        U = constant.transform(np.full((20, 6), 2.0))
    assert np.isfinite(constant.components_).all()
    np.testing.assert_allclose(constant.inverse_transform(U), 2.0, atol=0.03)  # l2 shrinks


def test_negative_data_and_options():
    negative = spoiled(-0.5)
    with pytest.raises(InputError, match="Negative values in data passed to NMFConcepts.*SemiNMF"):
        NMFConcepts(2).fit(negative)
    with pytest.raises(InputError, match="Negative values"):
        NMFConcepts(2).fit(data()).transform(negative)
    SemiNMF(2, random_state=0).fit(negative)
    ConvexNMF(2, random_state=0).fit(negative)
    for model, message in (
        (NMFConcepts(2, init="nndsvdb"), "Unknown init 'nndsvdb'. Did you mean 'nndsvd"),
        (SemiNMF(2, init="kmean"), "Did you mean 'kmeans'"),
        (ConvexNMF(2, init="farthest"), "Did you mean 'furthest'"),
        (KMeansConcepts(2, assignment="sof"), "Did you mean 'soft'"),
        (KMeansConcepts(2, temperature=0), "temperature must be a number above 0"),
        (
            NMFConcepts(2, init=np.ones((3, 12))),
            r"init must have shape .* \(2, 12\), got \(3, 12\)",
        ),
        (NMFConcepts(2, init=-np.ones((2, 12))), "init must be non-negative"),
        (SemiNMF(2, init=np.ones((3, 12))), "init must have shape"),
        (NMFConcepts(2, n_sweeps=0), "n_sweeps must be a whole number of at least 1"),
        (SemiNMF(2, max_iter=1.5), "max_iter must be a whole number of at least 1, got 1.5"),
        (ConvexNMF(2, tol=None), "tol must be a number of at least 0, got None"),
        (ICAConcepts(2, tol="tight"), "tol must be a number of at least 0, got 'tight'"),
        (KMeansConcepts(2, n_init=0), "n_init must be a whole number of at least 1"),
        (NMFConcepts(2, l2=-1), "l2 must be a number of at least 0"),
        (NMFConcepts(2, decay=2.0), "decay must be a number of at least 0 and at most 1, got 2.0"),
        (NMFConcepts(2, random_state="a"), "random_state must be"),
        (NMFConcepts(2, device="cuda:99"), "device"),
    ):
        with pytest.raises(InputError, match=message):
            model.fit(data())
