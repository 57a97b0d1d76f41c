"""What a model says and encodes: one pass over the samples, kept for every measure."""

from __future__ import annotations

__all__ = [
    "Reading",
    "accuracy_on",
    "borrowed",
    "borrowed_copy",
    "device_of",
    "middle_layer",
    "moved",
    "read_model",
]

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import as_numpy, check_finite
from conceptlab.errors import InputError
from conceptlab.models.session import model_copy, model_lock
from conceptlab.progress import Progress, track
from unlearning.audit.divergence import probabilities
from unlearning.data import Samples
from unlearning.heads import Head, features_and_logits, find_head, frozen, run_model


@dataclass(eq=False)
class Reading:
    """Features and logits of one model on several sets of samples.

    Attributes
    ----------
    head : str
        Name of the layer that gives the logits.
    features : dict of str to ndarray of shape (n, d), float32
        Penultimate features by set.
    logits : dict of str to ndarray of shape (n, C), float32
        Logits by set.
    middle : dict of str to ndarray of shape (n, e), float32
        What enters a layer in the middle, averaged over positions; empty where there is none.
    temperature : float
        By which logits are divided before they become probabilities: the size of the model's
        logits in units of the original's.
    """

    head: str
    features: dict[str, np.ndarray] = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    middle: dict[str, np.ndarray] = field(default_factory=dict)
    temperature: float = 1.0
    _p: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return int(next(iter(self.logits.values())).shape[1])

    def p(self, name: str) -> np.ndarray:
        """Give the probabilities on a set at the original's temperature, float64 (n, C)."""
        if name not in self._p:
            self._p[name] = probabilities(self.logits[name] / self.temperature)
        return self._p[name]


def read_model(
    model: nn.Module,
    sets: Mapping[str, Samples],
    *,
    head: str | None = None,
    middle: str | None = None,
    batch_size: int = 256,
    label: str = "model",
    progress: Progress = None,
) -> Reading:
    """Run a borrowed model once over sets of samples.

    The model runs in evaluation mode without gradients; mode, hooks and gradients are as
    before when this returns or fails.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier, on its own device.
    sets : mapping of str to Samples
        What to run it on.
    head : str, optional
        Name of its last linear layer; found when left out.
    middle : str, optional
        Name of a layer whose inputs are kept too; see :func:`middle_layer`.
    batch_size : int
        Samples in a pass.
    label : str
        What the model is, for messages.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Reading

    Raises
    ------
    SplitError
        No logits, or no linear layer that gives them.
    InputError
        ``CL-INPUT-NONFINITE``: logits or features with NaN.

    Examples
    --------
    >>> from unlearning.data import as_samples
    >>> samples = as_samples((torch.zeros(3, 4), [0, 1, 1]))
    >>> read_model(torch.nn.Linear(4, 2), {"test": samples}).logits["test"].shape
    (3, 2)
    """
    device = device_of(model)
    with borrowed(model), torch.no_grad():
        first = next(iter(sets.values()))
        example = moved(first.select(torch.arange(min(2, len(first)))).inputs, device)
        check_finite(run_model(model, example), f"logits of the model `{label}`")
        found = find_head(model, example, head=head)
        reading = Reading(found.name)
        for name, samples in sets.items():
            batches = track(
                samples.batches(batch_size),
                description=f"read {label} on {name}",
                total=-(-len(samples) // batch_size),
                progress=progress,
                unit="batch",
            )
            with _inputs_of(model, middle) as entered:
                rows = [_read(model, x, found, device) for x, _ in batches]
            reading.features[name] = np.concatenate([f for f, _ in rows])
            reading.logits[name] = np.concatenate([z for _, z in rows])
            between = _pooled(entered, [len(z) for _, z in rows])
            if between is not None:
                reading.middle[name] = between
            for what, values in (("features", reading.features), ("logits", reading.logits)):
                check_finite(values[name], f"{what} of the model `{label}` on `{name}`")
    return reading


def _read(
    model: nn.Module, inputs: Any, head: Head, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    features, logits = features_and_logits(model, moved(inputs, device), head)
    return as_numpy(features.flatten(1).float()), as_numpy(logits.float())


@contextlib.contextmanager
def _inputs_of(model: nn.Module, name: str | None) -> Iterator[list[Any]]:
    """Keep what enters a layer while this holds, a batch an entry."""
    seen: list[Any] = []
    owner = threading.get_ident()

    def keep(_module: nn.Module, args: Any) -> None:
        if threading.get_ident() == owner and args:  # another thread may be in the model, too
            seen.append(args[0])

    modules = dict(model.named_modules())
    handle = modules[name].register_forward_pre_hook(keep) if name in modules else None
    try:
        yield seen
    finally:
        if handle is not None:
            handle.remove()


def _pooled(batches: list[Any], sizes: list[int]) -> np.ndarray | None:
    """Average features over positions; None where there is no row for each sample."""
    if [len(x) if isinstance(x, torch.Tensor) else -1 for x in batches] != sizes:
        return None
    rows = []
    for x in batches:
        if x.ndim < 2 or not x.is_floating_point():
            return None
        axes = tuple(range(1, x.ndim - 1)) if x.ndim == 3 else tuple(range(2, x.ndim))
        rows.append(as_numpy((x.mean(dim=axes) if axes else x).float()))
    found = np.concatenate(rows)
    return found if np.isfinite(found).all() else None


def middle_layer(model: nn.Module, samples: Samples) -> str | None:
    """Name the layer in the middle of those with weights, in the order in which they run.

    Parameters
    ----------
    model : torch.nn.Module
    samples : Samples
        Of which a few are run.

    Returns
    -------
    str or None
        None with fewer than three such layers: then nothing lies between input and head.
    """
    order: list[str] = []
    handles = []
    owner = threading.get_ident()

    def note(name: str) -> Callable[..., None]:
        def run(*_: Any) -> None:
            if threading.get_ident() == owner:
                order.append(name)

        return run

    with borrowed(model), torch.no_grad():
        try:
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    handles.append(module.register_forward_hook(note(name)))
            few = samples.select(torch.arange(min(2, len(samples))))
            run_model(model, moved(few.inputs, device_of(model)))
        finally:
            for handle in handles:
                handle.remove()
    return order[len(order) // 2] if len(order) > 2 else None


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """Hold the model's lock and evaluation mode."""
    with model_lock(model), frozen(model):
        yield model


def borrowed_copy(model: nn.Module) -> nn.Module:
    """Copy a model for an attack: evaluation mode, every weight open to training.

    Raises
    ------
    InputError
        ``CL-INPUT-TYPE``: the model cannot be copied.
    """
    try:
        twin = model_copy(model)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied ({error}); attacks train a copy. Detach "
            "tensors that it keeps, or audit with relearn=False and bits=().",
            code="CL-INPUT-TYPE",
        ) from error
    for module in twin.modules():
        module.training = False
    for weight in twin.parameters():
        weight.requires_grad_(weight.is_floating_point())
        weight.grad = None
    return twin


def accuracy_on(model: nn.Module, samples: Samples, batch_size: int = 512) -> float:
    """Compute the accuracy of a model on samples, in its present mode."""
    device, right = device_of(model), 0
    with torch.no_grad():
        for x, y in samples.batches(batch_size):
            right += int((run_model(model, moved(x, device)).argmax(dim=1).cpu() == y).sum())
    return right / len(samples)


def device_of(model: nn.Module) -> torch.device:
    """Give the device of the model's first weight; the CPU for a model without any."""
    weight = next(model.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def moved(inputs: Any, device: torch.device) -> Any:
    """Bring a batch to a device."""
    if isinstance(inputs, Mapping):
        return {key: value.to(device) for key, value in inputs.items()}
    return inputs.to(device)
