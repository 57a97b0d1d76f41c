"""What ``conceptlab explain`` is given: images with their files and class folders, the command."""

from __future__ import annotations

__all__ = ["GivenImages", "command_line", "in_channels", "load_images"]

import os
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from conceptlab.errors import InputError, unknown_name


@dataclass(frozen=True, eq=False)
class GivenImages:
    """Images as a command takes them.

    Attributes
    ----------
    batch : torch.Tensor of shape (n, C, H, W)
        The pixels.
    source : str
        Where they are from, in words.
    files : list of str
        What each is called.
    folders : list of str
        The folder that each lies in; empty where there are none.
    found : int
        How many there were.
    """

    batch: Any
    source: str
    files: list[str]
    folders: list[str]
    found: int

    def told(self) -> str:
        """Say how many images there are, of which folders, and how many were left out."""
        words = f"{len(self.batch)} images from {self.source}, {self.batch.shape[-1]} px"
        counts = Counter(self.folders).most_common()
        if len(counts) > 1:
            listed = ", ".join(f"{name} {n}" for name, n in counts[:12])
            more = f" and {len(counts) - 12} more folders" if len(counts) > 12 else ""
            words += f" ({listed}{more})"
        if self.found > len(self.batch):
            words += f", evenly chosen of {self.found}"
        return words


def load_images(
    images: Path | None, size: int | None, limit: int, seed: int, only_class: str | None
) -> GivenImages:
    """Read a folder, an archive or a picture, or draw scenes.

    Parameters
    ----------
    images : pathlib.Path or None
        None for scenes.
    size : int or None
        Side to scale to; None for the images' own.
    limit : int
        At most so many, evenly chosen.
    seed : int
        Of scenes.
    only_class : str or None
        The class folder to take.

    Returns
    -------
    GivenImages
    """
    if images is None:
        return _scenes(limit, seed, only_class)
    if not os.path.exists(images):
        raise InputError(
            f"{images} does not exist; give a folder, zip or file.", code="CL-INPUT-FILE"
        )
    import torch

    from conceptlab.datasets import load_image_folder
    from conceptlab.datasets.images import as_image_batch, image_source

    several = os.path.isdir(images) or images.suffix.lower() == ".zip"
    data = load_image_folder(images, classes=False) if several else None
    source = image_source(images if data is None else data)
    files = [images.name] if data is None else [path.rpartition("!")[2] for path in data.paths]
    folders = [] if data is None else [Path(file).parent.name for file in files]
    rows = np.arange(len(source))
    if only_class is not None:
        rows = _of_class(only_class, folders)
    found = len(rows)
    # Evenly through the folder, so that every class is there.
    rows = rows[np.unique(np.linspace(0, found - 1, min(limit, found)).round().astype(int))]
    parts = [as_image_batch(source.read(int(i), int(i) + 1), size=size) for i in rows]
    sizes = sorted({tuple(part.shape[-2:]) for part in parts})
    if len(sizes) > 1:
        raise InputError(
            f"The images have {len(sizes)} sizes, such as {sizes[0]} and {sizes[1]} (height, "
            "width), and the model does not say its own. Give it: --size 224.",
            code="CL-INPUT-SHAPE",
        )
    root = os.path.commonpath([str(Path(file).parent) for file in files]) if several else ""
    return GivenImages(
        torch.cat(parts),
        str(images),
        [os.path.relpath(files[i], root) if root else files[i] for i in rows],
        [folders[i] for i in rows] if folders else [],
        found,
    )


def in_channels(given: GivenImages, channels: int) -> GivenImages:
    """Give colour images to a model of one channel as grey ones (ITU-R BT.601).

    Raises
    ------
    InputError
        A model of another number of channels (``CL-INPUT-LAYOUT``).
    """
    import torch

    if channels == 3:
        return given
    if channels != 1:
        raise InputError(
            f"The model takes images of {channels} channels, and pictures have 3. Explain it in "
            f"Python with arrays (n, {channels}, H, W): explain(model, images).",
            code="CL-INPUT-LAYOUT",
        )
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (torch.as_tensor(given.batch) * weights).sum(dim=1, keepdim=True)
    return replace(given, batch=grey, source=f"{given.source} (as grey)")


def command_line() -> str:
    """Give the command that runs, as it was typed; empty where there is none."""
    if Path(sys.argv[0]).name not in ("conceptlab", "conceptlab.exe", "__main__.py"):
        return ""
    return shlex.join(["conceptlab", *sys.argv[1:]])


def _scenes(limit: int, seed: int, only_class: str | None) -> GivenImages:
    from conceptlab.datasets import load_scenes

    scenes = load_scenes("test", limit, seed=seed)
    folders = [scenes.class_names[k] for k in scenes.y]
    rows = np.arange(len(folders))
    if only_class is not None:
        rows = _of_class(only_class, folders)
    return GivenImages(
        scenes.images[rows],
        "the rendered world",
        [f"scene {i}" for i in rows],
        [folders[i] for i in rows],
        len(rows),
    )


def _of_class(name: str, folders: list[str]) -> np.ndarray:
    rows = np.flatnonzero(np.asarray(folders, dtype=object) == name)
    if not len(rows):
        raise unknown_name(
            "class folder",
            name,
            sorted(set(folders)),
            hint="" if set(folders) - {""} else "Images need a folder for each class.",
            code="CL-INPUT-LABELS",
        )
    return rows
