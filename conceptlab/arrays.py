"""The array boundary: like in, like out.

Public methods take NumPy arrays, tensors on any device, or anything that
scikit-learn takes. Inside, one kind of array is used; at the door the answer
is turned back into the caller's kind, device and floating dtype.
"""

from __future__ import annotations

__all__ = [
    "ArrayKind",
    "ArrayLike",
    "as_floats",
    "as_numpy",
    "as_tensor",
    "check_features",
    "check_finite",
    "check_scale",
    "like_input",
    "real_array",
    "resolve_device",
]

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy import typing as npt
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from conceptlab.errors import InputError

ArrayLike = npt.ArrayLike | torch.Tensor
"""What public functions take for an array: NumPy's, tensors, frames, sequences of numbers."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ArrayKind:
    """What a caller's array is: library, floating dtype and device.

    Attributes
    ----------
    is_tensor : bool
        Whether the array is a :class:`torch.Tensor`.
    dtype : torch.dtype
        Floating dtype of the answer. Integers and booleans answer in float64
        for NumPy and in torch's default dtype for tensors.
    device : torch.device
        Where the answer lives; the CPU for NumPy.

    Examples
    --------
    >>> kind = ArrayKind.of(np.ones(3, dtype=np.float32))
    >>> kind.is_tensor, kind.dtype
    (False, torch.float32)
    """

    is_tensor: bool
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, array: Any) -> ArrayKind:
        """Read the kind of `array`."""
        if isinstance(array, torch.Tensor):
            dtype = array.dtype if array.is_floating_point() else torch.get_default_dtype()
            return cls(True, dtype, array.device)
        found = getattr(array, "dtype", None)
        single = isinstance(found, np.dtype) and found in (np.float32, np.float16)
        return cls(False, torch.float32 if single else torch.float64, torch.device("cpu"))

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 for float64, float32 for everything narrower."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def restore(self, value: Any) -> Any:
        """Turn `value` (a floating array or tensor) into this kind.

        Tuples and lists are restored item by item; anything that is not a
        floating array passes through, but integer and boolean arrays change
        library (never dtype).
        """
        if isinstance(value, tuple | list):
            return type(value)(self.restore(item) for item in value)
        if not isinstance(value, np.ndarray | torch.Tensor):
            return value
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.asarray(value))
        floating = tensor.is_floating_point()
        if self.is_tensor:
            return tensor.to(self.device, self.dtype if floating else tensor.dtype)
        if isinstance(value, np.ndarray) and not floating:
            return value
        tensor = tensor.detach().to("cpu", self.compute_dtype if floating else tensor.dtype)
        return tensor.numpy()


def like_input(method: F) -> F:
    """Decorate a method so that its answer has the kind of its first argument.

    Parameters
    ----------
    method : callable
        Receives the argument unchanged and may answer with a NumPy array or a
        tensor; see :meth:`ArrayKind.restore`.

    Returns
    -------
    callable

    Examples
    --------
    >>> class Halver:
    ...     @like_input
    ...     def transform(self, X):
    ...         return torch.as_tensor(X) / 2
    >>> Halver().transform(np.ones(2, dtype=np.float32))
    array([0.5, 0.5], dtype=float32)
    """

    @functools.wraps(method)
    def wrapper(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        return ArrayKind.of(X).restore(method(self, X, *args, **kwargs))

    return wrapper  # type: ignore[return-value]


def resolve_device(device: str | torch.device = "auto", *, like: Any = None) -> torch.device:
    """Choose the device to compute on.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` takes the device of `like` when that is a tensor, else the
        first CUDA device, else Apple's MPS, else the CPU.
    like : array-like, optional
        The data that is about to be used.

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If the device is unknown or absent (``CL-INPUT-DEVICE``).

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        if isinstance(like, torch.Tensor):
            return like.device
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:0', 'mps' ..., got {device!r}.",
            code="CL-INPUT-DEVICE",
        ) from error
    absent = {
        "cuda": lambda: (chosen.index or 0) >= torch.cuda.device_count(),
        "mps": lambda: not torch.backends.mps.is_available(),
    }
    if chosen.type in absent and absent[chosen.type]():
        found = f"{torch.cuda.device_count()} CUDA device(s)"
        raise InputError(
            f"device={str(chosen)!r} was asked for, but torch {torch.__version__} sees {found} "
            "here. "
            "Use device='auto' to take what there is.",
            code="CL-INPUT-DEVICE",
        )
    return chosen


def as_tensor(
    array: Any,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    name: str = "The input",
) -> torch.Tensor:
    """Give `array` as a tensor in its compute dtype, without a copy where possible.

    Parameters
    ----------
    array : array-like
        NumPy array, tensor, or nested sequence of numbers.
    device, dtype : optional
        Where and in what; by default the array's own device, and float32 or
        float64 by :attr:`ArrayKind.compute_dtype`.
    name : str
        What a message calls it.

    Returns
    -------
    torch.Tensor

    Raises
    ------
    InputError
        For what are no real numbers (``CL-INPUT-TYPE``).

    Examples
    --------
    >>> as_tensor(np.ones(2), dtype=torch.float32)
    tensor([1., 1.])
    """
    kind = ArrayKind.of(array)
    tensor = array if isinstance(array, torch.Tensor) else _from_array(array, name)
    if tensor.is_complex():
        raise _no_numbers(name, "complex ones. Take .real or .abs()")
    return tensor.to(device=device or kind.device, dtype=dtype or kind.compute_dtype)


def as_floats(array: Any, name: str = "The input") -> np.ndarray:
    """Give `array` as a new NumPy array of float64.

    Parameters
    ----------
    array : array-like
        Numbers, as an array, a tensor or nested sequences.
    name : str
        What a message calls it.

    Returns
    -------
    numpy.ndarray
        Of the same shape.

    Raises
    ------
    InputError
        For what are no real numbers (``CL-INPUT-TYPE``).

    Examples
    --------
    >>> as_floats([[1, 2], [3, 4]])
    array([[1., 2.],
           [3., 4.]])
    """
    values = as_numpy(array) if isinstance(array, torch.Tensor) else array
    return real_array(values, name).astype(np.float64)


def real_array(array: Any, name: str = "The input") -> np.ndarray:
    """Give a NumPy array of real numbers, or say what it is instead.

    Parameters
    ----------
    array : array-like
        Anything but a tensor.
    name : str
        What a message calls it.

    Returns
    -------
    numpy.ndarray
        In the dtype that it has; shares memory where it can.

    Raises
    ------
    InputError
        For None, texts, mappings, objects, complex numbers, and rows of
        different lengths (``CL-INPUT-TYPE``).

    Examples
    --------
    >>> real_array([1, 2])
    array([1, 2])
    >>> try:
    ...     real_array([[1], [1, 2]], "X")
    ... except InputError as error:
    ...     print(error)
    X must hold real numbers, got rows of different lengths. [CL-INPUT-TYPE]
    """
    if array is None or isinstance(array, str | bytes | Mapping | Set):
        shown = repr(array)
        short = shown if len(shown) < 60 else f"a {type(array).__name__}"
        raise _no_numbers(name, f"{short}. Give an array, a tensor or a list of numbers")
    found = _even(array, name)
    if found.dtype.kind == "c":
        raise _no_numbers(name, "complex ones. Take .real or abs()")
    if found.dtype.kind not in "fiub":
        raise _no_numbers(name, f"values of dtype {found.dtype}. Numbers convert by .astype(float)")
    return found


def _even(array: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(array)
    except ValueError as error:
        raise _no_numbers(name, "rows of different lengths") from error


def _no_numbers(name: str, what: str) -> InputError:
    return InputError(f"{name} must hold real numbers, got {what}.", code="CL-INPUT-TYPE")


def _from_array(array: Any, name: str = "The input") -> torch.Tensor:
    array = real_array(array, name)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def as_numpy(array: Any) -> np.ndarray:
    """Give `array` as a NumPy array; bfloat16 and float16 tensors become float32.

    Parameters
    ----------
    array : array-like
        A tensor may be on any device and have a gradient.

    Returns
    -------
    numpy.ndarray
        Shares memory with `array` where it can; of any dtype, texts too.

    Raises
    ------
    InputError
        For rows of different lengths (``CL-INPUT-TYPE``).

    Examples
    --------
    >>> as_numpy(torch.ones(2))
    array([1., 1.], dtype=float32)
    """
    if isinstance(array, torch.Tensor):
        tensor = array.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(ArrayKind.of(array).compute_dtype)
        return np.asarray(tensor.numpy())
    return _even(array, "The input")


def check_finite(array: Any, name: str = "X") -> None:
    """Raise an error that names the first NaN or infinite entry of `array`.

    Parameters
    ----------
    array : array-like
        What is no array of floats passes.
    name : str
        What the message calls it.

    Raises
    ------
    InputError
        Code ``CL-INPUT-NONFINITE``.

    Examples
    --------
    >>> check_finite(np.ones((2, 3)))
    >>> try:
    ...     check_finite(np.array([[1.0, np.nan]]))
    ... except InputError as error:
    ...     print(error.code)
    CL-INPUT-NONFINITE
    """
    tensor = array if isinstance(array, torch.Tensor) else _from_array(array, name)
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
        return
    bad = ~torch.isfinite(tensor)
    count = int(bad.sum())
    if count == 0:  # the sum overflowed, the entries are fine
        return
    first = tuple(int(i) for i in bad.nonzero()[0])
    value = float(tensor[first])
    what = "NaN" if value != value else "infinity"
    raise InputError(
        f"Input {name} contains {what}: {count} of {tensor.numel()} entries are not finite, "
        f"the first at index {first}. Remove those rows, or impute them before this step.",
        code="CL-INPUT-NONFINITE",
    )


_SCALES = {torch.float32: 1e15, torch.float64: 1e50}


def check_scale(array: Any, name: str = "X") -> None:
    """Raise where entries are so large, or all so small, that their powers leave the dtype.

    Parameters
    ----------
    array : ndarray or Tensor
        What is not of single or double precision passes.
    name : str
        What the message calls it.

    Raises
    ------
    InputError
        Code ``CL-INPUT-RANGE``.

    Examples
    --------
    >>> check_scale(np.array([1e-12, 1e12]))
    >>> try:
    ...     check_scale(np.array([0.0, 1e200]))
    ... except InputError as error:
    ...     print(error.code)
    CL-INPUT-RANGE
    """
    tensor = array if isinstance(array, torch.Tensor) else _from_array(array, name)
    most = _SCALES.get(tensor.dtype)
    if most is None or not tensor.numel():
        return
    low, high = (abs(float(value)) for value in torch.aminmax(tensor.detach()))
    largest = max(low, high)
    if largest and not 1 / most <= largest <= most:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(
            f"The largest entry of {name} is {largest:.3g}: powers of such numbers are not held in "
            f"{kind}, which is good for {1 / most:.0e} to {most:.0e} here. Divide {name} by its "
            "largest entry first.",
            code="CL-INPUT-RANGE",
        )


def check_features(
    estimator: Any, X: Any, *, reset: bool, min_samples: int = 1, non_negative: bool = False
) -> Any:
    """Validate a feature matrix for `estimator` by scikit-learn's rules.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` (and ``feature_names_in_``) when `reset`.
    X : array-like of shape (n_samples, n_features)
        Tensors stay tensors on their device; everything else becomes NumPy.
    reset : bool
        True in ``fit``, False afterwards.
    min_samples : int
        The least number of rows.
    non_negative : bool
        Whether negative entries are an error.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        The matrix in float32 or float64.

    Raises
    ------
    InputError
        Not 2-D, not finite, negative, too few rows, another number of
        features than in ``fit``, or of a scale that the dtype cannot square.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> X = check_features(BaseEstimator(), [[1.0, 2.0], [3.0, 4.0]], reset=True)
    >>> X.shape, X.dtype
    ((2, 2), dtype('float64'))
    """
    if isinstance(X, torch.Tensor):
        matrix: Any = _check_tensor(estimator, X, reset=reset, min_samples=min_samples)
    else:
        if isinstance(X, Mapping | Set) and not issparse(X):
            real_array(X, "X")  # says what is wrong; scikit-learn would try to read it
        shape = np.shape(X) if hasattr(X, "shape") else ()
        if len(shape) > 2:
            raise _rank_error(estimator, tuple(shape))
        try:
            matrix = validate_data(
                estimator,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                ensure_min_samples=min_samples,
                ensure_all_finite=False,
            )
        except ValueError as error:
            code = _code_of(str(error))
            mend = _MENDS.get(code, "Give a matrix of numbers, one row for each sample.")
            raise InputError(f"{str(error).rstrip('. ')}. {mend}", code=code) from error
        check_finite(matrix)
    check_scale(matrix)
    if non_negative and matrix.shape[0] and float(matrix.min()) < 0:
        raise InputError(
            f"Negative values in data passed to {type(estimator).__name__}: the smallest is "
            f"{float(matrix.min()):.4g}, but a non-negative factorisation needs X >= 0. "
            "Use a layer after a ReLU, or SemiNMF, which takes any sign.",
            code="CL-INPUT-NEGATIVE",
        )
    return matrix


def _check_tensor(
    estimator: Any, X: torch.Tensor, *, reset: bool, min_samples: int
) -> torch.Tensor:
    if X.ndim != 2:
        raise _rank_error(estimator, tuple(X.shape))
    if X.is_complex():
        raise InputError("Complex data not supported: X must be real.", code="CL-INPUT-TYPE")
    n_samples, n_features = X.shape
    name = type(estimator).__name__
    if n_samples < min_samples or n_features < 1:
        raise InputError(
            f"Found array with {n_samples} sample(s) and {n_features} feature(s) "
            f"(n_samples = {n_samples}) while at least {min_samples} and 1 are needed by {name}. "
            f"{_MENDS['CL-INPUT-FEW']}",
            code="CL-INPUT-FEW",
        )
    if reset:
        estimator.n_features_in_ = n_features
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif n_features != estimator.n_features_in_:
        raise InputError(
            f"X has {n_features} features, but {name} is expecting {estimator.n_features_in_} "
            f"features as input. {_MENDS['CL-INPUT-FEATURES']}",
            code="CL-INPUT-FEATURES",
        )
    check_finite(X)
    return X.detach().to(ArrayKind.of(X).compute_dtype)


def _rank_error(estimator: Any, shape: tuple[int, ...]) -> InputError:
    name = type(estimator).__name__
    mend = (
        "X.reshape(1, -1)" if len(shape) == 1 else "EncodeImages(encoder) or a SplitModel in front"
    )
    return InputError(
        f"Expected 2D array (n_samples, n_features) in {name}, got {len(shape)}D array instead: "
        f"shape {shape} with dim {len(shape)}. Reshape your data: use {mend}.",
        code="CL-INPUT-RANK",
    )


_MENDS = {
    "CL-INPUT-FEATURES": "Use features of the same layer or encoder as in fit.",
    "CL-INPUT-FEW": "Give more rows.",
    "CL-INPUT-RANK": "Give a matrix (n_samples, n_features).",
}


def _code_of(message: str) -> str:
    """Map a sentence of scikit-learn's validation to one of our codes."""
    for part, code in (
        ("features, but", "CL-INPUT-FEATURES"),
        ("minimum of", "CL-INPUT-FEW"),
        ("Expected 2D", "CL-INPUT-RANK"),
        ("Reshape your data", "CL-INPUT-RANK"),
    ):
        if part in message:
            return code
    return "CL-INPUT-TYPE"
