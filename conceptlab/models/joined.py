"""Images with what a model takes beside them, one entry for each: numbers, other images."""

from __future__ import annotations

__all__ = ["Joined", "read_beside"]

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError
from conceptlab.models.session import Inputs


@dataclass(frozen=True, eq=False)
class Joined:
    """A batch of images, with what belongs to each; `split.g`, `f` and `h` take it.

    Attributes
    ----------
    images : torch.Tensor of shape (n, channels, height, width)
        The images, which alone go through `preprocess`.
    beside : Inputs
        The model's other arguments, from :func:`read_beside`.
    """

    images: torch.Tensor
    beside: Inputs

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Joined:
        rows = torch.arange(len(self))[part]
        return Joined(self.images[part], self.beside.rows(rows))

    def of(self, images: torch.Tensor) -> Joined:
        """Put other images in the place of these: as many, or copies of a single one."""
        beside = self.beside
        if len(images) != len(self):
            beside = beside.rows(torch.zeros(len(images), dtype=torch.int64))
        return Joined(images, beside)

    def arguments(self, model: nn.Module, images: Any) -> Inputs:
        """Give what `model` is called with, where `images` are these after `preprocess`."""
        named = dict(self.beside.kwargs)
        if isinstance(images, Mapping):
            return Inputs(self.beside.args, {**images, **named})
        if isinstance(images, tuple | list):
            return Inputs((*images, *self.beside.args), named)
        names = [
            name
            for name, p in inspect.signature(model.forward).parameters.items()
            if p.kind == p.POSITIONAL_OR_KEYWORD
        ]
        if not self.beside.args and any(name in named for name in names):
            # By name, so that it does not matter in which order the model takes them.
            place = next((name for name in names if name not in named), None)
            if place is not None:
                return Inputs(kwargs={place: images, **named})
        return Inputs((images, *self.beside.args), named)


def read_beside(inputs: Any, n: int) -> Inputs | None:
    """Read what a model takes beside `n` images.

    Parameters
    ----------
    inputs : mapping, tuple, list of arrays, array, or None
        Arguments of the model by name, or those that follow the image in order; each with
        one entry for each image.
    n : int
        Number of images.

    Returns
    -------
    Inputs or None
        Tensors.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE`` for what is no array of numbers, ``CL-INPUT-SHAPE`` for another
        number of entries.
    """
    if inputs is None:
        return None
    if isinstance(inputs, Mapping):
        read = Inputs(kwargs={str(name): _entries(v, repr(name), n) for name, v in inputs.items()})
    elif isinstance(inputs, tuple):
        read = Inputs(tuple(_entries(v, f"number {i}", n) for i, v in enumerate(inputs)))
    else:
        read = Inputs((_entries(inputs, "", n),))
    if not read.tensors():
        raise InputError(
            "inputs is empty: give what the model takes beside the image by name, such as "
            "inputs={'meta': numbers}, or leave inputs out.",
            code="CL-INPUT-EMPTY",
        )
    return read


def _entries(value: ArrayLike, name: str, n: int) -> torch.Tensor:
    said = f"inputs {name}".strip()
    try:
        if not isinstance(value, torch.Tensor):
            # Data frames too; whole numbers stay whole, for embeddings.
            values = np.asarray(value)
            if values.dtype.kind not in "biuf":
                raise TypeError(f"its entries are {values.dtype}")
            value = torch.from_numpy(values.copy())
        tensor = value.detach()
        if tensor.is_complex():
            raise TypeError("its entries are complex")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{said} must be numbers, one entry for each of the {n} images: {error}. Turn "
            "categories and texts into numbers as for the training of the model.",
            code="CL-INPUT-TYPE",
        ) from error
    if not tensor.ndim or len(tensor) != n:
        raise InputError(
            f"{said} has shape {tuple(tensor.shape)} for {n} images: its first axis must be one "
            "entry for each image, in their order.",
            code="CL-INPUT-SHAPE",
        )
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(
            f"{said} holds NaN or infinity. Fill what is missing as for the training of the model.",
            code="CL-INPUT-NONFINITE",
        )
    return tensor
