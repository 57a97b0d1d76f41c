"""A set of images as CRAFT sees it: crops as rows, whole images as maps of coefficients."""

from __future__ import annotations

__all__ = ["ImageViews", "check_labels"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from conceptlab.arrays import ArrayKind, ArrayLike, as_numpy, as_tensor
from conceptlab.batching import check_batch_size, iter_batches
from conceptlab.datasets.images import image_source
from conceptlab.errors import InputError
from conceptlab.models import SplitModel
from conceptlab.models.images import as_model_images, model_images
from conceptlab.models.joined import Joined, read_beside
from conceptlab.models.patches import crop, pooled_activations
from conceptlab.models.rows import automatic_batch
from conceptlab.models.session import Inputs
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint
from conceptlab.seeds import numpy_generator

T = TypeVar("T")
_RANK_ROWS = 4096
_CODE_ROWS = 65536


@dataclass
class ImageViews:
    """Images with the way they are cut; built by :meth:`of`.

    Attributes
    ----------
    inputs : torch.Tensor of shape (n, 3, H, W), or mapping of tensors
        The images (or token ids), as `split` takes them.
    split : SplitModel
        The model, cut.
    batch_size : int or "auto"
        Images in a pass.
    settings : dict
        Mode, side and number of crops, seed.
    chosen : numpy.ndarray of shape (n,)
        Numbers of these images in the set that was given at first.
    places : numpy.ndarray of shape (n,)
        Their places in the set that this one was taken from.
    index : numpy.ndarray of shape (n_rows, 4)
        Image, y, x, side of each row; after :meth:`rows`.
    kind : ArrayKind
        What kind of array answers about the images should be.
    positions : tuple of int or None
        Sizes of the layer's positions where every position is a row; after :meth:`rows`.
    beside : Inputs or None
        What the model takes beside each image.
    """

    inputs: Any
    split: SplitModel
    batch_size: int | str
    settings: dict[str, Any]
    chosen: np.ndarray
    places: np.ndarray
    index: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.int64))
    kind: ArrayKind = field(default_factory=lambda: ArrayKind.of(np.empty(0, np.float32)))
    positions: tuple[int, ...] | None = None
    beside: Inputs | None = None

    @classmethod
    def of(
        cls,
        images: Any,
        split: SplitModel,
        batch_size: int | str = "auto",
        *,
        beside: Any = None,
        patches: str = "grid",
        patch_size: int = 64,
        n_crops: int = 16,
        seed: int = 0,
    ) -> ImageViews:
        """Check images and note how they are to be cut."""
        kind = ArrayKind.of(np.empty(0, np.float32))
        if not isinstance(images, Mapping):
            images = as_model_images(images, split)
        if isinstance(images, Mapping):
            if beside is not None:
                raise InputError(
                    "inputs= goes beside images, and these are a dict of all that the model takes "
                    f"({', '.join(images)}). Give the images alone, or the dict alone.",
                    code="CL-INPUT-OPTION",
                )
            inputs: Any = dict(images)
            n = _samples(inputs)
            if patches != "none":
                patches = "none"  # tokens are rows as they are; there is nothing to crop
        else:
            source = model_images(images, split)
            inputs, kind = source.batch(clip=split.preprocess is not None), source.kind
            n = len(inputs)
        settings = {"mode": patches, "patch_size": patch_size, "n_crops": n_crops}
        everything = np.arange(n)
        settings = {**settings, "random_state": seed}
        also = read_beside(beside, n)
        return cls(
            inputs, split, batch_size, settings, everything, everything, kind=kind, beside=also
        )

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def has_pictures(self) -> bool:
        """Whether the inputs are images."""
        return not isinstance(self.inputs, Mapping)

    def fingerprint(self) -> str:
        """Hash the inputs, every pixel of them, to tell sets of images apart."""
        if isinstance(self.inputs, Mapping):
            return fingerprint({key: as_numpy(value) for key, value in self.inputs.items()})
        if self.beside is not None:
            return fingerprint(self.inputs, self.beside.kwargs, *self.beside.args)
        return fingerprint(self.inputs)

    def check_split(self) -> None:
        """Measure h(g(x)) = f(x) on a few images, unless that is proved already.

        Raises
        ------
        SplitError
            Where it does not hold.
        """
        sample = self.part(0, min(2, len(self)))
        with torch.no_grad():
            activations = self.split.g(sample)
            # Where h(g(x)) = f(x) is proved, h spares a second pass through all layers.
            closed = self.split.closed
            output = self.split.h(activations) if closed else self.split.f(sample)
            found = {f"layer {self.split.layer!r}": activations, "its output": output}
        for place, value in found.items():
            if not bool(torch.isfinite(as_tensor(value)).all()):
                raise InputError(
                    f"The model gives NaN or infinity at {place} for images that are finite. Look "
                    "at its weights, the scale of the images, and the precision (float16 "
                    "overflows).",
                    code="CL-INPUT-NONFINITE",
                )
        if not closed:
            self.split.check(sample)

    # ------------------------------------------------------------------ rows
    def rows(self, split: SplitModel, *, storage: str, progress: Progress) -> Any:
        """Compute the activation matrix A of all crops; sets :attr:`index`, :attr:`positions`.

        Returns
        -------
        numpy.ndarray of shape (n_rows, n_channels), or ActivationStore
        """
        from conceptlab.models.store import ActivationStore

        into = ActivationStore(memory_limit=1) if storage == "disk" else None
        found = pooled_activations(
            split,
            self.whole,
            batch_size=self.batch_size,
            into=into,
            progress=progress,
            **self.settings,
        )
        self.index, self.positions = found.index, found.positions
        return found.rows

    def rows_of(self, split: SplitModel, index: np.ndarray) -> np.ndarray:
        """Compute the activations of given crops at another layer, averaged over positions.

        Without crops, a position's row is the mean over what its cell covers at
        that layer.
        """
        if self.settings["mode"] == "none":
            return self._cells(split, index)
        place = {int(image): i for i, image in enumerate(self.chosen)}
        local = index.copy()
        local[:, 0] = [place[int(image)] for image in index[:, 0]]
        found = pooled_activations(
            split,
            self.whole,
            index=local,
            batch_size=self.batch_size,
            progress=False,
            **self.settings,
        )
        return np.asarray(found.rows)

    def _cells(self, split: SplitModel, index: np.ndarray) -> np.ndarray:
        rows = []
        for number in np.unique(index[:, 0]):
            place = int(np.flatnonzero(self.chosen == number)[0])
            with torch.no_grad():
                positions = split.to_positions(split.g(self.part(place, place + 1)))
            plane = split.spatial(positions)
            members = np.flatnonzero(index[:, 0] == number)
            for member in members:
                rows.append((member, self._cell(plane, positions, index[member])))
        return np.stack([row for _, row in sorted(rows, key=lambda pair: pair[0])])

    def _cell(self, plane: Any, positions: torch.Tensor, row: np.ndarray) -> np.ndarray:
        """Average the positions whose centres lie in a pixel square."""
        if plane is None or row[3] <= 0:
            axes = tuple(range(1, positions.ndim - 1))
            return as_numpy(positions.mean(axes)[0] if axes else positions[0])
        height, width = self.inputs.shape[-2:]
        spans = []
        for start, n, extent in ((row[1], plane.shape[1], height), (row[2], plane.shape[2], width)):
            low = int(np.clip(np.floor(start * n / extent), 0, n - 1))
            high = int(np.clip(np.ceil((start + row[3]) * n / extent), low + 1, n))
            spans.append(slice(low, high))
        return as_numpy(plane[0, spans[0], spans[1]].mean((0, 1)))

    def sample(self, rows: Any, seed: int) -> np.ndarray:
        """Draw rows for the choice of the rank, all of them when they are few."""
        if len(rows) <= _RANK_ROWS:
            return np.asarray(rows[:])
        picked = numpy_generator(seed).choice(len(rows), _RANK_ROWS, replace=False)
        return np.asarray(rows[np.sort(picked)])

    def code(self, rows: Any, extractor: Any) -> np.ndarray:
        """Give U of all rows, piece by piece."""
        parts = [
            np.asarray(extractor.transform(np.asarray(rows[start : start + _CODE_ROWS])))
            for start in range(0, len(rows), _CODE_ROWS)
        ]
        return np.concatenate(parts)

    # ---------------------------------------------------------- whole images
    def activations(self) -> np.ndarray:
        """Run g on the whole images: A (n, *positions, p)."""

        def run(start: int, stop: int) -> np.ndarray:
            return as_numpy(self.split.to_positions(self.split.g(self.part(start, stop))))

        return np.concatenate(self.each(run, "encode images", None))

    def coefficients(self, extractor: Any) -> np.ndarray:
        """Code every position of every image: U (n, *positions, k)."""

        def run(start: int, stop: int) -> np.ndarray:
            positions = self.split.to_positions(self.split.g(self.part(start, stop)))
            U = as_numpy(extractor.transform(positions.reshape(-1, positions.shape[-1])))
            return U.reshape(*positions.shape[:-1], U.shape[-1])

        return np.concatenate(self.each(run, "encode images", None))

    def predictions(self) -> np.ndarray:
        """Class that the model gives each image."""
        scores = self.each(lambda start, stop: as_numpy(self.split.f(self.part(start, stop))))
        return np.asarray(np.concatenate(scores).argmax(axis=1))

    def check_target(self, target: Any, logits: np.ndarray | None = None) -> np.ndarray:
        """Turn a target into one output an image.

        Parameters
        ----------
        target : int, "predicted", or sequence of int
            As for :meth:`CRAFT.fit`.
        logits : ndarray of shape (n, n_outputs), optional
            The model's answers, where they are known already.

        Raises
        ------
        InputError
            ``CL-INPUT-TARGET``, with the number of outputs.
        """
        n_outputs = logits.shape[1] if logits is not None else self._n_outputs()
        names = self.split.class_names or []
        if isinstance(target, str) and target in names:
            target = names.index(target)
        if isinstance(target, str):
            if target != "predicted":
                known = f", one of {', '.join(names[:10])}" if names else ""
                raise InputError(
                    f"target must be 'predicted', a class number{known} or one number for each "
                    f"image, got {target!r}.",
                    code="CL-INPUT-TARGET",
                )
            if logits is None:
                return np.zeros(len(self), np.int64)
            return np.asarray(logits.argmax(axis=1))
        values = np.asarray(as_numpy(target))
        if values.dtype.kind not in "iu" or values.ndim > 1:
            raise InputError(
                f"target must hold class numbers, got {np.asarray(target).dtype} of shape "
                f"{values.shape}.",
                code="CL-INPUT-TARGET",
            )
        if values.ndim == 1 and len(values) != len(self):
            raise InputError(
                f"target holds {len(values)} numbers for {len(self)} images; give one for each.",
                code="CL-INPUT-TARGET",
            )
        wrong = (values < 0) | (values >= n_outputs)
        if wrong.any():
            raise InputError(
                f"target {np.atleast_1d(values)[np.atleast_1d(wrong)][0]} is out of range: the "
                f"model has {n_outputs} outputs, numbered 0 to {n_outputs - 1}.",
                code="CL-INPUT-TARGET",
            )
        return np.broadcast_to(values.astype(np.int64), (len(self),)).copy()

    # -------------------------------------------------------------- pictures
    def crops(self, index: np.ndarray) -> list[np.ndarray]:
        """Cut the patches of some rows out of the images, for display."""
        if isinstance(self.inputs, Mapping):
            return []
        context = 3.0 if self.settings["mode"] == "none" else 1.0
        source = image_source(self.inputs, value_range="any", channels=self.inputs.shape[1])
        return [crop(source, row, context=context) for row in index]

    def pictures(self, n: int, first: ArrayLike = ()) -> np.ndarray:
        """Choose `n` images to show: `first`, and others evenly; none for text."""
        if isinstance(self.inputs, Mapping):
            return np.empty(0, np.int64)
        wanted = np.array(list(dict.fromkeys(as_numpy(first).tolist()))[:n], np.int64)
        rest = np.setdiff1d(np.arange(len(self)), wanted)
        places = np.linspace(0, len(rest) - 1, min(n - len(wanted), len(rest)))
        return np.sort(np.r_[wanted, rest[places.round().astype(np.int64)]])

    def model_input(self, n: int) -> Any:
        """Give the first `n` inputs as the bare model takes them."""
        first = self.part(0, n)
        images = first.images if isinstance(first, Joined) else first
        if self.split.preprocess is not None and not isinstance(images, Mapping):
            images = self.split.preprocess(images)
        return first.arguments(self.split.model, images) if isinstance(first, Joined) else images

    def subset(self, numbers: np.ndarray) -> ImageViews:
        """Take some of the images, named by their numbers in the first set."""
        places = np.flatnonzero(np.isin(self.chosen, numbers))
        keep = torch.from_numpy(places)
        if isinstance(self.inputs, Mapping):
            inputs: Any = {key: value[keep] for key, value in self.inputs.items()}
        else:
            inputs = self.inputs[keep]
        beside = None if self.beside is None else self.beside.rows(keep)
        return replace(
            self, inputs=inputs, chosen=self.chosen[places], places=places, beside=beside
        )

    # ---------------------------------------------------------------- inside
    def part(self, start: int, stop: int) -> Any:
        """Give some of the inputs, as `split` takes them."""
        if isinstance(self.inputs, Mapping):
            return {key: value[start:stop] for key, value in self.inputs.items()}
        return self.whole[start:stop]

    @property
    def whole(self) -> Any:
        """All inputs, the images with what goes beside them."""
        return self.inputs if self.beside is None else Joined(self.inputs, self.beside)

    def kept(self, split: SplitModel) -> Joined | None:
        """Give the inputs that h needs beside activations, where some go round the layer."""
        return None if self.beside is None or split.closed else self.whole

    def each(
        self,
        run: Callable[[int, int], T],
        description: str = "compute",
        progress: Progress = False,
    ) -> list[T]:
        """Run on batches of inputs without a graph, smaller ones when memory runs out."""
        text = isinstance(self.inputs, Mapping)
        shape = (224, 224) if text else tuple(self.inputs.shape[-2:])

        def without_gradient(start: int, stop: int) -> T:
            with torch.no_grad():
                return run(start, stop)

        batches = iter_batches(
            without_gradient,
            len(self),
            batch_size=check_batch_size(self.batch_size),
            largest=automatic_batch(self.batch_size, shape, self.split.device),
            description=description,
            progress=progress,
        )
        return [value for _, _, value in batches]

    def _n_outputs(self) -> int:
        with torch.no_grad():
            return int(self.split.f(self.part(0, 1)).shape[1])


def check_labels(y: ArrayLike, n: int) -> np.ndarray:
    """Give the class of each image as integers."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise InputError(
            f"y must hold one class for each of the {n} images, got shape {labels.shape}.",
            code="CL-INPUT-LABELS",
        )
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"y must hold the numbers of the model's outputs as ints, got {labels.dtype}: "
            f"{labels[:3].tolist()}, ... Turn names into numbers by their place in class_names.",
            code="CL-INPUT-LABELS",
        )
    return labels


def _samples(inputs: Mapping[str, Any]) -> int:
    """Count the samples of a dict of tensors, which all must have as many."""
    sizes = {name: len(value) for name, value in inputs.items() if np.ndim(value)}
    if not sizes or 0 in sizes.values():
        raise InputError(
            f"Inputs are empty: {sizes or 'no tensor'}. Give at least one sample.",
            code="CL-INPUT-EMPTY",
        )
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"All inputs must have one entry for each sample, got {sizes}.", code="CL-INPUT-SHAPE"
        )
    return next(iter(sizes.values()))
