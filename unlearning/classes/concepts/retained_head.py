"""What a classifier would say that never saw the class: a head on an earlier layer."""

from __future__ import annotations

__all__ = [
    "Readings",
    "choose_layer",
    "parameters_behind",
    "pool_layer",
    "read_layers",
    "retained_probabilities",
    "retained_targets",
]

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import SplitError, unknown_name
from conceptlab.models.outputs import layer_tensor
from unlearning.classes.job import Job
from unlearning.data import Inputs, Samples
from unlearning.heads import call_model, features_and_logits, frozen

DEPTH = 0.6
"""Share of the layers with weights that lie before the layer that is read."""
GRID = 4
"""Positions along each side that pooling leaves."""
MOST_FEATURES = 4096
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Readings:
    """One pass over samples.

    Attributes
    ----------
    features : torch.Tensor of shape (n, d)
        What enters the head.
    logits : torch.Tensor of shape (n, C)
        What the model answers.
    early : torch.Tensor of shape (n, e), or None
        Pooled activations of the earlier layer.
    """

    features: torch.Tensor
    logits: torch.Tensor
    early: torch.Tensor | None = None


def read_layers(job: Job, model: nn.Module, samples: Samples, layer: str | None = None) -> Readings:
    """Run `model` in evaluation mode and keep features, logits and a layer's activations.

    Parameters
    ----------
    job : Job
        The run, for device and head.
    model : torch.nn.Module
        Mostly ``job.original``.
    samples : Samples
        What to read.
    layer : str, optional
        The earlier layer.

    Returns
    -------
    Readings
        float32, on the CPU.
    """
    head = job.head.name
    kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []
    seen: list[torch.Tensor] = []
    mask: list[torch.Tensor | None] = [None]
    handle = None
    if layer is not None:
        handle = model.get_submodule(layer).register_forward_hook(
            lambda _m, _a, value: seen.append(pool_layer(layer_tensor(value, layer), mask[0]))
        )
    try:
        with frozen(model), torch.no_grad():
            for inputs, _ in samples.batches(max(job.batch_size, 256)):
                moved = job.to_device(inputs)
                mask[0] = _text_mask(moved)
                seen.clear()
                features, logits = features_and_logits(model, moved, head)
                early = seen[-1].float().cpu() if seen else None
                kept.append((features.float().cpu(), logits.float().cpu(), early))
    finally:
        if handle is not None:
            handle.remove()
    early_parts = [part[2] for part in kept if part[2] is not None]
    return Readings(
        torch.cat([part[0] for part in kept]),
        torch.cat([part[1] for part in kept]),
        torch.cat(early_parts) if early_parts else None,
    )


def choose_layer(model: nn.Module, inputs: Any, layer: str = "auto") -> str:
    """Find the layer that a head for retained classes reads.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    inputs : tensor or mapping of tensors
        A few inputs on the model's device.
    layer : str
        A name is only checked. "auto" takes the layer behind which lie about
        0.4 of the layers with weights, the end of a block before the end of a
        single layer; of texts, the end of the embeddings.

    Returns
    -------
    str
        Name in ``model.named_modules()``.

    Notes
    -----
    The last features of a classifier were trained to tell the forgotten class
    apart, and a head on them gives other answers than a model that never saw
    the class. Earlier features still hold what all classes share. In a classifier
    of texts any layer behind the embeddings may tell the class already, and what
    words alone say is nearest to what a model says that never saw it.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> choose_layer(net, torch.zeros(2, 4))
    '3'
    """
    modules = dict(model.named_modules())
    if layer != "auto":
        if layer not in modules or not layer:
            error = unknown_name("layer", layer, [n for n in modules if n], code="CL-SPLIT-LAYER")
            raise SplitError(str(error).rsplit(" [", 1)[0], code="CL-SPLIT-LAYER")
        return layer
    ended: list[tuple[str, int, int]] = []  # name, layers with weights so far, rank of its answer
    done = [0]
    n = len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)

    def note(name: str, module: nn.Module, value: Any) -> None:
        if any(True for _ in module.parameters(recurse=False)):
            done[0] += 1
        tensor = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(tensor, torch.Tensor) and tensor.ndim >= 2 and len(tensor) == n:
            ended.append((name, done[0], tensor.ndim))

    handles = [
        module.register_forward_hook(lambda m, _a, value, name=name: note(name, m, value))
        for name, module in modules.items()
        if name
    ]
    try:
        with frozen(model), torch.no_grad():
            call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    total = max(done[0], 1)
    if isinstance(inputs, Mapping) and (found := _embeddings(model, ended, total)):
        return found
    # The last layer is the head itself; what it answers is no earlier reading.
    ended = [item for item in ended if item[1] < total] or ended
    if any(rank > 2 for _, _, rank in ended):
        ended = [item for item in ended if item[2] > 2]
    if not ended:
        raise SplitError(
            f"No layer of {type(model).__name__} gives one tensor with a row for each input. Name "
            "one with layer=..., or use labels='soft'.",
            code="CL-SPLIT-LAYER",
        )

    def badness(item: tuple[int, tuple[str, int, int]]) -> tuple[float, int]:
        place, (name, before, _) = item
        block = any(True for _ in modules[name].children())
        # Of layers at the same depth (a convolution, its norm, its ReLU) the last one counts.
        return abs(before / total - DEPTH) + (0.0 if block else 0.2), -place

    return min(enumerate(ended), key=badness)[1][0]


def _embeddings(model: nn.Module, ended: list[tuple[str, int, int]], total: int) -> str | None:
    """Name the module that ends the embeddings of tokens, where there is one."""
    try:
        embed = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    inner = next((name for name, module in model.named_modules() if module is embed), None)
    # With the token's vector go its place and a norm, in a module around it.
    around = [
        (before, name)
        for name, before, rank in ended
        if rank == 3 and inner is not None and (name == inner or inner.startswith(f"{name}."))
    ]
    near = [item for item in around if item[1] == inner or item[0] <= 0.3 * total]
    return max(near)[1] if near else None


def parameters_behind(model: nn.Module, inputs: Any, layer: str, least: int = 0) -> list[str]:
    """List the modules with weights that run after a layer has run.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    inputs : tensor or mapping of tensors
        A few inputs on the model's device.
    layer : str
        Its name.
    least : int
        Where fewer layers with a matrix of weights run after it, go back before it until
        there are so many.

    Returns
    -------
    list of str
        Names of modules that own weights, in the order of ``named_modules()``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> parameters_behind(net, torch.zeros(2, 4), "1")
    ['2', '4']
    >>> parameters_behind(net, torch.zeros(2, 4), "3"), parameters_behind(
    ...     net, torch.zeros(2, 4), "3", least=2
    ... )
    (['4'], ['2', '4'])
    """
    order: list[str] = []  # in which modules ran, the last time that each did
    ended: list[int] = []  # how many had run when the layer's first call ended

    def start(name: str) -> None:
        order.append(name)

    def end(*_: Any) -> None:
        ended.append(len(order))

    owners = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    handles = [model.get_submodule(layer).register_forward_hook(end)]
    handles += [
        module.register_forward_pre_hook(lambda _m, _a, name=name: start(name))
        for name, module in owners.items()
    ]
    try:
        with frozen(model), torch.no_grad():
            call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    behind = set(order[ended[0] :]) if ended else set()
    matrices = {n for n, m in owners.items() if any(p.ndim > 1 for p in m.parameters(False))}
    for name in reversed(order[: ended[0]] if ended else []):
        if len(behind & matrices) >= least:
            break
        behind.add(name)
    return [name for name in owners if name in behind]


def pool_layer(activations: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Turn a layer's activations into one row for each sample.

    Parameters
    ----------
    activations : torch.Tensor of shape (n, c, h, w), (n, t, d) or (n, d)
        Maps are pooled to at most 4x4 positions (fewer where that makes more
        than 4096 features); of tokens the mean and the first are kept.
    mask : torch.Tensor of shape (n, t), optional
        1 for tokens that count.

    Returns
    -------
    torch.Tensor of shape (n, e)
    """
    if activations.ndim == 4:
        for grid in (GRID, 2, 1):
            size = (min(grid, activations.shape[2]), min(grid, activations.shape[3]))
            if activations.shape[1] * size[0] * size[1] <= MOST_FEATURES or grid == 1:
                return functional.adaptive_avg_pool2d(activations, size).flatten(1)
    if activations.ndim == 3:
        if mask is not None and mask.shape == activations.shape[:2]:
            weight = mask.to(activations)[..., None]
            mean = (activations * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        else:
            mean = activations.mean(dim=1)
        return torch.cat([mean, activations[:, 0]], dim=1)
    return activations.flatten(1)


def retained_probabilities(
    rows: torch.Tensor,
    y: torch.Tensor,
    queries: torch.Tensor,
    n_classes: int,
    *,
    C: float = 0.1,
    numpy: np.random.Generator | None = None,
) -> torch.Tensor:
    """Fit a softmax head to retained classes only, and ask it about other samples.

    Parameters
    ----------
    rows : torch.Tensor of shape (n, e)
        Pooled activations of retained samples.
    y : torch.Tensor of shape (n,)
        Their classes.
    queries : torch.Tensor of shape (m, e)
        Of the samples to forget.
    n_classes : int
        Number of logits.
    C : float
        Inverse of the ℓ2 penalty on standardised features.
    numpy : numpy.random.Generator, optional
        Draws 20 000 rows where there are more.

    Returns
    -------
    torch.Tensor of shape (m, n_classes), float32
        Rows sum to 1; classes that are not in `y` have 0.

    Examples
    --------
    >>> rows, y = torch.tensor([[0.0], [1.0], [0.1], [0.9]]), torch.tensor([0, 2, 0, 2])
    >>> t = retained_probabilities(rows, y, torch.tensor([[2.0]]), 3)
    >>> float(t[0, 1]), bool(t[0, 2] > t[0, 0])
    (0.0, True)
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(rows) > MOST_ROWS:
        drawn = (numpy or np.random.default_rng(0)).choice(len(rows), MOST_ROWS, replace=False)
        rows, y = rows[torch.from_numpy(drawn)], y[torch.from_numpy(drawn)]
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.ones(()))
    with warnings.catch_warnings():
        # Its answers settle long before its last digits do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        head = LogisticRegression(C=C, max_iter=100)
        head.fit(((rows - mean) / scale).numpy(), y.numpy())
    found = head.predict_proba(((queries - mean) / scale).numpy())
    classes = torch.from_numpy(np.asarray(head.classes_, dtype=np.int64))
    targets = torch.zeros(len(queries), n_classes)
    if len(classes) == 1:
        targets[:, classes[0]] = 1.0
    else:
        targets[:, classes] = torch.from_numpy(np.asarray(found, dtype=np.float32))
    return targets / targets.sum(dim=1, keepdim=True)


def retained_targets(job: Job, layer: str, retain: Readings, forget: Readings) -> torch.Tensor:
    """Give the retained head's answers to the samples to forget, (n_f, C)."""
    if retain.early is None or forget.early is None:
        raise SplitError(
            f"Layer {layer!r} did not run in the forward pass. Name one that does.",
            code="CL-SPLIT-RUNS",
        )
    return retained_probabilities(
        retain.early, job.retain.y, forget.early, job.n_classes, numpy=job.numpy
    )


def _text_mask(inputs: Inputs) -> torch.Tensor | None:
    return inputs.get("attention_mask") if isinstance(inputs, dict) else None
