"""What goes into an audit: checked models, samples and concepts."""

from __future__ import annotations

__all__ = ["Concepts", "Sets", "as_model", "check_sets", "read_concepts"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_numpy, check_finite
from conceptlab.bank import ConceptBank
from conceptlab.errors import InputError
from conceptlab.seeds import torch_generator
from unlearning.audit.reading import Reading
from unlearning.data import Samples, as_samples, check_disjoint_samples, check_same_kind

_TWINS = 0.01
"""Share of test samples that may also be training samples; photo collections have a few."""


@dataclass(frozen=True, eq=False)
class Sets:
    """The samples of an audit.

    Attributes
    ----------
    forget, retain : Samples
        Training samples.
    test : Samples
        Test samples of all classes.
    rows : torch.Tensor
        Which of the given test samples these are.
    classes : tuple of int
        The forgotten classes.
    earlier : tuple of int
        Classes forgotten by earlier requests.
    notes : tuple of str
        What a reader has to know.
    n_given : int
        Number of test samples that were given, of which some may not be used.
    partial : bool
        Whether training samples of the same classes stay, so that samples are to be forgotten
        and no class.
    """

    forget: Samples
    retain: Samples
    test: Samples
    rows: torch.Tensor
    classes: tuple[int, ...]
    earlier: tuple[int, ...]
    notes: tuple[str, ...] = ()
    n_given: int = 0
    partial: bool = False

    @property
    def mine(self) -> np.ndarray:
        """Which test samples are of the forgotten classes, or of those of forgotten samples."""
        return np.isin(self.test.y.numpy(), self.classes)

    @property
    def kept(self) -> np.ndarray:
        """Which test samples are of retained classes."""
        gone = self.earlier if self.partial else (*self.classes, *self.earlier)
        return ~np.isin(self.test.y.numpy(), list(gone))


def check_sets(
    forget: Any,
    retain: Any,
    test: Any,
    *,
    earlier: Sequence[int] = (),
    max_samples: int | None = 5000,
    random_state: int = 0,
) -> Sets:
    """Read and check the samples of an audit.

    Parameters
    ----------
    forget, retain, test : object
        What :func:`unlearning.as_samples` takes.
    earlier : sequence of int
        Classes that earlier requests made the model forget.
    max_samples : int or None
        At most so many of each set are used, drawn at random.
    random_state : int
        Of the draw.

    Returns
    -------
    Sets

    Raises
    ------
    InputError
        ``CL-INPUT-LABELS``: some of the forgotten classes among retained samples and some not,
        one missing among the test samples, none of the others there, or sets that overlap.
    """
    gone = as_samples(forget, name="forget")
    kept = as_samples(retain, name="retain")
    held = as_samples(test, name="test")
    classes = tuple(gone.classes)
    both = set(classes) & set(kept.classes)
    absent = sorted(set(classes) - set(held.classes))
    if absent:
        raise InputError(
            f"`test` holds no sample of the forgotten class {_listed(absent)}: it holds "
            f"{_listed(held.classes)}. Give test samples of all classes, the forgotten ones too.",
            code="CL-INPUT-LABELS",
        )
    old = tuple(sorted({int(c) for c in earlier} - set(classes)))
    missing = [c for c in old if c not in held.classes]
    if missing:
        raise InputError(
            f"`test` holds no sample of class {_listed(missing)}, named in earlier=.",
            code="CL-INPUT-LABELS",
        )
    if not both and not set(held.classes) - set(classes) - set(old):
        raise InputError(
            "`test` holds the forgotten class only; what was kept is measured on test samples of "
            "the retained classes. Give test samples of all classes.",
            code="CL-INPUT-LABELS",
        )
    if len(kept.classes) < 2:
        raise InputError(
            f"`retain` holds one class ({kept.classes[0]}); at least two must be left to tell "
            "apart. Give training samples of all retained classes.",
            code="CL-INPUT-FEW",
        )
    check_same_kind(gone, kept)
    check_same_kind(gone, held, joined=False)
    check_disjoint_samples(gone, kept)
    if both and both != set(classes):
        raise InputError(
            f"`retain` holds samples of class {_listed(sorted(both))} and none of class "
            f"{_listed(sorted(set(classes) - both))}, both of `forget`. Ask for whole classes "
            "(split_classes divides) or for parts of classes, one after the other.",
            code="CL-INPUT-LABELS",
        )
    notes = [n for n in (_apart(gone, held), _apart(kept, held)) if n]
    generator = torch_generator(random_state)
    whole = torch.arange(len(held))
    rows, n_given = whole, len(held)
    if max_samples is not None:
        if max_samples < 10:
            raise InputError(
                f"max_samples must be at least 10 or None, got {max_samples}.",
                code="CL-INPUT-RANGE",
            )
        gone, kept = _cut(gone, max_samples, generator), _cut(kept, max_samples, generator)
        if len(held) > max_samples:  # the forgotten class stays whole as long as it can
            own = torch.isin(held.y, torch.tensor([*classes, *old]))
            few = _rows(whole[own], max_samples // 2, generator)
            rows = torch.cat([few, _rows(whole[~own], max_samples - len(few), generator)])
            rows = rows.sort().values
            held = held.select(rows)
    return Sets(gone, kept, held, rows, classes, old, tuple(notes), n_given, bool(both))


def _apart(train: Samples, held: Samples) -> str:
    places = set(train.hashes)
    same = [i for i, line in enumerate(held.hashes) if line in places]
    if not same:
        return ""
    few = len(same) <= _TWINS * min(len(train), len(held))
    text = f"{len(same)} samples are in `{train.name}` and in `test` (the first: test[{same[0]}])"
    if few:
        return f"{text}."
    raise InputError(
        f"`{train.name}` and `test` overlap: {text}. Test samples must be new to the model; take "
        "them out of one of the two.",
        code="CL-INPUT-LABELS",
    )


def _cut(samples: Samples, limit: int, generator: torch.Generator) -> Samples:
    if len(samples) <= limit:
        return samples
    return samples.select(_rows(torch.arange(len(samples)), limit, generator))


def _rows(rows: torch.Tensor, limit: int, generator: torch.Generator) -> torch.Tensor:
    if len(rows) <= limit:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:limit].sort().values]


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, list(values)[:20])) + (", ..." if len(values) > 20 else "")


def as_model(value: Any, name: str) -> tuple[nn.Module, dict[str, Any] | None]:
    """Take the model, and the certificate where there is one, out of what was given.

    Parameters
    ----------
    value : torch.nn.Module or UnlearnResult
    name : str
        What it is, for messages.

    Returns
    -------
    model : torch.nn.Module
    certificate : dict or None
    """
    certificate = getattr(value, "certificate", None)
    model = getattr(value, "model", None) if certificate is not None else value
    if not isinstance(model, nn.Module):
        raise InputError(
            f"`{name}` must be a torch.nn.Module or an UnlearnResult, got {type(value).__name__}.",
            code="CL-INPUT-TYPE",
        )
    return model, certificate if isinstance(certificate, dict) else None


@dataclass(frozen=True, eq=False)
class Concepts:
    """Concepts of the test samples.

    Attributes
    ----------
    names : tuple of str
    scores : ndarray of shape (n, k), float64
        Labels or scores.
    shown : ndarray of shape (n, k), bool
        Which sample shows which concept.
    source : str
        In words.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    shown: np.ndarray
    source: str


def read_concepts(concepts: Any, sets: Sets, before: Reading, encoder: Any = None) -> Concepts:
    """Read what `concepts` of an audit means for the test samples.

    Parameters
    ----------
    concepts : object
        - mapping of name to (n_test,), or a pandas.DataFrame with n_test rows;
        - ``(matrix, names)`` with a matrix (n_test, k);
        - a :class:`~conceptlab.bank.ConceptBank` in the space of `encoder`, or without one in
          that of the original's penultimate features. A concept is shown where its score is
          above 0 (banks with intercepts) or above the midpoint of the two means into which
          its scores fall.
    sets : Sets
    before : Reading
        Of the original.
    encoder : Encoder, optional
        For banks of texts.

    Returns
    -------
    Concepts

    Raises
    ------
    InputError
        Another number of rows, values that are no labels, a bank of another width.
    """
    n_test = sets.n_given
    if isinstance(concepts, ConceptBank):
        return _of_bank(concepts, sets, before, encoder)
    if isinstance(concepts, Mapping) or hasattr(concepts, "columns"):
        names = [
            str(key) for key in (concepts.columns if hasattr(concepts, "columns") else concepts)
        ]
        matrix = np.stack([as_numpy(concepts[key]) for key in concepts], axis=1) if names else None
    elif isinstance(concepts, tuple | list) and len(concepts) == 2:
        matrix, names = as_numpy(concepts[0]), [str(name) for name in concepts[1]]
    else:
        raise InputError(
            "concepts must be a mapping of names to labels of the test samples, a DataFrame, "
            f"(matrix, names) or a ConceptBank, got {type(concepts).__name__}.",
            code="CL-INPUT-TYPE",
        )
    if matrix is None or matrix.shape != (n_test, len(names)):
        shape = None if matrix is None else matrix.shape
        raise InputError(
            f"concepts must have a row for each of the {n_test} test samples and a column for "
            f"each of {len(names)} names, got shape {shape}.",
            code="CL-INPUT-SHAPE",
        )
    values = matrix.astype(np.float64)[sets.rows.numpy()]
    check_finite(values, "concepts")
    if not np.isin(values, (0.0, 1.0)).all():
        raise InputError(
            "Labels of concepts must be booleans (or 0 and 1). For scores give the ConceptBank "
            "that makes them, or scores > threshold.",
            code="CL-INPUT-LABELS",
        )
    return Concepts(tuple(names), values, values > 0.5, "labels")


def _of_bank(bank: ConceptBank, sets: Sets, before: Reading, encoder: Any) -> Concepts:
    if encoder is not None:
        bank.check_space(encoder)
        if not isinstance(sets.test.inputs, torch.Tensor):
            raise InputError(
                "An encoder needs images as test inputs; give labels of concepts instead.",
                code="CL-INPUT-TYPE",
            )
        features = as_numpy(encoder.encode_image(sets.test.inputs))
        source = f"bank of {len(bank)} concepts, scored by {getattr(encoder, 'name', 'an encoder')}"
    else:
        features = before.features["test"]
        source = f"bank of {len(bank)} concepts on the original's features"
        if features.shape[1] != bank.n_features:
            raise InputError(
                f"The bank's vectors have length {bank.n_features}, the original's penultimate "
                f"features {features.shape[1]}. Give encoder= for a bank of another space.",
                code="CL-INPUT-FEATURES",
            )
    scores = as_numpy(bank.score(features)).astype(np.float64)
    if bank.intercepts is not None:
        shown = scores > 0
    else:
        shown = scores > np.array([_midpoint(column) for column in scores.T])
    return Concepts(tuple(bank.names), scores, shown, source)


def _midpoint(values: np.ndarray) -> float:
    """Divide numbers into two groups of least variance, and give the middle of their means."""
    order = np.sort(values)
    n = len(order)
    if n < 2 or order[0] == order[-1]:
        return float(order[-1]) if n else 0.0
    left = np.cumsum(order)[:-1]
    count = np.arange(1, n)
    low, high = left / count, (order.sum() - left) / (n - count)
    best = int(np.argmax(count * (n - count) * (high - low) ** 2))
    return float((low[best] + high[best]) / 2)
