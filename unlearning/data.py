"""Labelled samples, from tensors, arrays, data sets, loaders or tokenised texts."""

from __future__ import annotations

__all__ = [
    "Samples",
    "as_samples",
    "check_disjoint_samples",
    "check_same_kind",
    "concat",
    "join_inputs",
    "n_batches",
    "quiet_randomness",
    "split_classes",
]

import functools
import hashlib
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from conceptlab.arrays import ArrayLike
from conceptlab.errors import InputError
from conceptlab.seeds import quiet_randomness
from unlearning.notices import UnlearningWarning

Inputs = torch.Tensor | dict[str, torch.Tensor]
_LABEL_KEYS = ("labels", "label", "y", "target")


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs with their labels, in memory on the CPU.

    Attributes
    ----------
    inputs : torch.Tensor or dict of str to torch.Tensor
        Images (n, ...), or tokenised texts with one tensor for each argument
        of the model.
    y : torch.Tensor of shape (n,), int64
        Class indices.
    name : str
        For messages.

    Examples
    --------
    >>> samples = as_samples((torch.zeros(4, 3, 8, 8), [0, 1, 1, 2]))
    >>> len(samples), samples.classes, len(samples.select([0, 2]))
    (4, [0, 1, 2], 2)
    """

    inputs: Inputs
    y: torch.Tensor
    name: str = "data"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def classes(self) -> list[int]:
        """The labels that occur, sorted."""
        return [int(c) for c in torch.unique(self.y)]

    def select(self, index: Any) -> Samples:
        """Take the samples at `index` (integers or a boolean mask), in that order."""
        rows = torch.as_tensor(index)
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        return Samples(_rows(self.inputs, rows), self.y[rows], self.name)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        *,
        shuffle: bool | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Go through the samples once.

        Parameters
        ----------
        batch_size : int
            Samples in a batch; the last one may be smaller, and a single
            sample that would be left over joins the batch before it, because
            batch norm cannot train on one sample.
        generator : torch.Generator, optional
            For the order. With it the samples are shuffled unless `shuffle` is False.
        shuffle : bool, optional
            Whether to shuffle; needs `generator`.
        drop_last : bool
            Leave out a last batch that is not full.

        Yields
        ------
        inputs : tensor or dict of tensors
        y : torch.Tensor of shape (b,)
        """
        n = len(self)
        mixed = generator is not None if shuffle is None else shuffle
        if mixed and generator is None:
            raise InputError(
                "Shuffled batches need generator=torch.Generator().", code="CL-INPUT-OPTION"
            )
        order = torch.randperm(n, generator=generator) if mixed else None
        starts = list(range(0, n, batch_size))
        if (drop_last and n % batch_size) or n_batches(n, batch_size) < len(starts):
            starts.pop()
        for i, start in enumerate(starts):
            stop = start + batch_size if i + 1 < len(starts) or drop_last else n
            rows = slice(start, stop) if order is None else order[start:stop]
            yield _rows(self.inputs, rows), self.y[rows]

    def with_labels(self, y: torch.Tensor) -> Samples:
        """Give the same inputs with other labels."""
        return Samples(self.inputs, torch.as_tensor(y, dtype=torch.int64), self.name)

    @functools.cached_property
    def hashes(self) -> list[str]:
        """The sha256 of each sample's input; equal inputs have equal hashes."""
        inputs = self.inputs
        parts = list(inputs.items()) if isinstance(inputs, dict) else [("", inputs)]
        found = [hashlib.sha256() for _ in range(len(self))]
        for key, tensor in sorted(parts, key=lambda part: part[0]):
            flat = tensor.detach().contiguous()
            kind = f"{key}:{flat.dtype}:{tuple(flat.shape[1:])}:".encode()
            rows = flat.reshape(len(flat), -1).view(torch.uint8).numpy()
            for digest, row in zip(found, rows, strict=True):
                digest.update(kind)
                digest.update(row.tobytes())
        return [digest.hexdigest() for digest in found]

    @functools.cached_property
    def digest(self) -> str:
        """One sha256 for all inputs and labels in their order."""
        digest = hashlib.sha256()
        for line, label in zip(self.hashes, self.y.tolist(), strict=True):
            digest.update(f"{line}:{label};".encode())
        return digest.hexdigest()


def n_batches(n: int, batch_size: int) -> int:
    """Count the batches that :meth:`Samples.batches` makes of `n` samples."""
    whole, rest = divmod(n, batch_size)
    return whole if whole and (rest == 0 or (rest == 1 and batch_size > 1)) else whole + 1


def as_samples(data: Any, *, name: str = "forget", n_classes: int | None = None) -> Samples:
    """Read labelled data of any usual kind into memory.

    Parameters
    ----------
    data : object
        - ``(X, y)``: tensors or arrays; X may be a mapping of tensors;
        - a mapping of tensors with the labels under ``labels`` (as
          transformers' tokenised data sets);
        - a ``Dataset`` of ``(x, y)`` or of mappings with ``labels``;
        - a ``DataLoader`` of batches of those. It is read once, in its own
          order: one that shuffles gives another order, so other weights;
        - :class:`Samples`.
    name : str
        What the data are, for messages.
    n_classes : int, optional
        Number of outputs of the model; labels must be below it.

    Returns
    -------
    Samples
        Floats of 64 bits become 32 bits; other types stay.

    Raises
    ------
    InputError
        Nothing in it, lengths that differ, labels that are no class indices
        or out of range, uint8 images, NaN.

    Examples
    --------
    >>> samples = as_samples((torch.zeros(3, 2), [0, 1, 1]), name="retain")
    >>> len(samples), samples.classes
    (3, [0, 1])
    """
    if isinstance(data, Samples):
        samples = Samples(data.inputs, data.y, name)
        samples.__dict__.update({k: v for k, v in vars(data).items() if k in {"hashes", "digest"}})
    else:
        X, y = _read(data, name)
        samples = Samples(_check_inputs(X, name), _check_labels(y, name), name)
    n = _length(samples.inputs)
    if n != len(samples.y):
        raise InputError(
            f"`{name}` holds {n} inputs and {len(samples.y)} labels; give one label for each.",
            code="CL-INPUT-SHAPE",
        )
    if n == 0:
        raise InputError(
            f"`{name}` is empty: expected at least one labelled sample. If a class was selected, "
            "check that its label occurs in the data.",
            code="CL-INPUT-EMPTY",
        )
    low, high = int(samples.y.min()), int(samples.y.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        limit = f"0 to {n_classes - 1}" if n_classes is not None else "0 upwards"
        raise InputError(
            f"Labels of `{name}` must be class indices {limit}, got {low} to {high}. Count classes "
            "from 0, and check that the model has an output for each.",
            code="CL-INPUT-LABELS",
        )
    return samples


def concat(*samples: Samples, name: str | None = None) -> Samples:
    """Put several sets of samples behind each other."""
    inputs = join_inputs(*(s.inputs for s in samples))
    return Samples(inputs, torch.cat([s.y for s in samples]), name or samples[0].name)


def join_inputs(*inputs: Inputs) -> Inputs:
    """Put batches of one kind behind each other."""
    tensors = [part for part in inputs if isinstance(part, torch.Tensor)]
    if len(tensors) == len(inputs):
        return torch.cat(tensors)
    mappings = [part for part in inputs if isinstance(part, dict)]
    return {key: torch.cat([part[key] for part in mappings]) for key in mappings[0]}


def split_classes(
    data: Any, classes: int | Sequence[int], *, name: str = "data"
) -> tuple[Samples, Samples]:
    """Divide labelled data into the classes to forget and the rest.

    Parameters
    ----------
    data : object
        What :func:`as_samples` takes.
    classes : int or sequence of int
        The labels to forget; digits in a text, as a shell gives them, are one number.
    name : str
        What the data are, for messages.

    Returns
    -------
    forget, retain : Samples

    Raises
    ------
    InputError
        ``CL-INPUT-LABELS``: a class is not in the data; ``CL-INPUT-TYPE``: something
        that is no whole number.

    Examples
    --------
    >>> forget, retain = split_classes((torch.arange(4.0)[:, None], [0, 1, 2, 1]), 1)
    >>> forget.inputs[:, 0].tolist(), retain.y.tolist()
    ([1.0, 3.0], [0, 2])
    """
    samples = as_samples(data, name=name)
    wanted = _class_numbers(classes)
    absent = sorted(set(wanted) - set(samples.classes))
    if absent or not wanted:
        shown = ", ".join(map(str, samples.classes[:20]))
        raise InputError(
            f"Class {', '.join(map(str, absent)) or '(none given)'} is not in `{name}`: it holds "
            f"the labels {shown}. Name a class that the data hold.",
            code="CL-INPUT-LABELS",
        )
    mask = torch.isin(samples.y, torch.tensor(wanted))
    forget, retain = samples.select(mask), samples.select(~mask)
    return Samples(forget.inputs, forget.y, "forget"), Samples(retain.inputs, retain.y, "retain")


def _class_numbers(classes: Any) -> list[int]:
    """Read one class or several."""
    if isinstance(classes, torch.Tensor | np.ndarray):
        classes = classes.tolist()
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        classes = [classes]
    found = []
    for value in classes:
        digits = isinstance(value, str) and value.strip().isdecimal()
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if digits or whole:
            found.append(int(value))
        else:
            raise InputError(
                f"classes must be class indices (whole numbers), got {value!r}. Map names to "
                "indices first.",
                code="CL-INPUT-TYPE",
            )
    return found


def check_disjoint_samples(forget: Samples, retain: Samples) -> None:
    """Raise where the same input is in both sets.

    Raises
    ------
    InputError
        ``CL-INPUT-LABELS``, with the places of the first ones.
    """
    places = {line: i for i, line in reversed(list(enumerate(forget.hashes)))}
    both = [(places[line], j) for j, line in enumerate(retain.hashes) if line in places]
    if both:
        shown = ", ".join(f"forget[{i}] = retain[{j}]" for i, j in both[:3])
        raise InputError(
            f"`{forget.name}` and `{retain.name}` overlap: {len(both)} samples are in both "
            f"({shown}). Take them out of `{retain.name}`; split_classes(data, c) divides.",
            code="CL-INPUT-LABELS",
        )


def check_same_kind(first: Samples, second: Samples, *, joined: bool = True) -> None:
    """Raise where two sets cannot go through one model.

    Parameters
    ----------
    first, second : Samples
        Both tensors of one shape, or mappings with the same keys.
    joined : bool
        Whether samples of both meet in a batch; else texts may differ in length.

    Raises
    ------
    InputError
        ``CL-INPUT-SHAPE``: other keys or shapes; ``CL-INPUT-TYPE``: a tensor beside a
        mapping, or integers beside floats.
    """
    one, other = (
        s.inputs if isinstance(s.inputs, dict) else {"": s.inputs} for s in (first, second)
    )
    names = f"`{second.name}`", f"`{first.name}`"
    if isinstance(first.inputs, dict) != isinstance(second.inputs, dict):
        kinds = ("a mapping" if isinstance(s.inputs, dict) else "a tensor" for s in (second, first))
        raise InputError(
            f"{names[0]} is {next(kinds)} and {names[1]} is {next(kinds)}. Give both in one form.",
            code="CL-INPUT-TYPE",
        )
    if one.keys() != other.keys():
        raise InputError(
            f"{names[0]} has the inputs {', '.join(sorted(other))}, {names[1]} has "
            f"{', '.join(sorted(one))}. Give the same to both.",
            code="CL-INPUT-SHAPE",
        )
    for key in one:
        a, b = other[key], one[key]
        what = f"Samples of {names[0]} have" + (f" {key!r} of" if key else "")
        strict = joined or not key
        if (a.shape[1:] != b.shape[1:]) if strict else (a.ndim != b.ndim):
            shapes = f"shape {tuple(a.shape[1:])}, those of {names[1]} {tuple(b.shape[1:])}"
            advice = (
                "Pad texts to one length (padding='max_length')."
                if key
                else "Give all sets as the model takes them."
            )
            raise InputError(f"{what} {shapes}. {advice}", code="CL-INPUT-SHAPE")
        if a.is_floating_point() != b.is_floating_point():
            raise InputError(
                f"{what} type {a.dtype}, those of {names[1]} {b.dtype}. Give both as the model "
                "takes them.",
                code="CL-INPUT-TYPE",
            )


def _rows(inputs: Inputs, rows: Any) -> Inputs:
    if isinstance(inputs, dict):
        return {key: tensor[rows] for key, tensor in inputs.items()}
    return inputs[rows]


def _length(inputs: Inputs) -> int:
    if not isinstance(inputs, dict):
        return len(inputs)
    lengths = {key: len(tensor) for key, tensor in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(
            f"The inputs differ in length: {lengths}. Give one row for each sample.",
            code="CL-INPUT-SHAPE",
        )
    return next(iter(lengths.values()))


def _read(data: Any, name: str) -> tuple[Any, Any]:
    if isinstance(data, Mapping):
        columns, labels = _divide_mapping(data, name)
        return _without_text([columns], name)[0], labels
    pair = isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[0])
    if pair and not isinstance(data[1], Mapping):  # else two rows
        return data[0], data[1]
    if hasattr(data, "columns") and hasattr(data, "shape"):
        raise InputError(
            f"`{name}` cannot be a table (columns {', '.join(map(repr, data.columns))}). Give "
            "arrays (X, y).",
            code="CL-INPUT-TYPE",
        )
    batched = False
    if isinstance(data, DataLoader | IterableDataset):
        parts: Iterable[Any] = data
        if isinstance(data, DataLoader):
            batched = data.batch_size is not None or data.batch_sampler is not None
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        parts = (data[i] for i in range(len(data)))
    else:
        raise InputError(
            f"`{name}` must be (X, y), a mapping with 'labels', a Dataset or a DataLoader, got "
            f"{type(data).__name__}.",
            code="CL-INPUT-TYPE",
        )
    with quiet_randomness():  # loaders shuffle, and data sets augment
        rows = [_divide(part, name) for part in parts]
    if not rows:
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    _check_known([y for _, y in rows], name)
    join = torch.cat if batched else torch.stack
    inputs = _without_text([x for x, _ in rows], name)
    try:
        X, y = _join(inputs, join), join([torch.as_tensor(y) for _, y in rows])
        if isinstance(data, DataLoader):
            _tell_of_left_out(data, len(y), name)
        return X, y
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The samples of `{name}` cannot become tensors ({error}). Each must be one array, or "
            "a mapping from the names of the model's arguments to arrays; got "
            f"{_described(inputs[0])}.",
            code="CL-INPUT-TYPE",
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"The samples of `{name}` differ in shape: {error}. Give images of one size, and texts "
            "padded to one length (padding='max_length').",
            code="CL-INPUT-SHAPE",
        ) from error


def _without_text(rows: list[Any], name: str) -> list[Any]:
    """Leave out the columns of mappings that hold text, which no model takes, and say so."""
    if not isinstance(rows[0], Mapping):
        return rows
    texts = [key for key, value in rows[0].items() if _is_text(value)]
    if not texts:
        return rows
    if len(texts) == len(rows[0]):
        raise InputError(
            f"`{name}` holds only text ({', '.join(map(str, texts))}), and a model takes numbers. "
            "Tokenise it first.",
            code="CL-INPUT-TYPE",
        )
    warnings.warn(
        f"Columns of text in `{name}` are left out: {', '.join(map(str, texts))}.",
        UnlearningWarning,
        stacklevel=2,
    )
    return [{key: value for key, value in row.items() if key not in texts} for row in rows]


def _is_text(value: Any) -> bool:
    several = isinstance(value, list | tuple) and bool(value)
    return isinstance(value[0] if several else value, str | bytes)


def _described(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return "a mapping with " + ", ".join(map(str, value))
    return f"a {type(value).__name__}"


def _tell_of_left_out(loader: DataLoader[Any], n: int, name: str) -> None:
    """Warn where a loader did not give each sample of its data set once."""
    try:
        whole = len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return
    again = getattr(loader.sampler, "replacement", False)
    if n >= whole and not again:
        return
    how = f"gave {n} of the {whole} samples of its data set" if n < whole else ""
    how = "draws samples with replacement, so that some are missing" if again else how
    warnings.warn(
        f"The loader of `{name}` {how}. What is left out is neither forgotten nor kept: give the "
        "data set itself, or a loader without drop_last and without a sampler.",
        UnlearningWarning,
        stacklevel=2,
    )


def _divide(part: Any, name: str) -> tuple[Any, Any]:
    if isinstance(part, Mapping):
        return _divide_mapping(part, name)
    if isinstance(part, tuple | list) and len(part) >= 2:
        return part[0], part[1]
    raise InputError(
        f"Items of `{name}` must be (x, y) or mappings with 'labels', got {type(part).__name__}.",
        code="CL-INPUT-TYPE",
    )


def _divide_mapping(data: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    key = next((key for key in _LABEL_KEYS if key in data), None)
    if key is None:
        raise InputError(
            f"`{name}` is a mapping with {', '.join(map(str, data)) or 'no keys'}; expected the "
            "labels under 'labels', or give ({'input_ids': ...}, y).",
            code="CL-INPUT-LABELS",
        )
    return {k: v for k, v in data.items() if k != key}, data[key]


def _is_array(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return hasattr(value, "shape") and getattr(value, "ndim", 0) >= 1


def _join(items: list[Any], join: Any) -> Any:
    if isinstance(items[0], Mapping):
        return {key: _join([item[key] for item in items], join) for key in items[0]}
    return join([torch.as_tensor(np.asarray(x) if _is_image(x) else x) for x in items])


def _check_known(labels: list[Any], name: str) -> None:
    """Refuse samples without a label, and labels that are names."""
    for number, label in enumerate(labels):
        if label is None or _is_text(label):
            raise InputError(
                f"Sample {number} of `{name}` has the label {label!r:.40}; give class indices.",
                code="CL-INPUT-LABELS",
            )


def _is_image(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.")


def _check_inputs(X: ArrayLike, name: str) -> Inputs:
    if isinstance(X, Mapping):
        if not X:
            raise InputError(f"`{name}` holds no inputs.", code="CL-INPUT-EMPTY")
        return {str(key): _check_tensor(value, f"{name}[{key!r}]") for key, value in X.items()}
    return _check_tensor(X, name)


def _check_tensor(value: Any, name: str) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"`{name}` cannot become a tensor: {error}. Give numbers of one type.",
            code="CL-INPUT-TYPE",
        ) from error
    if tensor.ndim >= 3 and tensor.dtype == torch.uint8:
        raise InputError(
            f"`{name}` holds uint8 images, and the model takes floats. Convert them as the model "
            "expects, for example images.float() / 255.",
            code="CL-INPUT-TYPE",
        )
    if tensor.is_floating_point():
        tensor = tensor.float() if tensor.dtype == torch.float64 else tensor
        bad = ~torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None])
        if bool(bad.any()):
            rows = bad.any(dim=1).nonzero()[:, 0]
            raise InputError(
                f"`{name}` holds NaN or infinity in {len(rows)} samples, the first at index "
                f"{int(rows[0])}. Remove those samples.",
                code="CL-INPUT-NONFINITE",
            )
    return tensor


def _check_labels(y: ArrayLike, name: str) -> torch.Tensor:
    try:
        labels = torch.as_tensor(y).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Labels of `{name}` must be class indices, got {type(y).__name__}: {error}. "
            "Map class names to indices first.",
            code="CL-INPUT-LABELS",
        ) from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    if labels.ndim != 1 or labels.is_complex() or not whole:
        missing = int(labels.isnan().sum())
        raise InputError(
            f"Labels of `{name}` must be class indices of shape (n,), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}, {missing} of them NaN. For one-hot labels give y.argmax(1).",
            code="CL-INPUT-LABELS",
        )
    return labels.to(torch.int64)
