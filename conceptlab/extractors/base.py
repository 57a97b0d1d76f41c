"""The contract of everything that finds concepts in a matrix of activations."""

from __future__ import annotations

__all__ = ["AffineCoder", "ConceptExtractor"]

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import (
    ArrayKind,
    ArrayLike,
    as_numpy,
    as_tensor,
    check_features,
    check_finite,
    like_input,
    resolve_device,
)
from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import read_plain_file, rebuilding, strict_json
from conceptlab.parameters import Whole
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    from conceptlab.bank import ConceptBank


class ConceptExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of the extractors: A (n, p) is coded as U (n, k) and decoded as U W + offset.

    A subclass writes ``components_`` (k, p), and ``n_features_in_`` by
    :func:`conceptlab.arrays.check_features`, in ``fit``, and gives its code as a module in
    :meth:`as_module`; transforming, decoding, files, banks and fingerprints are here. Fitted
    attributes are NumPy arrays or JSON values.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, p)
        The concepts, W in the papers.
    n_concepts_ : int
        k.
    offset_ : numpy.ndarray of shape (p,)
        Only where decoding adds a constant (the mean).

    Examples
    --------
    >>> from conceptlab import NMFConcepts
    >>> extractor = NMFConcepts(n_concepts=2, random_state=0)
    >>> isinstance(extractor, ConceptExtractor)
    True
    >>> extractor.fit(np.random.default_rng(0).random((20, 5))).components_.shape
    (2, 5)
    """

    _non_negative = False
    """Whether the data must be non-negative."""
    _overcomplete = False
    """Whether k may exceed the number of features."""

    components_: np.ndarray
    n_features_in_: int

    def as_module(self) -> torch.nn.Module:
        """Give the fitted code as a differentiable module.

        Returns
        -------
        torch.nn.Module
            Maps activations (..., p), channels last with any leading axes, to coefficients
            (..., k) in the dtype of its input. Its buffers move with ``.to(device)``; it
            shares no memory with the estimator.
        """
        raise NotImplementedError

    def transform(self, X: ArrayLike) -> Any:
        """Code activations.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Activations of the layer of the fit.

        Returns
        -------
        array of shape (n, k)
            Coefficients U; kind, device and floating dtype as `X`.

        Raises
        ------
        InputError
            Wrong number of axes or features, or entries that are not finite.
        """
        return self._transform(X)

    @like_input
    def _transform(self, X: ArrayLike) -> Any:
        check_is_fitted(self)
        rows = check_features(self, X, reset=False, non_negative=self._non_negative)
        device = resolve_device(getattr(self, "device", "auto"), like=rows)
        with torch.no_grad():
            return self.as_module().to(device)(as_tensor(rows, device=device))

    def fit_transform(self, X: ArrayLike, y: ArrayLike | None = None) -> Any:
        """Fit to `X` and code it; the same as ``fit(X).transform(X)``.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Activations.
        y : None
            Ignored.

        Returns
        -------
        array of shape (n, k)
        """
        return self.fit(X, y).transform(X)

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Find the concepts of `X` (n, p)."""
        raise NotImplementedError

    @like_input
    def inverse_transform(self, U: ArrayLike) -> Any:
        """Decode coefficients: U W, plus the offset where the method has one.

        Parameters
        ----------
        U : array-like of shape (..., k)
            Coefficients, any leading axes.

        Returns
        -------
        array of shape (..., p)

        Raises
        ------
        InputError
            If the last axis is not k, or an entry is not finite.
        """
        check_is_fitted(self)
        codes = as_tensor(np.asarray(U) if not isinstance(U, torch.Tensor) else U)
        if codes.ndim == 0 or codes.shape[-1] != self.n_concepts_:
            raise InputError(
                f"Expected coefficients with {self.n_concepts_} concepts on the last axis, got "
                f"shape {tuple(codes.shape)}.",
                code="CL-INPUT-SHAPE",
            )
        check_finite(codes, "U")
        decoded = codes @ torch.as_tensor(self.components_).to(codes)
        offset = getattr(self, "offset_", None)
        return decoded if offset is None else decoded + torch.as_tensor(offset).to(codes)

    @property
    def n_concepts_(self) -> int:
        """Number of concepts that were found."""
        check_is_fitted(self)
        return len(self.components_)

    @property
    def _n_features_out(self) -> int:
        return self.n_concepts_

    @property
    def fingerprint(self) -> str:
        """sha256 of the class, its options for coding, and the fitted arrays."""
        check_is_fitted(self)
        arrays = {k: v for k, v in self._fitted().items() if isinstance(v, np.ndarray)}
        arrays = {k: v for k, v in arrays.items() if v.dtype.kind in "fiub"}
        return fingerprint(type(self).__name__, self._coding_options(), arrays)

    def _coding_options(self) -> dict[str, Any]:
        """Name the parameters that change what ``transform`` answers."""
        names = ("l2", "assignment", "temperature")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def to_bank(self, names: Sequence[str] | None = None, space: str | None = None) -> ConceptBank:
        """Give the concepts as directions in the space of the activations.

        Parameters
        ----------
        names : sequence of str, optional
            One for each concept; ``nmfconcepts0``, ... by default.
        space : str, optional
            Fingerprint of the encoder or split that made the activations. Without it the
            bank only fits features of this extractor's own space.

        Returns
        -------
        ConceptBank
        """
        from conceptlab.bank import ConceptBank

        check_is_fitted(self)
        chosen = list(names) if names is not None else list(self.get_feature_names_out())
        return ConceptBank(
            np.asarray(self.components_),
            chosen,
            space=space or f"extractor:{self.fingerprint}",
            meta={"extractor": type(self).__name__, "fingerprint": self.fingerprint},
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write parameters and fitted state to the folder `path`.

        Parameters
        ----------
        path : path-like
            A folder of safetensors and JSON with hashes; no pickle.

        Returns
        -------
        pathlib.Path
            The folder; :meth:`load` gives an estimator that answers with the same bits.
        """
        check_is_fitted(self)
        params, fitted = self.get_params(deep=False), self._fitted()
        tensors: dict[str, np.ndarray] = {}
        data: dict[str, Any] = {}
        for part, values in (("param", params), ("fitted", fitted)):
            data[part] = {}
            for name, value in values.items():
                if isinstance(value, np.ndarray | torch.Tensor) and as_numpy(value).dtype != object:
                    tensors[f"{part}:{name}"] = as_numpy(value)
                else:
                    data[part][name] = _as_json(name, value, getattr(self, "seed_", None))
        return write_bundle(path, Bundle(type(self).__name__, data, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an extractor that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder. ``ConceptExtractor.load`` reads any extractor, a subclass only its own.

        Returns
        -------
        ConceptExtractor

        Raises
        ------
        CheckpointError
            Missing, damaged, newer, or another kind of object.
        """
        kinds = {kind.__name__: kind for kind in _subclasses(cls)}
        kind = cls.__name__
        if cls is ConceptExtractor:
            kind = _kind_of(Path(path), kind)
            if kind not in kinds:  # the package's own are imported on first use
                kinds |= _own_kinds()
            if kind not in kinds:
                raise CheckpointError(
                    f"{path} holds a {kind!r}, which is no extractor. Load it with that class.",
                    code="CL-CHECKPOINT-KIND",
                )
        bundle = read_bundle(path, kind)
        with rebuilding(path, kind):
            params = dict(bundle.data["param"])
            fitted = dict(bundle.data["fitted"])
            for key, array in bundle.tensors.items():
                part, name = key.split(":", 1)
                (params if part == "param" else fitted)[name] = array
            loaded = kinds.get(kind, cls)(**params)
            loaded._restore(fitted)
            if not isinstance(loaded.components_, np.ndarray) or loaded.components_.ndim != 2:
                raise ValueError("components_ is no matrix")
        return loaded

    def _fitted(self) -> dict[str, Any]:
        """Collect the fitted attributes; overridden where one is not an array or a JSON value."""
        return {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}

    def _restore(self, fitted: dict[str, Any]) -> None:
        if "feature_names_in_" in fitted:
            fitted["feature_names_in_"] = np.asarray(fitted["feature_names_in_"], dtype=object)
        for name, value in fitted.items():
            if name.startswith("_") or not name.endswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute")
            setattr(self, name, value)

    def _check_n_concepts(self, n_concepts: Any, n: int, p: int) -> int:
        """Validate the number of concepts against the (n, p) data."""
        n_concepts = Whole(1).check("n_concepts", n_concepts)
        limit = n if self._overcomplete else min(n, p)
        if n_concepts > limit:
            raise InputError(
                f"{type(self).__name__} cannot find {n_concepts} concepts in {n} sample(s) with "
                f"{p} feature(s) (n_samples = {n}, n_features = {p}); at most {limit}. "
                f"Set n_concepts={limit} or lower, or give more data.",
                code="CL-INPUT-MANY",
            )
        return n_concepts

    def _check_data(self, X: ArrayLike) -> torch.Tensor:
        """Validate the matrix of a fit and move it to the device of the computation."""
        rows = check_features(self, X, reset=True, min_samples=2, non_negative=self._non_negative)
        device = resolve_device(getattr(self, "device", "auto"), like=rows)
        matrix = as_tensor(rows, device=device, dtype=ArrayKind.of(rows).compute_dtype)
        if not bool(matrix.any()):
            raise InputError(
                f"All entries of X, of shape {tuple(matrix.shape)}, are zero: there is nothing to "
                "factorise. Check the layer, or the images that were given.",
                code="CL-INPUT-ZERO",
            )
        return matrix

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._non_negative
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AffineCoder(torch.nn.Module):
    """u = (a - mean) M: the code of the linear methods.

    Parameters
    ----------
    mean : array of shape (p,)
        Subtracted first.
    matrix : array of shape (p, k)
        M.
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    def __init__(self, mean: np.ndarray, matrix: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("matrix", torch.tensor(matrix))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Code activations (..., p) as (..., k)."""
        return (activations - self.mean.to(activations)) @ self.matrix.to(activations)


def _as_json(name: str, value: Any, seed: int | None) -> Any:
    if name == "random_state" and not isinstance(value, int | np.integer | None):
        return seed  # a generator has no file form; its draw is what made the result
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.ndarray):  # feature names
        return [str(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _subclasses(cls: type[ConceptExtractor]) -> list[type[Any]]:
    found: list[type[Any]] = [cls]
    for child in cls.__subclasses__():
        found += _subclasses(child)
    return found


def _own_kinds() -> dict[str, type[Any]]:
    import conceptlab.extractors as home

    found = {name: getattr(home, name) for name in dir(home)}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, ConceptExtractor)
    }


def _kind_of(path: Path, default: str) -> str:
    try:
        return str(strict_json(read_plain_file(path / "manifest.json"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return default  # read_bundle tells what is wrong
