"""Activation matrices that need not fit in memory."""

from __future__ import annotations

__all__ = ["ActivationStore"]

import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from conceptlab.arrays import ArrayLike, as_tensor
from conceptlab.errors import CheckpointError, InputError, unknown_name
from conceptlab.io.files import FORMAT_VERSION, atomic_write, is_vacant
from conceptlab.io.reading import read_plain_file, strict_json
from conceptlab.seeds import RandomState, numpy_generator

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MANIFEST = "manifest.json"
_FIRST = re.compile(r"rows-0{5}\.safetensors$|\.(rows-0{5}\.safetensors|manifest\.json)-\w{8}$")
_HEADER = 2**16  # more than safetensors writes before the rows of a shard


class ActivationStore:
    """A matrix of activations, in memory or in shards on disk.

    Rows are appended in batches and read back by number or in batches, any
    number of times. Without a `path` rows stay in memory up to `memory_limit`
    and then move to a temporary folder that vanishes with the store. With a
    `path` each full shard is durable at once, and a killed job goes on from
    the last one.

    Parameters
    ----------
    path : path-like, optional
        Folder of the shards. One that holds a store already is opened.
    dtype : {"float32", "float16", "bfloat16"}
        How rows are kept on disk; they are read as float32.
    memory_limit : int
        Bytes that may stay in memory.
    shard_size : int
        Bytes of a shard.
    key : str, optional
        Fingerprint of what the rows are made from (model, layer, preprocessing,
        data, crops). A store under another key is refused.

    Attributes
    ----------
    key : str or None
        As above.
    complete : bool
        Whether :meth:`finish` was called.

    Raises
    ------
    CheckpointError
        Damaged, newer or foreign files; rows under another key.
    InputError
        Rows of another width, or values that `dtype` cannot hold.

    Examples
    --------
    >>> import numpy as np
    >>> store = ActivationStore()
    >>> store.append(np.eye(3, dtype=np.float32))
    >>> store.append(np.ones((2, 3), dtype=np.float32))
    >>> store.shape, store[3].tolist()
    ((5, 3), [1.0, 1.0, 1.0])
    >>> [len(batch) for batch in store.batches(2)]
    [2, 2, 1]
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        dtype: str = "float32",
        memory_limit: int = 512 * 2**20,
        shard_size: int = 64 * 2**20,
        key: str | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            raise unknown_name("dtype of the store", dtype, _DTYPES)
        if min(memory_limit, shard_size) < 1:
            raise InputError(
                "memory_limit and shard_size must be at least 1 byte, got "
                f"{memory_limit} and {shard_size}.",
                code="CL-INPUT-RANGE",
            )
        self.dtype, self.memory_limit, self.shard_size = dtype, memory_limit, shard_size
        self.key = key
        self.complete = False
        self._folder = None if path is None else Path(path)
        self._shards: list[dict[str, Any]] = []
        self._starts = [0]
        self._verified: set[str] = set()
        self._pending: list[torch.Tensor] = []
        self._n_pending = 0
        self._width: int | None = None
        self._open_shard: tuple[int, torch.Tensor] | None = None
        if self._folder is not None and not self._is_new(self._folder):
            self._read_manifest(key)

    # ------------------------------------------------------------------ write
    def append(self, rows: ArrayLike) -> None:
        """Add rows at the end.

        Parameters
        ----------
        rows : array-like of shape (m, n_features)
            Finite numbers.
        """
        block = as_tensor(rows).detach()
        if block.ndim != 2 or (self._width is not None and block.shape[1] != self._width):
            wanted = self._width or "n_features"
            raise InputError(
                f"Rows must have shape (m, {wanted}), got {tuple(block.shape)}.",
                code="CL-INPUT-FEATURES" if block.ndim == 2 else "CL-INPUT-RANK",
            )
        if self.complete:
            raise InputError(
                "The store is complete. Make a new one to collect other rows.",
                code="CL-INPUT-OPTION",
            )
        if not len(block):
            return
        kept = block.to("cpu", _DTYPES[self.dtype], copy=True)
        if not bool(torch.isfinite(kept).all()):
            where = (
                "hold NaN or infinity"
                if not bool(torch.isfinite(block).all())
                else (
                    f"are too large for {self.dtype}, which ends at "
                    f"{torch.finfo(_DTYPES[self.dtype]).max:.4g}; use dtype='bfloat16' or 'float32'"
                )
            )
            raise InputError(f"Rows {where}.", code="CL-INPUT-NONFINITE")
        self._width = int(block.shape[1])
        self._pending.append(kept)
        self._n_pending += len(kept)
        pending = self._n_pending * self._row_bytes
        if self._folder is None and pending > self.memory_limit:
            self._spill()
        if self._folder is not None:
            while self._n_pending >= self._shard_rows:
                self._write_shard(self._shard_rows)

    def finish(self) -> ActivationStore:
        """Write what is left and mark the store as complete."""
        if self._folder is not None:
            if self._n_pending:
                self._write_shard(self._n_pending)
            self.complete = True
            try:
                self._write_manifest()
            except CheckpointError:
                self.complete = False
                raise
        self.complete = True
        return self

    def bind(self, key: str) -> None:
        """Say what the rows are made from; refuse when those here are from elsewhere."""
        if self.key is None and not len(self):
            self.key = key
        if self.key != key:
            raise CheckpointError(
                f"The store {self._folder or 'in memory'} holds {len(self)} rows of another model, "
                "layer, preprocessing, image set or way to cut. Take another folder, or remove it.",
                code="CL-CHECKPOINT-KIND",
            )

    # ------------------------------------------------------------------- read
    def __len__(self) -> int:
        return self._starts[-1] + self._n_pending

    @property
    def shape(self) -> tuple[int, int]:
        """(number of rows, number of features)."""
        return len(self), self._width or 0

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in files."""
        return self._folder is not None

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read rows by number, slice, list of numbers or boolean mask, as float32."""
        if isinstance(rows, int | np.integer):
            return np.asarray(self[[int(rows)]][0])
        if isinstance(rows, slice):
            numbers = np.arange(len(self))[rows]
        else:
            numbers = np.asarray(rows)
            if numbers.dtype == bool:
                if numbers.shape != (len(self),):
                    raise IndexError(f"a mask of shape {numbers.shape} for {len(self)} rows")
                numbers = np.flatnonzero(numbers)
        numbers = np.where(numbers < 0, numbers + len(self), numbers).astype(np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"row {int(numbers.max())} of a store with {len(self)} rows")
        found = np.empty((len(numbers), self._width or 0), np.float32)
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        for shard in np.unique(owner):
            mine = np.flatnonzero(owner == shard)
            local = torch.as_tensor(numbers[mine] - self._starts[shard])
            found[mine] = self._block(int(shard))[local].float().numpy()
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches(4096):
            yield from batch

    def batches(
        self, batch_size: int = 4096, *, shuffle: bool = False, seed: RandomState = None
    ) -> Iterator[np.ndarray]:
        """Go through all rows once, in batches.

        Parameters
        ----------
        batch_size : int
            Rows in a batch; the last may have fewer.
        shuffle : bool
            Take shards in random order and shuffle the rows inside each, so that
            one shard is in memory at a time. In memory, one full permutation.
        seed : int, Generator or None
            For the order.

        Yields
        ------
        numpy.ndarray of shape (batch_size, n_features), float32
        """
        if batch_size < 1:
            raise InputError(
                f"batch_size must be at least 1, got {batch_size}.", code="CL-INPUT-RANGE"
            )
        draw = numpy_generator(seed) if shuffle else None
        shards = np.arange(len(self._shards) + bool(self._n_pending))
        if draw is not None:
            draw.shuffle(shards)
        rest: np.ndarray | None = None
        for shard in shards:
            block = self._block(int(shard))
            order = None if draw is None else torch.as_tensor(draw.permutation(len(block)))
            start = 0
            while start < len(block):
                missing = batch_size - (0 if rest is None else len(rest))
                piece = block[start : start + missing]
                if order is not None:
                    piece = block[order[start : start + missing]]
                rows = piece.float().numpy()
                start += missing
                joined = rows if rest is None else np.concatenate([rest, rows])
                if len(joined) == batch_size:
                    rest = None
                    yield joined if joined is not rows or order is not None else joined.copy()
                else:
                    rest = joined
        if rest is not None:
            yield rest.copy()

    def __repr__(self) -> str:
        place = f"{len(self._shards)} shards in {self._folder}" if self._folder else "in memory"
        return f"ActivationStore{self.shape} {self.dtype}, {place}"

    # ---------------------------------------------------------------- private
    @staticmethod
    def _is_new(folder: Path) -> bool:
        """Tell whether no store is there, but for files of one that was killed at its start."""
        return is_vacant(folder) or (
            os.path.isdir(folder)
            and not os.path.lexists(folder / _MANIFEST)
            and all(_FIRST.match(name) for name in os.listdir(folder))
        )

    @property
    def _row_bytes(self) -> int:
        return (self._width or 1) * _DTYPES[self.dtype].itemsize

    @property
    def _shard_rows(self) -> int:
        return max(self.shard_size // self._row_bytes, 1)

    def _spill(self) -> None:
        folder = tempfile.mkdtemp(prefix="conceptlab-activations-")
        # Bound to the object's life, and to the interpreter's at the latest.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder = Path(folder)

    def _block(self, shard: int) -> torch.Tensor:
        if shard == len(self._shards):
            if len(self._pending) != 1:
                self._pending = [torch.cat(self._pending)]
            return self._pending[0]
        kept = self._open_shard  # by now another thread may have opened another one
        if kept is None or kept[0] != shard:
            self._open_shard = kept = (shard, self._load(self._shards[shard]))
        return kept[1]

    def _load(self, shard: dict[str, Any]) -> torch.Tensor:
        path = self._path / shard["name"]
        try:
            content = read_plain_file(path, limit=shard["rows"] * self._row_bytes + _HEADER)
            if shard["name"] not in self._verified:
                digest = hashlib.sha256(content).hexdigest()
                if digest != shard["sha256"]:
                    raise CheckpointError(
                        f"{path} was changed or truncated: its sha256 is {digest[:16]}..., the "
                        f"manifest says {shard['sha256'][:16]}... Remove the folder and collect "
                        "the activations again."
                    )
                self._verified.add(shard["name"])
            rows = load_tensors(content)["rows"]
            if rows.shape != (shard["rows"], self._width) or rows.dtype != _DTYPES[self.dtype]:
                raise CheckpointError(
                    f"{path} holds {tuple(rows.shape)} values of {rows.dtype}, the manifest says "
                    f"{(shard['rows'], self._width)} of {self.dtype}. Collect the activations "
                    "again."
                )
        except (OSError, SafetensorError, KeyError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{path} cannot be read: {error}. Collect the activations again.",
                code="CL-CHECKPOINT-MISSING",
            ) from error
        return rows

    @property
    def _path(self) -> Path:
        return self._folder if self._folder is not None else Path()

    def _write_shard(self, count: int) -> None:
        joined = torch.cat(self._pending) if len(self._pending) != 1 else self._pending[0]
        rows, rest = joined[:count].contiguous(), joined[count:]
        content = save_tensors({"rows": rows})
        name = f"rows-{len(self._shards):05d}.safetensors"
        atomic_write(self._path / name, content)  # where that fails, all rows are still pending
        self._pending = [rest.clone()] if len(rest) else []
        self._n_pending = len(rest)
        self._shards.append(
            {"name": name, "rows": len(rows), "sha256": hashlib.sha256(content).hexdigest()}
        )
        self._starts.append(self._starts[-1] + len(rows))
        self._write_manifest()

    def _write_manifest(self) -> None:
        content = {
            "format": "conceptlab",
            "format_version": FORMAT_VERSION,
            "kind": "ActivationStore",
            "key": self.key,
            "dtype": self.dtype,
            "n_features": self._width or 0,
            "complete": self.complete,
            "shards": self._shards,
        }
        atomic_write(self._path / _MANIFEST, json.dumps(content, indent=1))

    def _read_manifest(self, key: str | None) -> None:
        path = self._path / _MANIFEST
        try:
            content = strict_json(read_plain_file(path))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._folder} is not empty and holds no activation store ({_MANIFEST} cannot be "
                "read). Choose another folder, or remove it.",
                code="CL-CHECKPOINT-TARGET",
            ) from error
        if not isinstance(content, dict) or content.get("kind") != "ActivationStore":
            raise CheckpointError(
                f"{self._folder} holds no activation store. Choose another folder.",
                code="CL-CHECKPOINT-KIND",
            )
        if content.get("format_version", 0) > FORMAT_VERSION:
            raise CheckpointError(
                f"{self._folder} has format version {content['format_version']}; this conceptlab "
                f"reads up to {FORMAT_VERSION}. Upgrade with: pip install -U conceptlab",
                code="CL-CHECKPOINT-NEWER",
            )
        try:
            shards: list[dict[str, Any]] = [
                {"name": str(s["name"]), "rows": int(s["rows"]), "sha256": str(s["sha256"])}
                for s in content["shards"]
            ]
            self.dtype, width = str(content["dtype"]), int(content["n_features"])
            _DTYPES[self.dtype]
            if not 0 <= width < 2**40 or not all(0 < s["rows"] < 2**40 for s in shards):
                raise ValueError("sizes out of range")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {error!r}.") from error
        if any(str(s["name"]) != os.path.basename(str(s["name"])) for s in shards):
            raise CheckpointError(
                f"{path} names files outside the folder.", code="CL-CHECKPOINT-UNSAFE"
            )
        self.key, self.complete = content.get("key"), bool(content.get("complete"))
        self._shards, self._width = shards, width or None
        self._starts = [0, *np.cumsum([s["rows"] for s in shards]).tolist()]
        if key is not None:
            self.bind(key)
