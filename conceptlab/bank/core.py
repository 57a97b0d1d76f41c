"""The bank itself: a frozen set of named vectors."""

from __future__ import annotations

__all__ = ["SIMILARITIES", "ConceptBank", "Similarity"]

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor, check_finite, like_input
from conceptlab.bank.checks import (
    check_vectors,
    checked_meta,
    checked_names,
    checked_parents,
    frozen,
)
from conceptlab.bank.makers import BankMakers
from conceptlab.bank.table import bank_frame, bank_html, short_space
from conceptlab.errors import InputError, SpaceMismatchError, unknown_name
from conceptlab.io.objects import Parts, Saved
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    import pandas

    from conceptlab.encoders.base import Encoder

SIMILARITIES = ("affine", "dot", "cosine")
Similarity = Literal["affine", "dot", "cosine"]


class ConceptBank(BankMakers, Saved):
    """Concepts as named vectors in the space of one encoder; frozen.

    ``bank["red"]`` and ``bank[0]`` are vectors; ``bank[:3]`` and
    ``bank[["red", "blue"]]`` are smaller banks; iteration goes over names.

    Parameters
    ----------
    vectors : array-like of shape (k, d)
        One direction a concept; float16, float32 and float64 are kept.
    names : sequence of k str
        Different from each other and not empty.
    space : str or None
        Fingerprint of the encoder, or of model and layer. None is unknown,
        and then nothing is compared with it.
    intercepts : array-like of shape (k,), optional
        Added to the scores, for concepts that are classifiers.
    parents : sequence of k int or None, optional
        Index of the concept that each one was split from, or None.
    meta : mapping, optional
        JSON values on how the bank came about. ``meta["concepts"]`` may hold
        columns of k values, which are selected and merged with the concepts.

    Attributes
    ----------
    vectors : ndarray of shape (k, d)
        Read-only.
    names : tuple of str
    space : str or None
    intercepts : ndarray of shape (k,) or None
        Read-only.
    parents : tuple of (int or None), or None

    Raises
    ------
    InputError
        Names that are duplicate, empty or no strings (``CL-INPUT-NAMES``);
        vectors of length zero (``CL-INPUT-ZERO``) or not finite
        (``CL-INPUT-NONFINITE``), by name; shapes that do not fit
        (``CL-INPUT-SHAPE``).

    Examples
    --------
    >>> bank = ConceptBank(np.eye(3)[:2], ["round", "red"], space=None)
    >>> bank.score(np.array([[0.5, 2.0, 9.0]]))
    array([[0.5, 2. ]])
    >>> list(bank), bank["red"].tolist(), len(bank[["red"]])
    (['round', 'red'], [0.0, 1.0, 0.0], 1)
    """

    _kind = "ConceptBank"
    __slots__ = ("_fingerprint", "_meta", "intercepts", "names", "parents", "space", "vectors")

    vectors: np.ndarray
    names: tuple[str, ...]
    space: str | None
    intercepts: np.ndarray | None
    parents: tuple[int | None, ...] | None
    _meta: str
    _fingerprint: str | None

    def __init__(
        self,
        vectors: Any,
        names: Sequence[str],
        *,
        space: str | None,
        intercepts: Any = None,
        parents: Sequence[int | None] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if space is not None and not isinstance(space, str):
            raise InputError(
                f"space must be a fingerprint (encoder.fingerprint) or None, got {space!r}.",
                code="CL-INPUT-TYPE",
            )
        matrix = frozen(vectors)
        kept = checked_names(names)
        check_vectors(matrix, kept)
        offsets = None
        if intercepts is not None:
            offsets = frozen(intercepts, np.result_type(matrix.dtype, np.float32))
        if offsets is not None and (
            offsets.shape != (len(kept),) or not np.isfinite(offsets).all()
        ):
            raise InputError(
                f"intercepts must be {len(kept)} finite numbers, one for each concept, got shape "
                f"{offsets.shape}.",
                code="CL-INPUT-SHAPE",
            )
        fields = {
            "vectors": matrix,
            "names": kept,
            "space": space,
            "intercepts": offsets,
            "parents": checked_parents(parents, len(kept)),
            "_meta": checked_meta(meta, len(kept)),
            "_fingerprint": None,
        }
        for key, value in fields.items():
            object.__setattr__(self, key, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"A ConceptBank is frozen; {name!r} cannot be set. Use rename, select or merge, which "
            "give a new bank."
        )

    __delattr__ = None  # type: ignore[assignment]

    # -- use ------------------------------------------------------------------
    @like_input
    def score(
        self, features: ArrayLike, *, similarity: Similarity = "affine", space: str | None = None
    ) -> Any:
        """Score samples on each concept.

        Parameters
        ----------
        features : array-like of shape (..., d)
            Vectors of the encoder whose space this is.
        similarity : {"affine", "dot", "cosine"}
            x·w + b (without intercepts the same as the dot product); x·w;
            or the cosine of the angle. For unit features and a bank of texts
            all three agree.
        space : str, optional
            Fingerprint of what made `features`, to be compared with the bank's.

        Returns
        -------
        array of shape (..., k)
            Like in, like out.

        Raises
        ------
        SpaceMismatchError
            If `space` is another one.
        InputError
            Vectors of another length (``CL-INPUT-FEATURES``), NaN.
        """
        if similarity not in SIMILARITIES:
            raise unknown_name("similarity", similarity, SIMILARITIES)
        if space is not None:
            self.check_space(space)
        x = as_tensor(features)
        if x.ndim == 0 or x.shape[-1] != self.n_features:
            raise InputError(
                f"features have shape {tuple(x.shape)}, but the vectors of this bank have length "
                f"{self.n_features}. Encode with the encoder that the bank was made with "
                f"(space {short_space(self.space)}).",
                code="CL-INPUT-FEATURES",
            )
        check_finite(x, "features")
        w = as_tensor(self.vectors, device=x.device, dtype=x.dtype)
        if similarity == "cosine":
            return _unit(x) @ _unit(w).T
        if similarity == "affine" and self.intercepts is not None:
            return x @ w.T + as_tensor(self.intercepts, device=x.device, dtype=x.dtype)
        return x @ w.T

    def check_space(self, other: str | Encoder | ConceptBank | None) -> None:
        """Raise an error if `other` is of another space; unknown spaces pass.

        Parameters
        ----------
        other : str, Encoder, ConceptBank or None
            A fingerprint, or what has one.

        Raises
        ------
        SpaceMismatchError
            Names both fingerprints.
        """
        theirs = other.space if isinstance(other, ConceptBank) else other
        theirs = getattr(theirs, "fingerprint", theirs)
        if self.space is None or theirs is None or self.space == theirs:
            return
        mine, other_space = short_space(self.space), short_space(theirs)
        raise SpaceMismatchError(
            f"This bank is of space {mine}, but {other_space} was given: vectors of two encoders "
            "(or of one with other weights or preprocessing) cannot be compared. Make the bank "
            "again with the encoder that is used now."
        )

    def select(self, which: Any) -> ConceptBank:
        """Keep some concepts, in the order given.

        Parameters
        ----------
        which : str, int, slice, sequence of names or indices, mask, or callable
            A callable takes a name and tells whether to keep it.

        Returns
        -------
        ConceptBank
            Parents that are left out are replaced by their nearest kept ancestor.

        Raises
        ------
        InputError
            Unknown names, indices out of range, a mask of another length, or
            nothing left.
        """
        indices = self._indices(which)
        if not indices:
            raise InputError("No concept is left after the selection.", code="CL-INPUT-EMPTY")
        repeated = sorted({self.names[i] for i in indices if indices.count(i) > 1})
        if repeated:
            raise InputError(
                f"Selected more than once: {repeated[:5]}. Name each concept once.",
                code="CL-INPUT-NAMES",
            )
        parents = None
        if self.parents is not None:
            place = {old: new for new, old in enumerate(indices)}
            parents = [self._kept_ancestor(i, place) for i in indices]
        meta = self.meta
        if "concepts" in meta:
            columns = meta["concepts"].items()
            meta["concepts"] = {key: [column[i] for i in indices] for key, column in columns}
        return ConceptBank(
            self.vectors[indices],
            [self.names[i] for i in indices],
            space=self.space,
            intercepts=None if self.intercepts is None else self.intercepts[indices],
            parents=parents,
            meta=meta,
        )

    def merge(self, other: ConceptBank) -> ConceptBank:
        """Join two banks of one space, these concepts first.

        Parameters
        ----------
        other : ConceptBank

        Returns
        -------
        ConceptBank
            Where one bank has intercepts, the other's count as zero.

        Raises
        ------
        SpaceMismatchError
            If the banks are of two spaces.
        InputError
            If a name is in both (``CL-INPUT-NAMES``), or lengths differ.
        """
        if not isinstance(other, ConceptBank):
            raise InputError(
                f"merge takes a ConceptBank, got {type(other).__name__}.", code="CL-INPUT-TYPE"
            )
        self.check_space(other)
        if self.n_features != other.n_features:
            raise InputError(
                f"The banks' vectors have lengths {self.n_features} and {other.n_features}.",
                code="CL-INPUT-FEATURES",
            )
        both = [name for name in other.names if name in set(self.names)]
        if both:
            raise InputError(
                f"{len(both)} names are in both banks, such as {both[:5]}. Rename or leave out "
                "those of one: bank.rename({'red': 'red (2)'}) or bank.select(...).",
                code="CL-INPUT-NAMES",
            )
        intercepts = None
        if self.intercepts is not None or other.intercepts is not None:
            parts = (
                np.zeros(len(b)) if b.intercepts is None else b.intercepts for b in (self, other)
            )
            intercepts = np.concatenate(list(parts)).astype(self.vectors.dtype)
        parents: list[int | None] | None = None
        if self.parents is not None or other.parents is not None:
            shifted = [None if p is None else p + len(self) for p in other.parents or ()]
            parents = [
                *(self.parents or [None] * len(self)),
                *(shifted or [None] * len(other)),
            ]
        mine, theirs = self.meta, other.meta
        meta = {**theirs, **mine}
        left, right = mine.get("concepts", {}), theirs.get("concepts", {})
        if left or right:
            meta["concepts"] = {
                key: [*left.get(key, [None] * len(self)), *right.get(key, [None] * len(other))]
                for key in {**left, **right}
            }
        return ConceptBank(
            np.concatenate([self.vectors, other.vectors]),
            [*self.names, *other.names],
            space=self.space if self.space is not None else other.space,
            intercepts=intercepts,
            parents=parents,
            meta=meta,
        )

    def rename(
        self, names: Mapping[str, str] | Sequence[str] | Callable[[str], str]
    ) -> ConceptBank:
        """Give concepts other names.

        Parameters
        ----------
        names : mapping from old to new, sequence of all new names, or callable

        Returns
        -------
        ConceptBank
        """
        if isinstance(names, Mapping):
            for name in names:
                self._index_of(name)
            new = [names.get(name, name) for name in self.names]
        elif callable(names):
            new = [names(name) for name in self.names]
        else:
            new = list(names)
        return self._replace(names=new)

    def nearest(self, vector: Any, n: int = 5) -> list[tuple[str, float]]:
        """Find the concepts that point most nearly where `vector` points.

        Parameters
        ----------
        vector : array-like of shape (d,), or str
            A name stands for that concept's vector, and is left out.
        n : int
            How many.

        Returns
        -------
        list of (name, cosine)
            The nearest first.
        """
        own = self._index_of(vector) if isinstance(vector, str) else None
        row = as_numpy(self.vectors[own] if own is not None else vector)
        if row.shape != (self.n_features,):
            raise InputError(
                f"vector must have shape ({self.n_features},), got {row.shape}.",
                code="CL-INPUT-FEATURES",
            )
        if not np.linalg.norm(row) > 0:
            raise InputError("vector has length zero and points nowhere.", code="CL-INPUT-ZERO")
        cosines = np.asarray(self.score(row.astype(np.float64), similarity="cosine"))
        order = [int(i) for i in np.argsort(-cosines, kind="stable") if i != own]
        return [(self.names[i], float(cosines[i])) for i in order[:n]]

    def similarity(self) -> np.ndarray:
        """Cosines between all concepts, (k, k)."""
        vectors = self.vectors.astype(np.float64)
        return np.asarray(self.score(vectors, similarity="cosine"))

    # -- files and tables -----------------------------------------------------
    @classmethod
    def load(cls, path: str | os.PathLike[str], *, space: str | Encoder | None = None) -> Self:
        """Read a bank that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
        space : str or Encoder, optional
            What the bank is to be used with; compared at once.

        Returns
        -------
        ConceptBank

        Raises
        ------
        CheckpointError
            Missing, damaged, or something else.
        SpaceMismatchError
            If it is of another space.
        """
        bank = super().load(path)
        bank.check_space(space)
        return bank

    def _parts(self) -> Parts:
        tensors = {"vectors": self.vectors}
        if self.intercepts is not None:
            tensors["intercepts"] = self.intercepts
        parents = None if self.parents is None else list(self.parents)
        data = {
            "names": list(self.names),
            "space": self.space,
            "parents": parents,
            "meta": self.meta,
        }
        return data, tensors

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        names = data.pop("names")
        return cls(tensors["vectors"], names, intercepts=tensors.get("intercepts"), **data)

    def to_frame(self) -> pandas.DataFrame:
        """Give a table with a row for each concept: norm, intercept, parent, and its columns."""
        columns = self.meta.get("concepts", {})
        return bank_frame(self.names, self.vectors, self.intercepts, self.parents, columns)

    @property
    def meta(self) -> dict[str, Any]:
        """How the bank came about; a copy."""
        meta: dict[str, Any] = json.loads(self._meta)
        return meta

    @property
    def n_features(self) -> int:
        """Length d of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def fingerprint(self) -> str:
        """sha256 of all but :attr:`meta`; equal banks have equal ones."""
        if self._fingerprint is None:
            offsets = "none" if self.intercepts is None else self.intercepts
            parents = None if self.parents is None else list(self.parents)
            value = fingerprint(
                "ConceptBank", self.vectors, list(self.names), self.space, offsets, parents
            )
            object.__setattr__(self, "_fingerprint", value)
        return str(self._fingerprint)

    # -- Python ---------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, str):
            return self.vectors[self._index_of(which)]
        if isinstance(which, int | np.integer) and not isinstance(which, bool):
            if not -len(self) <= which < len(self):  # ends a loop over indices
                raise IndexError(f"concept {which} of {len(self)}")
            return self.vectors[which]
        return self.select(which)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConceptBank):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:5])) + (", ..." if len(self) > 5 else "")
        return f"ConceptBank({len(self)} concepts × {self.n_features}: {shown})"

    def _repr_html_(self) -> str:
        return bank_html(self.to_frame(), self.n_features, self.space)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self._fields()
        for name in ("vectors", "intercepts"):  # a copy owns its arrays
            fields[name] = None if fields[name] is None else np.array(fields[name])
        return _rebuild, (fields,)

    def __copy__(self) -> ConceptBank:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ConceptBank:
        return self

    def __sklearn_clone__(self) -> ConceptBank:
        return self

    # -- inside ---------------------------------------------------------------
    def _fields(self) -> dict[str, Any]:
        return {
            "vectors": self.vectors,
            "names": self.names,
            "space": self.space,
            "intercepts": self.intercepts,
            "parents": self.parents,
            "meta": self.meta,
        }

    def _replace(self, **changes: Any) -> ConceptBank:
        return ConceptBank(**{**self._fields(), **changes})

    def _index_of(self, name: object) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise unknown_name("concept", name, self.names) from None

    def _indices(self, which: Any) -> list[int]:
        if callable(which):
            return [i for i, name in enumerate(self.names) if which(name)]
        if isinstance(which, slice):
            return list(range(len(self)))[which]
        if isinstance(which, str | int | np.integer) and not isinstance(which, bool):
            which = [which]
        items = (
            as_numpy(which).tolist()
            if isinstance(which, np.ndarray | torch.Tensor)
            else list(which)
        )
        if items and all(isinstance(item, bool | np.bool_) for item in items):
            if len(items) != len(self):
                raise InputError(
                    f"The mask has {len(items)} entries for {len(self)} concepts.",
                    code="CL-INPUT-SHAPE",
                )
            return [i for i, keep in enumerate(items) if keep]
        found = []
        for item in items:
            if isinstance(item, int | np.integer) and not isinstance(item, bool):
                if not -len(self) <= item < len(self):
                    raise InputError(
                        f"There is no concept {item}; the bank has {len(self)}, from 0 on.",
                        code="CL-INPUT-RANGE",
                    )
                found.append(int(item) % len(self))
            else:
                found.append(self._index_of(item))
        return found

    def _kept_ancestor(self, index: int, place: Mapping[int, int]) -> int | None:
        parent = (self.parents or ())[index]
        while parent is not None and parent not in place:
            parent = (self.parents or ())[parent]
        return None if parent is None else place[parent]


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Scale to length one, however small the entries; zero stays zero."""
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1.0)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp_min(1e-12)


def _rebuild(fields: dict[str, Any]) -> ConceptBank:
    return ConceptBank(**fields)
