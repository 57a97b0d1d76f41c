"""Activations of images by many processes: each writes its own part, one index tells all."""

from __future__ import annotations

__all__ = ["ActivationParts", "extract"]

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from conceptlab.distributed.shards import Shards
from conceptlab.errors import CheckpointError
from conceptlab.io.files import FORMAT_VERSION, atomic_write
from conceptlab.io.places import RUNNING, hold_folder
from conceptlab.io.reading import read_plain_file, strict_json
from conceptlab.models.patches import pooled_activations
from conceptlab.models.store import ActivationStore
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    from conceptlab.models import SplitModel

_INDEX = "index.json"
_PLACES = "places.safetensors"


class ActivationParts:
    """Activations that several processes wrote, read as one matrix in the order of the images.

    Parameters
    ----------
    path : path-like
        The folder that :func:`extract` wrote.

    Attributes
    ----------
    index : numpy.ndarray of shape (n_rows, 4), int64
        Image, y, x and side of each row, as :func:`pooled_activations` gives them.

    Raises
    ------
    CheckpointError
        Where the extraction did not end, or files are damaged.

    Examples
    --------
    >>> import tempfile
    >>> ActivationParts(tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    conceptlab.errors.CheckpointError: ... holds no whole extraction: ... [CL-CHECKPOINT-MISSING]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            content = strict_json(read_plain_file(self.path / _INDEX))
            names = [str(name) for name in content["parts"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path} holds no whole extraction: its {_INDEX} cannot be read. It is "
                "written when all ranks are done; run the same extraction again, it goes on from "
                "what is there.",
                code="CL-CHECKPOINT-MISSING",
            ) from error
        self.parts = [ActivationStore(self.path / os.path.basename(name)) for name in names]
        self.index = np.concatenate(
            [
                _places(store, self.path / name)
                for name, store in zip(names, self.parts, strict=True)
            ]
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(number of rows, number of features)."""
        return sum(len(part) for part in self.parts), max(part.shape[1] for part in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, batch_size: int = 4096) -> Iterator[np.ndarray]:
        """Go through all rows once, in batches of at most `batch_size`."""
        for part in self.parts:
            yield from part.batches(batch_size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.concatenate([part[:] for part in self.parts if len(part)])
        return whole if dtype is None else whole.astype(dtype)


def extract(
    split: SplitModel,
    shards: Shards,
    folder: str | os.PathLike[str],
    *,
    mode: str = "grid",
    patch_size: int = 64,
    n_crops: int = 16,
    random_state: int = 0,
    dtype: str = "float32",
    progress: Progress = None,
) -> ActivationParts:
    """Compute the activations of all images, each rank its own block, into one folder.

    A run that was killed goes on where each rank stopped, with the same number of ranks.

    Parameters
    ----------
    split : SplitModel
        The model, cut; the same on all ranks.
    shards : Shards
        This rank's images; its batches are the passes of the model.
    folder : path-like
        On a disk that all ranks see.
    mode, patch_size, n_crops, random_state : optional
        How images are cut, as for :func:`conceptlab.models.patches.pooled_activations`. Crops
        are drawn by the number of the image in the whole set.
    dtype : {"float32", "float16", "bfloat16"}
        How rows are kept.
    progress : bool, callable or None
        Bar over this rank's images.

    Returns
    -------
    ActivationParts
        The same on all ranks; ``parts[rank]`` holds this rank's rows.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-KIND``: the folder holds an extraction of other images, another model,
        other settings or another number of ranks. ``CL-CHECKPOINT-TARGET``: another run is
        writing there now.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from torch import nn
    >>> from conceptlab.models import SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 2))
    >>> split = SplitModel(model, at="1", device="cpu")
    >>> shards = Shards(torch.rand(3, 3, 16, 16), batch_size=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     extract(split, shards, folder, patch_size=8).shape
    (12, 6)
    """
    folder, world = Path(folder), shards.world
    settings = {
        "ranks": world.size,
        "images": shards.n,
        "batch_size": shards.batch_size,
        "size": repr(shards.size),
        "mode": mode,
        "patch_size": patch_size,
        "n_crops": n_crops,
        "random_state": random_state,
        "dtype": dtype,
        "model": split.fingerprint,
    }
    world.agree("The model and the settings of an extraction", fingerprint(settings))
    names = [f"part-{rank:05d}-of-{world.size:05d}" for rank in range(world.size)]
    with hold_folder(folder) if world.is_main else nullcontext(True) as free:
        told = _check(folder, settings, free) if world.is_main else None
        told = world.gather(told)[0]
        if told is not None:
            raise CheckpointError(told[0], code=told[1])
        if world.is_main:
            atomic_write(folder / "settings.json", json.dumps(settings, indent=1))
        world.barrier()
        place = folder / names[world.rank]
        store = ActivationStore(place, dtype=dtype)
        if len(shards):
            found = pooled_activations(
                split,
                shards.source,
                mode=mode,
                patch_size=patch_size,
                n_crops=n_crops,
                size=shards.size,
                batch_size=shards.batch_size,
                first=shards.block.start,
                into=store,
                random_state=random_state,
                progress=progress,
            )
            index = found.index
        else:
            store.finish()
            index = np.empty((0, 4), np.int64)
        atomic_write(place / _PLACES, save_arrays({"index": index}))
        world.barrier()
        if world.is_main:
            content = {
                "format": "conceptlab",
                "format_version": FORMAT_VERSION,
                "kind": "ActivationParts",
                "parts": names,
            }
            atomic_write(folder / _INDEX, json.dumps(content, indent=1))
        world.barrier()
        return ActivationParts(folder)


def _check(folder: Path, settings: dict[str, Any], free: bool) -> tuple[str, str] | None:
    """Tell what keeps an extraction with these settings from going on in `folder`."""
    if not free:
        return (
            f"Another run is writing to {folder} now. Wait for it, or choose another folder.",
            "CL-CHECKPOINT-TARGET",
        )
    path = folder / "settings.json"
    if not path.exists():
        others = [entry.name for entry in folder.iterdir() if entry.name != RUNNING]
        if not others:
            return None
        return (
            f"{folder} is not empty and holds no extraction. Choose another.",
            "CL-CHECKPOINT-TARGET",
        )
    try:
        found = strict_json(read_plain_file(path))
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}. Remove the folder.", "CL-CHECKPOINT-DAMAGED"
    for name, value in settings.items():
        if found.get(name) != value:
            return (
                f"{folder} holds an extraction with {name} = {found.get(name)!r}, and this one has "
                f"{value!r}. Start it as that one, or choose another folder.",
                "CL-CHECKPOINT-KIND",
            )
    return None


def _places(store: ActivationStore, place: Path) -> np.ndarray:
    """Read where the rows of a part come from."""
    path = place / _PLACES
    try:
        index = load_arrays(read_plain_file(path))["index"]
        if index.shape != (len(store), 4):
            raise ValueError(f"{len(store)} rows and an index of shape {index.shape}")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Extract again.") from error
    return np.asarray(index)
