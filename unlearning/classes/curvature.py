"""Diagonals of curvature: squared gradients of batches, and the Fisher information."""

from __future__ import annotations

__all__ = ["fisher_diagonal", "squared_gradients"]

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from conceptlab.errors import InputError, unknown_name
from unlearning.heads import run_model

Diagonal = dict[str, torch.Tensor]
_ENTRIES = 2**24  # of one chunk of per-sample Jacobians: 64 MiB in float32


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the parameters that take gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def squared_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any], torch.Tensor],
) -> Diagonal:
    """Average the squared gradient of a loss over batches.

    Parameters
    ----------
    model : Module
        In the mode in which it is given; its gradients are left alone.
    batches : iterable
        What `loss` takes, one batch at a time.
    loss : callable
        Batch to a scalar, usually the mean cross-entropy of that batch.

    Returns
    -------
    dict of str to Tensor
        For every parameter that takes gradients, the mean over the batches of
        the squared gradient; zero where the loss does not reach.

    Raises
    ------
    InputError
        No batch at all (``CL-INPUT-EMPTY``).

    Notes
    -----
    With batches of one sample this is the empirical Fisher information. With
    larger ones it is smaller, by how much gradients of a batch cancel out.
    """
    parameters = trained(model)
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for batch in batches:
        gradients = torch.autograd.grad(loss(batch), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.detach().square()
        count += 1
    if not count:
        raise InputError("There is no batch to take gradients of.", code="CL-INPUT-EMPTY")
    return {name: value / count for name, value in total.items()}


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    labels: str = "exact",
    generator: torch.Generator | None = None,
) -> Diagonal:
    """Compute the diagonal of the Fisher information under the model's own labels.

    ``F_j = mean_i sum_c p_c(x_i) (d log p_c(x_i) / d theta_j)²``.

    Parameters
    ----------
    model : Module
        In eval mode, so that samples do not meet in batch norm.
    batches : iterable of Tensor or dict of Tensor
        Inputs; the first axis counts samples.
    labels : {"exact", "sampled"}
        ``"exact"`` sums over all labels, sample by sample (vectorised by
        ``torch.func.vmap`` where the model allows it, else one by one).
        ``"sampled"`` draws one label a sample from the model's own
        probabilities and squares the gradient of the sum over the batch: scores
        of different samples are independent with mean zero, so that the
        expectation is the same, at the price of one backward pass a batch.
    generator : torch.Generator, optional
        On the CPU, for ``"sampled"``.

    Returns
    -------
    dict of str to Tensor
        One entry for every parameter that takes gradients.

    Raises
    ------
    InputError
        Unknown `labels`, or no sample.

    References
    ----------
    Amari, Natural gradient works efficiently in learning, 1998; Golatkar et al.,
    Eternal sunshine of the spotless net, CVPR 2020, section 4.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> fisher_diagonal(net, [torch.tensor([[1.0, 2.0]])])["weight"]  # p (1 - p) x²
    tensor([[0.2500, 1.0000],
            [0.2500, 1.0000]])
    """
    if labels not in {"exact", "sampled"}:
        raise unknown_name("kind of labels", labels, ("exact", "sampled"))
    parameters = trained(model)
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for inputs in batches:
        n = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
        if labels == "sampled":
            sums = _sampled(model, parameters, inputs, generator)
        else:
            sums = _exact(model, parameters, inputs, n)
        for name, value in sums.items():
            total[name] += value
        count += n
    if not count:
        raise InputError("There is no sample to take gradients of.", code="CL-INPUT-EMPTY")
    return {name: value / count for name, value in total.items()}


def _sampled(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    inputs: Any,
    generator: torch.Generator | None,
) -> Diagonal:
    log_p = run_model(model, inputs).log_softmax(dim=1)
    drawn = torch.multinomial(log_p.detach().exp().cpu().double(), 1, generator=generator)
    total = log_p.gather(1, drawn.to(log_p.device)).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {
        name: gradient.square()
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None
    }


def _exact(model: nn.Module, parameters: dict[str, nn.Parameter], inputs: Any, n: int) -> Diagonal:
    """Sum over samples and labels of p_c times the squared score."""
    named: list[tuple[str, torch.Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    fixed = {k: v.detach() for k, v in named if k not in parameters}
    theta = {k: p.detach() for k, p in parameters.items()}
    wrapper = _Logits(model)

    def log_p(theta: dict[str, torch.Tensor], sample: Any) -> torch.Tensor:
        row = {k: v[None] for k, v in sample.items()} if isinstance(sample, dict) else sample[None]
        weights = {f"model.{k}": v for k, v in {**theta, **fixed}.items()}
        return functional_call(wrapper, weights, (row,))[0].log_softmax(dim=0)

    def expected(theta: dict[str, torch.Tensor], sample: Any) -> Diagonal:
        p = log_p(theta, sample).exp()
        scores = jacrev(log_p)(theta, sample)
        return {k: torch.tensordot(p, score.square(), dims=1) for k, score in scores.items()}

    with torch.no_grad():
        n_classes = run_model(model, _rows(inputs, slice(0, 1))).shape[1]
    size = sum(p.numel() for p in parameters.values())
    chunk = max(1, min(16, _ENTRIES // max(1, n_classes * size)))
    total: Diagonal = {name: torch.zeros_like(p) for name, p in theta.items()}
    for start in range(0, n, chunk):
        rows = _rows(inputs, slice(start, min(start + chunk, n)))
        try:
            found = vmap(expected, in_dims=(None, 0))(theta, rows)
            found = {k: v.sum(dim=0) for k, v in found.items()}
        except RuntimeError:  # control flow that depends on the data, or an operator without vmap
            found = _one_by_one(model, parameters, rows, min(chunk, n - start))
        for k, v in found.items():
            total[k] += v
    return total


def _one_by_one(
    model: nn.Module, parameters: dict[str, nn.Parameter], inputs: Any, n: int
) -> Diagonal:
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(n):
        log_p = run_model(model, _rows(inputs, slice(i, i + 1)))[0].log_softmax(dim=0)
        for c, value in enumerate(log_p):
            last = c == len(log_p) - 1
            scores = torch.autograd.grad(
                value, list(parameters.values()), retain_graph=not last, allow_unused=True
            )
            for name, score in zip(parameters, scores, strict=True):
                if score is not None:
                    total[name] += value.detach().exp() * score.square()
    return total


def _rows(inputs: Any, index: Any) -> Any:
    return {k: v[index] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[index]


class _Logits(nn.Module):
    """Let `functional_call` reach a model that takes a dict or returns more than logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> torch.Tensor:
        """Give the logits."""
        return run_model(self.model, inputs)
