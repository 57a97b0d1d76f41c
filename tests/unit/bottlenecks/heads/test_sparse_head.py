"""The sparse head: bad input, arrays, files, and what a fit says about itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottlenecks.heads import (
    SparseLinearHead,
    number_of_effective_concepts,
    sparse_softmax_path,
)
from conceptlab.errors import CheckpointError, InputError


def draw(n=120, M=8, K=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, M))
    return X, np.array(["ant", "bee", "cow", "dog"])[(X[:, :K] + 0.3 * X[:, 1:2]).argmax(1)]


@pytest.fixture(scope="module")
def fitted():
    return SparseLinearHead(nec=2).fit(*draw())


BAD = {
    "lam below 0": (
        {"lam": -0.1},
        r"lam must be a number of at least 0.*got -0\.1.*\[CL-INPUT-RANGE",
    ),
    "lam no number": ({"lam": "small"}, r"lam must be a number.*got 'small'"),
    "lam NaN": ({"lam": float("nan")}, r"lam must be a number.*got nan"),
    "nec above M": ({"nec": 9}, r"nec=9 is above the number of concepts, 8.*\[CL-INPUT-MANY"),
    "nec below 0": ({"nec": -1}, r"nec must be a number of at least 0"),
    "both": ({"lam": 0.1, "nec": 2}, r"Give lam or nec, not both: got lam=0\.1 and nec=2"),
    "alpha 0": ({"alpha": 0}, r"alpha must be a number above 0 and at most 1.*got 0"),
    "alpha 2": ({"alpha": 2}, r"alpha must be a number above 0 and at most 1"),
    "tol 0": ({"tol": 0}, r"tol must be a number above 0"),
    "max_iter 0": ({"max_iter": 0}, r"max_iter must be a whole number of at least 1"),
    "one strength": ({"n_lambdas": 1}, r"n_lambdas must be a whole number of at least 2"),
    "refit_l2": ({"refit_l2": -1}, r"refit_l2 must be a number of at least 0"),
    "constant": ({"constant": "drop"}, r"Unknown constant 'drop'.*Known: error, ignore"),
    "chunk_rows 0": ({"chunk_rows": 0}, r"chunk_rows must be a whole number of at least 1, got 0"),
    "dtype": ({"dtype": "float31"}, r"Unknown dtype 'float31'.*Did you mean 'float32'"),
    "device": ({"device": "gpu0"}, r"device must be 'auto'.*\[CL-INPUT-DEVICE"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters(name):
    parameters, message = BAD[name]
    with pytest.raises(InputError, match=message):
        SparseLinearHead(**parameters).fit(*draw())


def test_bad_data():
    X, y = draw()
    with pytest.raises(InputError, match=r"at least two classes, got 1 class: \['ant'\]"):
        SparseLinearHead().fit(X, np.full(len(X), "ant"))
    with pytest.raises(InputError, match=r"requires y to be passed"):
        SparseLinearHead().fit(X, None)
    with pytest.raises(InputError, match=r"inconsistent numbers of samples.*\[CL-INPUT-LABELS"):
        SparseLinearHead().fit(X, y[:-1])
    broken = X.copy()
    broken[3, 2] = np.nan
    for given in (broken, torch.tensor(broken)):
        with pytest.raises(InputError, match=r"contains NaN.*first at index \(3, 2\)"):
            SparseLinearHead().fit(given, y)


def test_nan_in_a_memory_map(tmp_path):
    X, y = draw()
    X[100, 1] = np.inf
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(InputError, match=r"contains infinity"):
        SparseLinearHead().fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_columns(dtype):
    X, y = draw()
    X[:, 5] = 0.1
    X = X.astype(dtype)
    with pytest.raises(InputError, match=r"Column 5 of X is constant: .*\[CL-INPUT-ZERO\]"):
        SparseLinearHead().fit(X, y)
    with pytest.raises(InputError, match=r"Column 5 .* \(and 1 more\): .*constant='ignore'"):
        SparseLinearHead().fit(np.column_stack([X, X[:, 5]]), y)
    named = pd.DataFrame(X, columns=[f"c{j}" for j in range(8)])
    with pytest.raises(InputError, match=r"Column 5 \('c5'\) of X is constant"):
        SparseLinearHead().fit(named, y)
    head = SparseLinearHead(lam=1e-3, constant="ignore").fit(X, y)
    assert not head.coef_[:, 5].any()
    without = SparseLinearHead(lam=1e-3).fit(np.delete(X, 5, axis=1), y)
    np.testing.assert_allclose(
        np.delete(head.coef_, 5, axis=1), without.coef_, rtol=1e-3, atol=1e-4
    )
    with pytest.raises(InputError, match=r"number of concepts, 7 \(1 constant ones apart\)"):
        SparseLinearHead(nec=8, constant="ignore").fit(X, y)


def test_unfitted():
    head, (X, _) = SparseLinearHead(), draw()
    for call in (head.predict, head.predict_proba, head.decision_function):
        with pytest.raises(NotFittedError):
            call(X)
    with pytest.raises(NotFittedError):
        head.save("nowhere")


def test_wrong_width(fitted):
    with pytest.raises(InputError, match=r"7 features, but SparseLinearHead is expecting 8"):
        fitted.predict(np.zeros((2, 7)))


def test_bad_path():
    X, y = draw()
    with pytest.raises(InputError, match=r"ratio must be a number above 0 and at most 1"):
        sparse_softmax_path(X, y, ratio=0)
    with pytest.raises(InputError, match=r"lams must be a number of at least 0"):
        sparse_softmax_path(X, y, lams=[0.1, -0.1])


def test_what_a_fit_says(fitted):
    X, y = draw()
    assert fitted.nec_ == 2.0
    assert fitted.coef_.shape == (3, 8)
    assert fitted.coef_.dtype == np.float64
    assert [len(columns) for columns in fitted.active_concepts_] == list(
        np.count_nonzero(fitted.coef_, axis=1)
    )
    for weights, columns in zip(fitted.coef_, fitted.active_concepts_, strict=True):
        sizes = np.abs(weights * X.std(0))[columns]
        assert (np.diff(sizes) <= 0).all()
    frame = fitted.path_.to_frame()
    assert list(frame) == ["lams", "nec", "objective", "kkt", "n_iter"]
    assert frame["lams"].iloc[-1] == fitted.lam_
    assert fitted.score(X, y) > 0.9
    logits = X @ fitted.coef_.T + fitted.intercept_
    np.testing.assert_allclose(fitted.decision_function(X), logits, atol=1e-12)
    np.testing.assert_allclose(fitted.predict_proba(X).sum(1), 1)
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(fitted.predict_proba(X)))


def test_two_classes_keep_two_rows():
    X, y = draw(K=2)
    head = SparseLinearHead(nec=1).fit(X, y)
    assert head.coef_.shape == (2, 8)
    logits = X @ head.coef_.T + head.intercept_
    assert head.decision_function(X).shape == (len(X),)
    np.testing.assert_allclose(head.decision_function(X), logits[:, 1] - logits[:, 0], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_in_tensors_out(fitted, dtype):
    X, y = draw()
    head = SparseLinearHead(nec=2).fit(torch.tensor(X, dtype=dtype), y)
    assert isinstance(head.coef_, np.ndarray)
    answer = head.predict_proba(torch.tensor(X, dtype=dtype))
    assert isinstance(answer, torch.Tensor)
    assert answer.dtype == dtype
    if dtype != torch.bfloat16:
        np.testing.assert_allclose(head.coef_, fitted.coef_, atol=2e-3)


@pytest.mark.parametrize(
    "labels", [list("abc"), [3, -1, 7], [1.0, 2.0, 4.0], [True, False]], ids=str
)
def test_files_keep_every_bit(labels, tmp_path):
    X, y = draw(K=len(labels))
    target = np.array(labels)[np.unique(y, return_inverse=True)[1]]
    frame = pd.DataFrame(X, columns=[f"concept {j}" for j in range(8)])
    head = SparseLinearHead(nec=2, tol=1e-3).fit(frame, target)
    again = SparseLinearHead.load(head.save(tmp_path / "head"))
    for method in ("decision_function", "predict_proba", "predict"):
        assert np.array_equal(getattr(again, method)(frame), getattr(head, method)(frame))
    assert again.get_params() == head.get_params()
    assert again.classes_.dtype == head.classes_.dtype
    assert list(again.feature_names_in_) == list(frame)
    assert again.path_.to_frame().equals(head.path_.to_frame())
    for a, b in zip(again.active_concepts_, head.active_concepts_, strict=True):
        assert np.array_equal(a, b)
    numbers = [k for k, v in vars(head).items() if k.endswith("_") and isinstance(v, float | int)]
    assert all(getattr(again, name) == getattr(head, name) for name in numbers)


def test_a_folder_of_something_else(tmp_path, fitted):
    from conceptlab import ConceptBank

    ConceptBank(np.eye(2), ["a", "b"], space=None).save(tmp_path / "bank")
    with pytest.raises(CheckpointError, match="expected a 'SparseLinearHead'"):
        SparseLinearHead.load(tmp_path / "bank")


def test_in_a_pipeline_and_a_search():
    X, y = draw(n=200)
    model = make_pipeline(StandardScaler(), SparseLinearHead(tol=1e-2))
    search = GridSearchCV(model, {"sparselinearhead__nec": [1, 2]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8


def test_count_of_effective_concepts():
    assert number_of_effective_concepts(np.zeros((3, 4))) == 0
    assert number_of_effective_concepts(torch.eye(3)) == 1


def test_iterations_are_those_of_all_points():
    X, y = draw()
    head = SparseLinearHead(nec=2.5, refit=False).fit(X, y)
    assert (head.path_.n_iter >= 0).all()
    assert head.n_iter_ == head.path_.n_iter.sum() > 0


def test_a_loose_fit_is_quicker_than_a_tight_one():
    X, y = draw(n=300)
    steps = [SparseLinearHead(0.01, tol=t, refit=False).fit(X, y).n_iter_ for t in (1e-1, 1e-6)]
    assert steps[0] < steps[1]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_gives_the_same_weights(dtype):
    X, y = draw(n=2000, M=30)
    X = X.astype(np.float32)
    here = SparseLinearHead(0.02, refit=False, device="cpu").fit(X, y)
    there = SparseLinearHead(0.02, refit=False, device="cuda", dtype=dtype).fit(X, y)
    assert there.converged_
    np.testing.assert_allclose(there.coef_, here.coef_, atol=2e-3)
    answer = there.predict_proba(torch.from_numpy(X).cuda())
    assert answer.is_cuda


def test_benchmark_runs_small():
    from bottlenecks.bench.sparse_head import run

    result = run(quick=True)
    assert len(result.rows) >= 4
    assert all(row.met is None for row in result.rows)
    assert all(np.isfinite(row.ours) and row.ours > 0 for row in result.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_part_for_gpus_runs_without_one(dtype):
    from bottlenecks.bench.sparse_head import _gpu_row

    row = _gpu_row(dtype, {"n": 900, "M": 24, "K": 5}, 0, device="cpu")
    assert row.ours > 0
    assert row.peer > 0
