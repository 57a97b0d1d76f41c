"""Objects that are kept as folders: each gives its plain parts and takes them back."""

from __future__ import annotations

__all__ = ["Parts", "Saved", "SavedEstimator", "family"]

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from conceptlab.errors import CheckpointError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import read_plain_file, rebuilding, strict_json
from conceptlab.io.trees import Form, pack, unpack

Parts = tuple[dict[str, Any], dict[str, np.ndarray]]
"""JSON values and arrays."""


class Saved:
    """Save and load of an object that gives its plain parts and takes them back.

    A subclass writes :meth:`_parts` and :meth:`_from_parts`. The kind in the manifest is the
    name of the class, or ``_kind`` where subclasses share it; a base whose :meth:`load` reads
    any of its subclasses overrides :meth:`_kinds`.

    Examples
    --------
    >>> class Colours(Saved):
    ...     def __init__(self, rgb):
    ...         self.rgb = rgb
    ...     def _parts(self):
    ...         return {"n": len(self.rgb)}, {"rgb": self.rgb}
    ...     @classmethod
    ...     def _from_parts(cls, data, tensors):
    ...         return cls(tensors["rgb"])
    >>> Colours.load(Colours(np.eye(3)).save("colours")).rgb.shape
    (3, 3)
    """

    __slots__ = ()
    _kind: ClassVar[str | None] = None

    def _parts(self) -> Parts:
        """Give JSON values and arrays."""
        raise NotImplementedError

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        """Make the object from its parts; what is wrong in them may raise anything."""
        raise NotImplementedError

    @classmethod
    def _kinds(cls) -> dict[str, type[Saved]]:
        """Give the classes that :meth:`load` may find, by the kind in the manifest."""
        return {cls._kind or cls.__name__: cls}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as the folder `path`.

        Parameters
        ----------
        path : path-like
            A folder of safetensors and JSON with hashes; no pickle.

        Returns
        -------
        pathlib.Path
            The folder; :meth:`load` gives an object that answers with the same bits.

        Raises
        ------
        CheckpointError
            If the place cannot be written (``CL-CHECKPOINT-TARGET``).
        """
        data, tensors = self._parts()
        return write_bundle(path, Bundle(self._kind or type(self).__name__, data, tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder. The base of several classes reads any of them, a class its own.

        Returns
        -------
        object
            Of this class.

        Raises
        ------
        CheckpointError
            Missing, damaged, newer, or another kind of object.
        """
        kinds = cls._kinds()
        kind = next(iter(kinds)) if len(kinds) == 1 else _kind_of(Path(path), cls.__name__)
        if kind not in kinds and kind != cls.__name__:
            raise CheckpointError(
                f"{path} holds a {kind!r}, expected a {cls.__name__}. Load it with that class.",
                code="CL-CHECKPOINT-KIND",
            )
        bundle = read_bundle(path, kind)
        with rebuilding(path, kind):
            found: Self = kinds[kind]._from_parts(bundle.data, bundle.tensors)  # type: ignore[assignment]
        return found


class SavedEstimator(Saved):
    """An estimator whose parameters and fitted attributes are nested plain values.

    Parameters that have no file form (functions) are named in ``left_out`` and come back as
    their defaults; a random generator comes back as the seed it drew.
    """

    _forms: ClassVar[Sequence[Form]] = ()

    def _parts(self) -> Parts:
        check_is_fitted(self)
        arrays: dict[str, np.ndarray] = {}
        data: dict[str, Any] = {"param": {}, "fitted": {}, "left_out": []}
        for name, value in self.get_params(deep=False).items():  # type: ignore[attr-defined]
            if name == "random_state" and not isinstance(value, int | np.integer | None):
                value = getattr(self, "seed_", None)
            if isinstance(value, torch.device):
                value = str(value)
            try:
                data["param"][name], more = pack(value, f"param:{name}", self._forms)
            except CheckpointError:
                data["left_out"].append(name)
            else:
                arrays |= more
        for name, value in vars(self).items():
            if name.endswith("_") and not name.startswith("_"):
                data["fitted"][name], more = pack(value, f"fitted:{name}", self._forms)
                arrays |= more
        return data, arrays

    @classmethod
    def _from_parts(cls, data: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        param, fitted = (unpack(data[part], tensors, cls._forms) for part in ("param", "fitted"))
        found = cls(**param)
        for name, value in fitted.items():
            if name.startswith("_") or not name.endswith("_"):
                raise ValueError(f"{name!r} is no fitted attribute")
            setattr(found, name, value)
        return found


def family(cls: type[Saved], home: str) -> dict[str, type[Saved]]:
    """Give all subclasses of `cls` by name, those of the package `home` imported first."""
    package = importlib.import_module(home)
    for name in package.__all__:
        getattr(package, name)  # lazy until asked for
    found: dict[str, type[Saved]] = {}
    rest = [cls]
    while rest:
        found |= {kind.__name__: kind for kind in rest if kind is not cls}
        rest = [child for kind in rest for child in kind.__subclasses__()]
    return found


def _kind_of(path: Path, default: str) -> str:
    try:
        return str(strict_json(read_plain_file(path / "manifest.json"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return default  # read_bundle tells what is wrong
