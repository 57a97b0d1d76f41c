"""Exact non-negative coding of activations in a fixed concept basis, and its derivative.

Every row `a` is coded by itself: u = argmin_{u >= 0} 1/2 |a - u W|^2 + l2/2 |u|^2. In Gram
space (G = W W' + l2 I, f = a W') a few sweeps of coordinate descent guess the support, and
block principal pivoting (Kim and Park 2011) with batched Cholesky factors makes it exact. On
its support S the code is linear, u_S = G_S^-1 (W a)_S, which gives the derivative in closed
form: implicit differentiation of the KKT conditions, as in section 3 of CRAFT (Fel et al. 2023).

References
----------
.. [1] J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like method
   and comparisons", SIAM J. Sci. Comput. 33(6), 2011.
.. [2] T. Fel et al., "CRAFT: Concept Recursive Activation FacTorization for Explainability",
   CVPR 2023.
"""

from __future__ import annotations

__all__ = ["CodingModule", "NNLSCoding", "kkt_residual", "nnls", "nnls_gram"]

import contextlib
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayKind, ArrayLike, as_tensor, check_finite
from conceptlab.errors import InputError

_WARM_SWEEPS = 12
_SOLVER_ELEMENTS = 4_000_000
"""Float64 entries that one batch of k x k systems may take (32 MB)."""
_GATHERED_FROM = 16
"""Concepts beyond which the systems of supports are gathered, in steps of some sizes."""
_SIZES = 4
_INPUT_ELEMENTS = 8_000_000
"""Float64 entries of A that are converted at a time (64 MB)."""


def nnls(
    A: ArrayLike,
    W: ArrayLike,
    *,
    l2: float = 0.0,
    tol: float = 1e-10,
    batch_size: int | None = None,
) -> Any:
    """Code every row of `A` in the basis `W` by non-negative least squares.

    Parameters
    ----------
    A : array-like of shape (..., p)
        Activations; any leading axes, such as (n, p) or (n, height, width, p).
    W : array-like of shape (k, p)
        Basis; rows may be collinear, equal or zero.
    l2 : float, default=0.0
        Weight of |u|^2 / 2, at least 0, in units of |w|^2.
    tol : float, default=1e-10
        Largest KKT residual (see :func:`kkt_residual`) of a row; rows that miss it
        are solved once more by :func:`scipy.optimize.nnls`.
    batch_size : int, optional
        Rows that are solved at a time; by default what fits in about 100 MB. The codes
        do not depend on it.

    Returns
    -------
    array of shape (..., k)
        Coefficients U >= 0 in the kind, device and dtype of `A`; computed in float64.
        For a tensor that requires a gradient the answer is differentiable in `A` and `W`.

    Raises
    ------
    InputError
        If the shapes do not fit, `l2` is negative, or an entry is not finite.

    Notes
    -----
    With collinear rows of W the code is not unique; the answer is then near the one of
    least norm, so that equal rows of W share their part equally.

    Examples
    --------
    >>> import numpy as np
    >>> nnls(np.array([[1.0, 2.0], [-1.0, 3.0]]), np.eye(2))
    array([[1., 2.],
           [0., 3.]])
    """
    kind = ArrayKind.of(A)
    codes = as_tensor(A)
    basis = as_tensor(W, device=codes.device, dtype=torch.float64 if _has_double(codes) else None)
    _check_shapes(codes, basis, l2)
    check_finite(codes.detach(), "A")
    check_finite(basis.detach(), "W")
    found = NNLSCoding.apply(codes, basis, float(l2), float(tol), batch_size)
    return kind.restore(found + 0.0)  # no negative zeros


def kkt_residual(A: ArrayLike, U: ArrayLike, W: ArrayLike, *, l2: float = 0.0) -> Any:
    """Measure how far codes are from optimal, relative to the length of each row.

    With d_j^2 = |w_j|^2 + l2 and the gradient g = u (W W' + l2 I) - a W', a code is optimal
    exactly if min(u_j d_j, g_j / d_j) = 0 for all j. Both parts have the unit of |a|, so
    the residual does not change when rows of `A` or of `W` are scaled.

    Parameters
    ----------
    A : array-like of shape (..., p)
        Activations.
    U : array-like of shape (..., k)
        Codes.
    W : array-like of shape (k, p)
        Basis.
    l2 : float, default=0.0
        As in :func:`nnls`.

    Returns
    -------
    array of shape (...)
        max_j |min(u_j d_j, g_j / d_j)| / |a|, in float64; 0 for a row of zeros with a code
        of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> kkt_residual(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), np.eye(2))
    array([0.89442719])
    """
    as_array = not isinstance(A, torch.Tensor)
    rows, codes, basis = (_double(as_tensor(part).detach()) for part in (A, U, W))
    codes, basis = codes.to(rows.device), basis.to(rows.device)
    _check_shapes(rows, basis, l2)
    gram, scale = _gram(basis, l2)
    gradient = codes @ gram - rows @ basis.mT
    live = scale > 0
    inverse = torch.where(live, 1 / torch.where(live, scale, 1), 0)
    violation = torch.minimum(codes * scale, gradient * inverse).abs().amax(-1)
    length = torch.linalg.vector_norm(rows, dim=-1)
    residual = violation / torch.where(length > 0, length, 1)
    return residual.cpu().numpy() if as_array else residual


class NNLSCoding(torch.autograd.Function):
    """Differentiable non-negative coding: ``NNLSCoding.apply(A, W, l2, tol, batch_size)``.

    The vector-Jacobian product of v solves (W_S W_S' + l2 I) q = v_S row by row and returns
    q W for `A`, and q' (A - U W) - U' (q W) for `W`. Off the support S = {j: u_j > 0} the
    derivative is 0, also at ties, where a coefficient is 0 with zero gradient.
    """

    @staticmethod
    def forward(
        A: torch.Tensor, W: torch.Tensor, l2: float, tol: float, batch_size: int | None
    ) -> torch.Tensor:
        """Solve; `A` (..., p), `W` (k, p), answer (..., k) in the dtype of `A`."""
        return _code(A, W, l2, tol, batch_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep what the backward step needs: the data, the basis and the codes."""
        A, W, l2, _, batch_size = inputs
        ctx.save_for_backward(A, W, output)
        ctx.l2 = l2
        ctx.batch_size = batch_size

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Apply the closed form; itself differentiable."""
        A, W, U = ctx.saved_tensors
        grad_A = grad_W = None
        q = _adjoint(grads[0], U, W, ctx.l2, ctx.batch_size)
        into_rows = (q @ _double(W).to(q)).to(A.device)
        if ctx.needs_input_grad[0]:
            grad_A = into_rows.to(A.dtype)
        if ctx.needs_input_grad[1]:
            k, p = W.shape
            rows, codes = _double(A).to(q), _double(U).to(q)
            residual = (rows - codes @ _double(W).to(q)).reshape(-1, p)
            flat = into_rows.to(q).reshape(-1, p)
            grad_W = q.reshape(-1, k).mT @ residual - codes.reshape(-1, k).mT @ flat
            grad_W = grad_W.to(W)
        return grad_A, grad_W, None, None, None


def _has_double(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "mps"


def _double(tensor: torch.Tensor) -> torch.Tensor:
    """Convert to float64, on the CPU where the device has none."""
    return (tensor if _has_double(tensor) else tensor.cpu()).double()


def _check_shapes(A: torch.Tensor, W: torch.Tensor, l2: float) -> None:
    if W.ndim != 2 or A.ndim < 1:
        raise InputError(
            f"Expected A of shape (..., p) and W of shape (k, p), got {tuple(A.shape)} and "
            f"{tuple(W.shape)}.",
            code="CL-INPUT-RANK",
        )
    if A.shape[-1] != W.shape[1]:
        raise InputError(
            f"A has {A.shape[-1]} features on its last axis, but W has {W.shape[1]}. Put the "
            "channels of A last, or use the basis of the same layer.",
            code="CL-INPUT-FEATURES",
        )
    if not l2 >= 0:
        raise InputError(f"l2 must be at least 0, got {l2}.", code="CL-INPUT-RANGE")


def _gram(W: torch.Tensor, l2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return W W' + l2 I and the square root of its diagonal."""
    gram = W @ W.mT
    if l2:
        gram = gram + l2 * torch.eye(len(W), dtype=gram.dtype, device=gram.device)
    return gram, gram.diagonal().clamp(min=0).sqrt()


def _code(
    A: torch.Tensor, W: torch.Tensor, l2: float, tol: float, batch_size: int | None
) -> torch.Tensor:
    k, p = W.shape
    basis = _double(W.detach())
    flat = A.detach().reshape(-1, p)
    codes = torch.zeros(len(flat), k, dtype=A.dtype, device=A.device)
    gram, _ = _gram(basis, l2)
    solver = _Solver(gram)
    step = batch_size or max(1, min(_INPUT_ELEMENTS // max(p, 1), 16 * _SOLVER_ELEMENTS // k**2))
    for start in range(0, len(flat), step):
        rows = _double(flat[start : start + step])
        U, residual = solver.solve(rows @ basis.mT)
        missed = residual > tol * torch.linalg.vector_norm(rows, dim=1)
        if bool(missed.any()):
            U[missed] = _lawson_hanson(rows[missed], basis, l2, U[missed])
        codes[start : start + step] = U.to(codes)
    return codes.reshape(*A.shape[:-1], k)


def nnls_gram(
    F: torch.Tensor, gram: torch.Tensor, *, start: torch.Tensor | None = None
) -> torch.Tensor:
    """Solve min_{x >= 0} 1/2 x G x' - f x' for every row f.

    Parameters
    ----------
    F : tensor of shape (m, k)
        Linear terms.
    gram : tensor of shape (k, k)
        G, positive semi-definite.
    start : tensor of shape (m, k), optional
        A guess; only its support counts.

    Returns
    -------
    tensor of shape (m, k)
        float64.
    """
    return _Solver(_double(gram)).solve(_double(F), start)[0]


class CodingModule(torch.nn.Module):
    """Non-negative coding in a fixed basis as a layer: (..., p) -> (..., k).

    Parameters
    ----------
    W : array of shape (k, p)
        Basis; kept as a buffer.
    l2 : float, default=0.0
        As in :func:`nnls`.

    Attributes
    ----------
    homogeneous : bool
        That the code of t times an activation, for t > 0, is t times its code.
    """

    basis: torch.Tensor
    homogeneous = True

    def __init__(self, W: np.ndarray, l2: float = 0.0) -> None:
        super().__init__()
        self.l2 = l2
        self.register_buffer("basis", torch.tensor(W))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Code activations with channels last; differentiable."""
        codes: torch.Tensor = nnls(activations, self.basis, l2=self.l2)
        return codes


def _lawson_hanson(
    rows: torch.Tensor, W: torch.Tensor, l2: float, fallback: torch.Tensor
) -> torch.Tensor:
    """Solve rows one by one with SciPy; the last resort for near-singular bases."""
    from scipy.optimize import nnls as scipy_nnls

    basis = W.cpu().numpy()
    target = rows.cpu().numpy()
    if l2:
        basis = np.hstack([basis, np.sqrt(l2) * np.eye(len(basis))])
        target = np.hstack([target, np.zeros((len(target), len(basis)))])
    codes = fallback.clone()
    for code, row in zip(codes, target, strict=True):
        with contextlib.suppress(RuntimeError):  # its limit of steps: the code we have stays
            solved = scipy_nnls(basis.T, row, maxiter=30 * len(basis))[0]
            code.copy_(torch.from_numpy(solved))
    return codes


class _Solver:
    """min_{x >= 0} 1/2 x G x' - f x' for many f, scaled to unit diagonal, in float64."""

    def __init__(self, gram: torch.Tensor) -> None:
        scale = gram.diagonal().clamp(min=0).sqrt()
        self.live = scale > 0
        self.scale = torch.where(self.live, scale, 1)
        gram = gram / (self.scale[:, None] * self.scale)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        gram = torch.where(self.live[:, None] & self.live, gram, eye)
        eigenvalues = torch.linalg.eigvalsh(gram)
        largest = float(eigenvalues[-1])
        self.gram, self.eye = gram, eye
        # A singular G is solved with a ridge that proximal steps take away again. The first
        # keeps rounding out of the null space; the second is for rows that it leaves unsolved.
        self.ridges = [0.0]
        if float(eigenvalues[0]) < 1e-11 * largest:
            self.ridges = [1e-9 * largest, max(1e-13, 1e-15 * len(gram)) * largest]

    def solve(
        self, F: torch.Tensor, start: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the solutions and their KKT residuals in the unit of f / sqrt(G_jj)."""
        F = torch.where(self.live, F / self.scale, 0)  # a zero row of W gets a zero code
        start = self._sweep(F) if start is None else start.to(F)
        step = max(1, _SOLVER_ELEMENTS // F.shape[1] ** 2)
        parts = [self._exact(f, x) for f, x in zip(F.split(step), start.split(step), strict=True)]
        X = torch.cat(parts) if parts else F
        return X / self.scale, self._residual(X, F)

    def _sweep(self, F: torch.Tensor) -> torch.Tensor:
        """Guess the supports by cyclic coordinate descent, all rows at once."""
        f = F.mT.contiguous()
        X = f.clamp(min=0) / self.gram.abs().sum(0, keepdim=True).mT
        for _ in range(_WARM_SWEEPS):
            for j, g in enumerate(self.gram):
                step = torch.addmv(f[j], X.mT, g, alpha=-1)
                X[j].add_(step).clamp_(min=0)
        return X.mT

    def _exact(self, F: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        X = self._pivot(F, start > 0, self.gram + self.ridges[0] * self.eye)
        if self.ridges == [0.0]:
            return X
        floor = 1e-12 * F.abs().amax(1)
        for ridge in self.ridges:
            definite = self.gram + ridge * self.eye
            for _ in range(30):
                rows = (self._residual(X, F) > floor).nonzero()[:, 0]
                if not len(rows):
                    return X
                X[rows] = self._pivot(F[rows] + ridge * X[rows], X[rows] > 0, definite)
        return X

    def _residual(self, X: torch.Tensor, F: torch.Tensor) -> torch.Tensor:
        return torch.minimum(X, X @ self.gram - F).abs().amax(1)

    @staticmethod
    def _pivot(F: torch.Tensor, passive: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        """Block principal pivoting from the given supports."""
        n, k = F.shape
        answer = torch.zeros_like(F)
        rows = torch.arange(n, device=F.device)
        floor = 1e-13 * F.abs().amax(1, keepdim=True)
        fewest = torch.full((n,), k + 1, device=F.device)
        tries = torch.full((n,), 3, device=F.device)
        order = torch.arange(1, k + 1, device=F.device)
        for _ in range(50 + 5 * k):
            X = _restricted(gram, F, passive)
            gradient = X @ gram - F
            wrong = torch.where(passive, X, gradient).lt(-floor)
            count = wrong.sum(1)
            done = count == 0
            if bool(done.any()):
                answer[rows[done]] = X[done].clamp_(min=0)
                go = ~done
                if not bool(go.any()):
                    return answer
                rows, F, passive, wrong = rows[go], F[go], passive[go], wrong[go]
                floor, count, fewest, tries = floor[go], count[go], fewest[go], tries[go]
            # Exchange all wrong indices while that helps (at most 3 times in vain), then
            # only the last one, which cannot cycle.
            improved = count < fewest
            fewest = torch.where(improved, count, fewest)
            tries = torch.where(improved, 3, tries - 1)
            last = (wrong * order) == (wrong * order).amax(1, keepdim=True)
            passive = passive ^ (wrong & (last | (tries >= 0)[:, None]))
        answer[rows] = _restricted(gram, F, passive).clamp_(min=0)
        return answer


def _restricted(gram: torch.Tensor, F: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Solve G_S x_S = f_S for each row's support S; x is 0 elsewhere. All (m, k)."""
    k = F.shape[1]
    if k <= _GATHERED_FROM:
        return _masked_solve(gram, F, support)
    # Supports are gathered to systems of few sizes, which hang on the row alone: so does its
    # answer, to the bit. What a size has more is filled with unknowns that are 0 by themselves.
    count = support.sum(1)
    size = (-(count // -_SIZES) * _SIZES).clamp(min=_SIZES)
    wide = torch.block_diag(gram, torch.eye(_SIZES, dtype=gram.dtype, device=gram.device))
    padded = torch.nn.functional.pad(F, (0, _SIZES))
    answer = torch.zeros_like(padded)
    for most in size.unique().tolist():
        rows = (size == most).nonzero()[:, 0]
        index = _members(support[rows], count[rows], most)
        part = _cholesky(wide[index[:, :, None], index[:, None, :]], padded[rows[:, None], index])
        answer[rows[:, None], index] = part
    return answer[:, :k]


def _members(support: torch.Tensor, count: torch.Tensor, most: int) -> torch.Tensor:
    """List the members of each row's support (m, k), then k, k + 1, ... until there are `most`."""
    k = support.shape[1]
    row, member = support.nonzero(as_tuple=True)
    places = torch.arange(most, device=support.device)
    index = k + places - count[:, None]
    first = count.cumsum(0) - count
    index[row, torch.arange(len(row), device=row.device) - first[row]] = member
    return index


def _masked_solve(gram: torch.Tensor, F: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Solve with diag(s) G diag(s) + diag(1 - s), which needs no gather."""
    mask = support.to(F.dtype)
    system = gram * (mask[:, :, None] * mask[:, None, :]) + torch.diag_embed(1 - mask)
    return _cholesky(system, F * mask) * mask


def _cholesky(system: torch.Tensor, F: torch.Tensor) -> torch.Tensor:
    """Solve positive semi-definite systems (m, s, s) for the rows of F (m, s)."""
    factor, info = torch.linalg.cholesky_ex(system)
    if bool((info > 0).any()):
        # A support with collinear rows: the least ridge that rounding can see.
        ridge = 4 * F.shape[1] * torch.finfo(F.dtype).eps * system.diagonal(dim1=-2, dim2=-1).amax()
        eye = torch.eye(F.shape[1], dtype=F.dtype, device=F.device)
        bad = (info > 0)[:, None, None]
        factor = torch.where(bad, torch.linalg.cholesky_ex(system + ridge * eye)[0], factor)
    return torch.cholesky_solve(F[..., None], factor)[..., 0]


def _adjoint(
    v: torch.Tensor, U: torch.Tensor, W: torch.Tensor, l2: float, batch_size: int | None
) -> torch.Tensor:
    """Solve (W_S W_S' + l2 I) q = v_S for each row, in float64."""
    basis = _double(W)
    k = len(basis)
    gram, scale = _gram(basis, l2)
    live = (scale > 0).detach()
    scale = torch.where(live, scale, 1)
    # Scaled to unit diagonal, as in the forward step, so that the Cholesky factor is stable.
    unit = gram / (scale[:, None] * scale)
    flat_v = _double(v).reshape(-1, k) / scale
    support = (_double(U.detach()) > 0).reshape(-1, k)
    step = batch_size or max(1, _SOLVER_ELEMENTS // k**2)
    parts = [
        _restricted(unit, rows, inside)
        for rows, inside in zip(flat_v.split(step), support.split(step), strict=True)
    ]
    q = torch.cat(parts) if parts else flat_v
    return (q / scale).reshape(*v.shape[:-1], k)
