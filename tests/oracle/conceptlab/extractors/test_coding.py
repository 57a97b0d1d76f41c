"""Non-negative coding against SciPy, the KKT conditions and finite differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls

from conceptlab.errors import InputError
from conceptlab.extractors.coding import CodingModule, NNLSCoding, kkt_residual, nnls, nnls_gram


def problem(n=40, k=8, p=30, seed=0, spread=0.0):
    rng = np.random.default_rng(seed)
    W = rng.gamma(0.5, size=(k, p)) + spread * rng.random(p)
    A = rng.gamma(0.5, size=(n, k)) @ W + rng.normal(0, 0.3, size=(n, p))
    return A, W


def scipy_codes(A, W, l2=0.0):
    k = len(W)
    basis = np.hstack([W, np.sqrt(l2) * np.eye(k)])
    rows = np.hstack([A, np.zeros((len(A), k))])
    return np.stack([scipy_nnls(basis.T, row)[0] for row in rows])


@pytest.mark.parametrize("l2", [0.0, 0.5])
@pytest.mark.parametrize(("k", "spread"), [(1, 0), (8, 0), (8, 5.0), (25, 0), (45, 0), (90, 0)])
def test_codes_equal_scipys(k, spread, l2):
    A, W = problem(k=k, p=max(60, k + 30), spread=spread)
    U = nnls(A, W, l2=l2)
    np.testing.assert_allclose(U, scipy_codes(A, W, l2), atol=1e-9 * U.max())
    assert (U == 0).any() or k == 1
    assert kkt_residual(A, U, W, l2=l2).max() < 1e-12


def test_kkt_residual_sees_a_wrong_code_and_ignores_scale():
    A, W = problem()
    U = nnls(A, W)
    worse = U.copy()
    worse[3, 2] += 0.1
    residual = kkt_residual(A, worse, W)
    assert residual[3] > 1e-3
    assert np.delete(residual, 3).max() < 1e-12
    scale = np.linspace(0.1, 10, len(W))[:, None]
    rescaled = kkt_residual(7 * A, 7 * worse / scale.T, scale * W)
    np.testing.assert_allclose(rescaled, residual, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_alone_has_the_code_of_the_batch(seed):
    A, W = problem(n=60, seed=seed)
    whole = nnls(A, W)
    alone = np.concatenate([nnls(A[i : i + 1], W) for i in range(len(A))])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(nnls(A, W, batch_size=7), whole, rtol=0, atol=1e-12)


def test_supports_of_every_size_at_once():
    """From none to all of 40 concepts, also where the padding of a system is full."""
    rng = np.random.default_rng(0)
    W = np.eye(40) + 0.02 * rng.random((40, 40))
    U = rng.random((41, 40)) + 0.5
    U[np.arange(40) >= np.arange(41)[:, None]] = 0
    found = nnls(U @ W, W)
    np.testing.assert_allclose(found, U, atol=1e-10)
    assert np.array_equal((found > 1e-9).sum(1), np.arange(41))


def degenerate_bases():
    rng = np.random.default_rng(1)
    W = rng.random((6, 20))
    zero, equal, collinear, near = (W.copy() for _ in range(4))
    zero[2] = 0
    equal[4] = equal[1]
    collinear[5] = collinear[0] + 2 * collinear[3]
    near[4] = near[1] + 1e-8 * rng.random(20)
    return {
        "zero row": zero,
        "all zero": np.zeros((3, 20)),
        "equal rows": equal,
        "collinear rows": collinear,
        "nearly equal rows": near,
        "more rows than features": rng.random((50, 20)),
        "opposite rows": np.vstack([W[:2], -W[:2]]),
        "very different scales": W * 10.0 ** np.arange(-6, 6, 2)[:, None],
        "float32 precision": np.vstack([W, W.astype(np.float32).astype(float) * 0.3]),
    }


@pytest.mark.parametrize("name", degenerate_bases())
def test_degenerate_bases_end_at_a_kkt_point(name):
    W = degenerate_bases()[name]
    A = np.random.default_rng(2).normal(0.5, 1, size=(200, 20))
    U = nnls(A, W)
    assert np.isfinite(U).all()
    assert U.min() >= 0
    assert kkt_residual(A, U, W).max() < 1e-8
    best = np.linalg.norm(A - scipy_codes(A, W) @ W, axis=1)
    np.testing.assert_allclose(np.linalg.norm(A - U @ W, axis=1), best, rtol=1e-7)


def test_equal_rows_share_equally_and_zero_rows_get_nothing():
    bases = degenerate_bases()
    A = np.random.default_rng(2).random((50, 20))
    U = nnls(A, bases["equal rows"])
    np.testing.assert_allclose(U[:, 1], U[:, 4], atol=1e-3 * U.max())
    assert (nnls(A, bases["zero row"])[:, 2] == 0).all()


@pytest.mark.parametrize("shape", [(30,), (5, 30), (2, 3, 30), (2, 3, 4, 30), (0, 30)])
def test_any_leading_axes(shape):
    W = problem()[1]
    A = np.random.default_rng(0).random(shape)
    U = nnls(A, W)
    assert U.shape == (*shape[:-1], 8)
    flat = nnls(A.reshape(-1, 30), W)
    np.testing.assert_allclose(U.reshape(-1, 8), flat, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_like_in_like_out(dtype):
    A, W = problem()
    U = nnls(torch.from_numpy(A).to(dtype), W)
    assert isinstance(U, torch.Tensor)
    assert U.dtype == dtype
    exact = nnls(torch.from_numpy(A).to(dtype).double().numpy(), W)
    torch.testing.assert_close(U, torch.from_numpy(exact).to(dtype))
    assert nnls(A.astype(np.float32), W).dtype == np.float32


def test_float32_rows_are_solved_in_float64():
    """An ill-conditioned basis: a float32 Gram matrix would lose the code."""
    rng = np.random.default_rng(0)
    W = 10 + rng.random((8, 40)) * 0.3
    A = (rng.random((50, 8)) @ W).astype(np.float32)
    np.testing.assert_allclose(nnls(A, W), nnls(A.astype(float), W), rtol=1e-6, atol=1e-6)


def test_gram_form():
    A, W = problem()
    solved = nnls_gram(torch.from_numpy(A @ W.T), torch.from_numpy(W @ W.T))
    np.testing.assert_allclose(solved.numpy(), nnls(A, W), atol=1e-12)


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("k", [5, 40])
def test_derivative_in_both_arguments_by_gradcheck(l2, k):
    A, W = problem(n=4 if k == 5 else 1, k=k, p=8 if k == 5 else 45)
    rows = torch.from_numpy(A).requires_grad_()
    basis = torch.from_numpy(W).requires_grad_()

    def fn(a, w):
        return NNLSCoding.apply(a, w, l2, 1e-12, None)

    support = nnls(A, W, l2=l2)
    gradient = support @ (W @ W.T + l2 * np.eye(k)) - A @ W.T
    gap = np.where(support > 0, support, gradient)
    assert gap.min() > 1e-4, "away from ties, where the code has a kink"
    # All of W for few concepts; for many, where the solver gathers supports, only A.
    basis.requires_grad_(k == 5)
    assert torch.autograd.gradcheck(fn, (rows, basis), eps=1e-7, atol=1e-5)


def test_second_derivative():
    A, W = problem(n=2, k=3, p=5)
    rows = torch.from_numpy(A).requires_grad_()
    basis = torch.from_numpy(W).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda a, w: NNLSCoding.apply(a, w, 0.0, 1e-12, None), (rows, basis), atol=1e-4
    )


def test_vector_jacobian_product_against_finite_differences_of_scipy():
    A, W = problem(n=20)
    rng = np.random.default_rng(3)
    v, direction = rng.normal(size=(20, 8)), rng.normal(size=A.shape)
    rows = torch.from_numpy(A).requires_grad_()
    (vjp,) = torch.autograd.grad(nnls(rows, W), rows, torch.from_numpy(v))
    step = 1e-6
    forward = (
        (scipy_codes(A + step * direction, W) - scipy_codes(A - step * direction, W)) / 2 / step
    )
    np.testing.assert_allclose(
        (vjp.numpy() * direction).sum(1), (v * forward).sum(1), rtol=1e-6, atol=1e-7
    )


def test_derivative_is_finite_where_the_support_is_collinear():
    W = degenerate_bases()["equal rows"]
    rows = torch.rand(10, 20, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(nnls(rows, W).sum(), rows)
    assert torch.isfinite(grad).all()


def test_module_is_differentiable_at_each_position_and_moves_its_buffers():
    A, W = problem(n=12)
    module = CodingModule(W)
    maps = torch.from_numpy(A.reshape(2, 2, 3, 30)).float().requires_grad_()
    codes = module(maps)
    assert codes.shape == (2, 2, 3, 8)
    codes[0, 1, 2, 3].backward()
    touched = maps.grad.abs().sum(-1) > 0
    assert touched.sum() <= 1, "one position's code depends on that position only"
    assert set(dict(module.named_buffers())) == {"basis"}
    assert module.double().basis.dtype == torch.float64


@pytest.mark.parametrize(
    ("A", "W", "l2", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 5)), 0, "A has 4 features on its last axis, but W has 5"),
        (np.ones((3, 4)), np.ones(4), 0, "W of shape"),
        (np.ones((3, 4)), np.ones((2, 4)), -1, "l2 must be at least 0"),
        (np.array([[1, np.nan]]), np.ones((2, 2)), 0, r"index \(0, 1\)"),
        (np.ones((3, 2)), np.array([[1, np.inf]]), 0, "Input W contains infinity"),
    ],
)
def test_bad_input(A, W, l2, message):
    with pytest.raises(InputError, match=message):
        nnls(A, W, l2=l2)


@pytest.mark.gpu
def test_gpu_equals_cpu():
    A, W = problem(n=500, k=20, p=64)
    on_gpu = torch.from_numpy(A).cuda().requires_grad_()
    codes = nnls(on_gpu, W)
    assert codes.is_cuda
    np.testing.assert_allclose(codes.detach().cpu().numpy(), nnls(A, W), atol=1e-10)
    on_cpu = torch.from_numpy(A).requires_grad_()
    (a,) = torch.autograd.grad(codes.square().sum(), on_gpu)
    (b,) = torch.autograd.grad(nnls(on_cpu, W).square().sum(), on_cpu)
    torch.testing.assert_close(a.cpu(), b)
