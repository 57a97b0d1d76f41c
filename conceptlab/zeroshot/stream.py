"""Scores of many images for many classes in little memory.

Images go by in groups, classes in blocks, and within a block in tiles: one
matrix product and one pooling each. What is held at once depends neither on
the number of images nor on that of classes. Two rules need no tiles of
similarities, because the mean of dot products is the dot product with the mean.
"""

from __future__ import annotations

__all__ = ["Layout", "Scored", "Settings", "iter_scores"]

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from conceptlab.arrays import ArrayLike, as_numpy
from conceptlab.zeroshot.fast import CHUNK, RowPooler
from conceptlab.zeroshot.rules import Options, resolve_rule

_GROUP_BYTES = 8 << 20
_BLOCK_BYTES = 8 << 20
_TILE_BYTES = 4 << 20
_THREAD_CHUNK = 32 * 1024  # below this torch does not start threads of its own


class Scored(NamedTuple):
    """Scores (n, k) of some rows for some classes."""

    rows: slice
    columns: np.ndarray
    scores: Any

    @property
    def place(self) -> Any:
        """The columns as an index: a slice where they follow on, which is quicker."""
        first, last = int(self.columns[0]), int(self.columns[-1])
        if last - first + 1 == len(self.columns):  # they rise
            return slice(first, last + 1)
        return torch.from_numpy(self.columns) if torch.is_tensor(self.scores) else self.columns


@dataclass(frozen=True)
class Settings:
    """How to score.

    Attributes
    ----------
    rule : str
        Pooling rule.
    options : dict
        Complete options of the rule.
    scale : float
        Factor from cosine to logit.
    block_rows, tile_rows, group_rows : int
        Concepts a block, images a tile, images a group; upper bounds.
    device : torch.device
        Where to compute.
    """

    rule: str
    options: Options
    scale: float
    block_rows: int = 2048
    tile_rows: int = 256
    group_rows: int = 4096
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Layout:
    """Concept vectors class after class, and what column each class has in the scores.

    Attributes
    ----------
    vectors : ndarray of shape (n, d)
        Any floating dtype; converted block by block.
    offsets : ndarray of shape (K + 1,), int64
        Rows of class k are ``offsets[k]:offsets[k + 1]``.
    columns : ndarray of shape (K,), int64
        Column of class k.
    prior : ndarray of shape (n,) or None
        Sums to one within each class; None is uniform.
    """

    vectors: np.ndarray
    offsets: np.ndarray
    columns: np.ndarray
    prior: np.ndarray | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Layout:
        """Take what :meth:`arrays` gave."""
        prior = arrays.get("concept_prior")
        return cls(arrays["vectors"], arrays["offsets"], arrays["columns"], prior)

    def arrays(self) -> dict[str, np.ndarray]:
        """Give what it is made of, by name."""
        found = {"vectors": self.vectors, "offsets": self.offsets, "columns": self.columns}
        return found if self.prior is None else {**found, "concept_prior": self.prior}

    @property
    def counts(self) -> np.ndarray:
        """Concepts of each class, (K,)."""
        return np.diff(self.offsets)

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.columns)

    def weights(self) -> np.ndarray:
        """Prior of every concept within its class, (n,) float64."""
        if self.prior is not None:
            return self.prior
        return np.repeat(1 / self.counts, self.counts)

    @cached_property
    def means(self) -> Layout:
        """One vector a class: the mean of its concepts under the prior."""
        means = np.empty((self.n_classes, self.vectors.shape[1]), dtype=self._dtype)
        p = self.weights()
        for k in range(self.n_classes):
            rows = slice(self.offsets[k], self.offsets[k + 1])
            means[k] = p[rows] @ self.vectors[rows].astype(np.float64)
        return Layout(means, np.arange(self.n_classes + 1), self.columns)

    @cached_property
    def unit_means(self) -> Layout:
        """The same with length one."""
        norms = np.linalg.norm(self.means.vectors, axis=1, keepdims=True)
        return replace(self.means, vectors=self.means.vectors / np.maximum(norms, 1e-12))

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(np.float64 if self.vectors.dtype == np.float64 else np.float32)

    def blocks(self, block_rows: int, itemsize: int) -> Iterator[np.ndarray]:
        """Give classes with equally many concepts together, in the order of their columns."""
        counts = self.counts
        d = self.vectors.shape[1]
        for C in np.unique(counts):
            members = np.flatnonzero(counts == C)
            members = members[np.argsort(self.columns[members], kind="stable")]
            fitting = _BLOCK_BYTES // max(1, int(C) * d * itemsize)
            size = max(1, min(block_rows // int(C), fitting))
            for start in range(0, len(members), size):
                yield members[start : start + size]

    def rows(self, members: np.ndarray) -> slice | np.ndarray:
        """Give the rows of classes with equally many concepts; a slice where they follow on."""
        C = int(self.counts[members[0]])
        if (np.diff(members) == 1).all():
            return slice(int(self.offsets[members[0]]), int(self.offsets[members[-1] + 1]))
        return (self.offsets[members][:, None] + np.arange(C)).ravel()


def iter_scores(
    X: Any, layout: Layout, settings: Settings, *, group_rows: int | None = None
) -> Iterator[Scored]:
    """Score images for classes, a part at a time.

    Parameters
    ----------
    X : ndarray or Tensor of shape (N, d), float32 or float64
        Rows get length one here; a row of zeros scores 0 for every class.
    layout : Layout
        The concepts.
    settings : Settings
        How to score.
    group_rows : int, optional
        At most so many images before the next; all classes come for one group
        before the next group starts.

    Yields
    ------
    Scored
        NumPy scores on the CPU, tensors elsewhere; the next one may overwrite
        nothing of what was given.
    """
    rule, options = settings.rule, settings.options
    if rule in {"mean", "mean_embedding"}:
        layout = layout.means if rule == "mean" else layout.unit_means
        rule, options = "mean", {}
    double = _is_double(X) and layout.vectors.dtype == np.float64
    itemsize = 8 if double else 4
    group = max(1, min(settings.group_rows, _GROUP_BYTES // (X.shape[1] * itemsize)))
    group = min(group, group_rows or group)
    settings = replace(settings, rule=rule, options=options)
    parts = [slice(start, min(start + group, len(X))) for start in range(0, len(X), group)]
    if settings.device.type != "cpu":
        for part in parts:
            for columns, rows, there in _score_device(X[part], layout, settings, double):
                yield Scored(_shifted(rows, part.start), columns, there)
        return
    with _Desk(settings, double=double) as desk:
        for part in parts:
            for columns, rows, values in _score_cpu(X[part], layout, settings, desk):
                yield Scored(_shifted(rows, part.start), columns, values)


def _shifted(rows: slice, start: int) -> slice:
    return slice(start + rows.start, start + rows.stop)


def _is_double(X: Any) -> bool:
    return str(X.dtype).endswith("float64")


class _Desk:
    """What all parts of one run on the CPU share: threads, poolers, room for a tile and a block.

    Room is kept because what is freed and asked for again, a block at a time, adds up.
    """

    def __init__(self, settings: Settings, *, double: bool) -> None:
        dtype = np.float64 if double else np.float32
        self.settings, self.dtype = settings, np.dtype(dtype)
        threads = torch.get_num_threads()
        self._chunk = CHUNK if threads == 1 else _THREAD_CHUNK
        self._executor = ThreadPoolExecutor(threads)
        self._threads = threads
        self._room = np.empty(0, dtype=dtype)
        self._block = torch.empty(0, dtype=torch.float64 if double else torch.float32)
        self._poolers: list[RowPooler] = []

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def tile(self, rows: int, width: int) -> np.ndarray:
        """Give room of shape (rows, width), the same again where it suffices."""
        if len(self._room) < rows * width:
            self._room = np.empty(0, dtype=self.dtype)  # never two at once
            self._room = np.empty(rows * width, dtype=self.dtype)
        return self._room[: rows * width].reshape(rows, width)

    def widened(self, block: torch.Tensor) -> torch.Tensor:
        """Give a block in the dtype of the computation; the next one may take its place."""
        if block.dtype == self._block.dtype:
            return block
        if self._block.numel() < block.numel():
            self._block = torch.empty(block.numel(), dtype=self._block.dtype)
        return self._block[: block.numel()].view(block.shape).copy_(block)

    def pool(self, S: np.ndarray) -> np.ndarray:
        """Share the rows among threads; NumPy's sort and arithmetic release the lock."""
        if not self._poolers or S.shape[1] != self._poolers[0].C:
            rule, options = self.settings.rule, self.settings.options
            self._poolers = [
                RowPooler(rule, options, S.shape[1], self.dtype, chunk=self._chunk)
                for _ in range(self._threads)
            ]
        if self._threads == 1:
            return self._poolers[0](S)
        out = np.empty(len(S), dtype=S.dtype)
        edges = np.linspace(0, len(S), self._threads + 1).astype(int)
        jobs = [
            self._executor.submit(pooler, S[a:b], out[a:b])
            for pooler, a, b in zip(self._poolers, edges[:-1], edges[1:], strict=True)
            if b > a
        ]
        for job in jobs:
            job.result()
        return out


def _score_cpu(
    X: ArrayLike, layout: Layout, settings: Settings, desk: _Desk
) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
    dtype = desk.dtype
    unit = _unit(as_numpy(X), settings.scale, dtype)
    rule = resolve_rule(settings.rule)[0]
    for members in layout.blocks(settings.block_rows, unit.itemsize):
        C, k = int(layout.counts[members[0]]), len(members)
        where = layout.rows(members)
        pieces = list(_pieces(layout.vectors, where, C * k, desk))
        step = max(1, min(settings.tile_rows, _TILE_BYTES // (C * k * unit.itemsize)))
        prior = None if layout.prior is None else layout.prior[where].reshape(k, C)
        for start in range(0, len(unit), step):
            part = unit[start : start + step]
            tile = desk.tile(len(part), C * k)
            # torch's product was 8 % faster than NumPy's, and uses as many threads as torch.
            rows, place, done = torch.from_numpy(part), torch.from_numpy(tile), 0
            for piece in pieces:
                matrix = piece()
                torch.mm(rows, matrix.T, out=place[:, done : done + len(matrix)])
                done += len(matrix)
            if C == 1:
                scores = tile.copy()
            elif prior is None:
                scores = desk.pool(tile.reshape(-1, C))
            else:
                scores = rule.score(
                    torch.from_numpy(tile.reshape(len(part), k, C)),
                    torch.from_numpy(prior.astype(dtype)),
                    settings.options,
                ).numpy()
            images = slice(start, start + len(part))
            yield layout.columns[members], images, scores.reshape(len(part), k)


def _pieces(
    vectors: np.ndarray, where: Any, size: int, desk: _Desk
) -> Iterator[Callable[[], torch.Tensor]]:
    """Give callables for the block's rows in the dtype of the computation.

    A view costs nothing; copies are kept while they are small, else made again
    for every tile, so that one class of very many concepts fits as well.
    """
    step = max(1, _BLOCK_BYTES // (vectors.shape[1] * desk.dtype.itemsize))
    if size <= step or (isinstance(where, slice) and vectors.dtype == desk.dtype):
        block = desk.widened(_on_the_memory_of(vectors[where]))
        yield lambda: block
        return
    rows = np.arange(where.start, where.stop) if isinstance(where, slice) else where
    for start in range(0, size, step):
        yield partial(_widened, vectors, rows[start : start + step], desk)


def _widened(vectors: np.ndarray, rows: np.ndarray, desk: _Desk) -> torch.Tensor:
    return desk.widened(torch.from_numpy(vectors[rows]))


def _on_the_memory_of(array: np.ndarray) -> torch.Tensor:
    """Give a tensor that shares the memory of `array`, which may be read-only, as a bank's is."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    try:
        return from_dlpack(array)
    except BufferError:  # older libraries exchange only what may be written
        return torch.from_numpy(array.copy())


def _unit(X: np.ndarray, scale: float, dtype: np.dtype) -> np.ndarray:
    """Give rows of length `scale`; rows of zeros stay."""
    unit: np.ndarray = X.astype(dtype)
    norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))[:, None]
    norms[norms == 0] = 1
    unit *= dtype.type(scale) / norms
    return unit


def _score_device(
    X: ArrayLike, layout: Layout, settings: Settings, double: bool
) -> Iterator[tuple[np.ndarray, slice, torch.Tensor]]:
    dtype = torch.float64 if double else torch.float32
    X = torch.as_tensor(X).to(settings.device, dtype)
    norms = X.norm(dim=1, keepdim=True)
    unit = X * (settings.scale / torch.where(norms == 0, torch.ones_like(norms), norms))
    rule = resolve_rule(settings.rule)[0]
    for members in layout.blocks(4 * settings.block_rows, unit.itemsize):
        C, k = int(layout.counts[members[0]]), len(members)
        where = layout.rows(members)
        bank = torch.from_numpy(np.ascontiguousarray(layout.vectors[where]))
        bank = bank.to(settings.device).to(dtype)
        prior = None
        if layout.prior is not None:
            prior = torch.from_numpy(layout.prior[where].reshape(k, C)).to(settings.device, dtype)
        for start in range(0, len(unit), settings.tile_rows):
            part = unit[start : start + settings.tile_rows]
            S = (part @ bank.T).reshape(len(part), k, C)
            scores = S[..., 0] if C == 1 else rule.score(S, prior, settings.options)
            yield layout.columns[members], slice(start, start + len(part)), scores
