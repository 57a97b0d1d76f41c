"""Recipes of two papers, written from the papers as plain loops: what ours are timed beside.

They know one kind of data, a list of batches, and check nothing.
"""

from __future__ import annotations

__all__ = ["scrub_recipe", "ssd_recipe"]

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]


def ssd_recipe(
    model: nn.Module, forget: Batches, retain: Batches, *, alpha: float = 10.0, lam: float = 1.0
) -> nn.Module:
    """Dampen the weights that matter more for the forget samples than for all.

    Importance is the mean over batches of squared gradients of the loss, of the forget samples
    and of all training samples. A weight whose first exceeds `alpha` times the second is
    multiplied by `lam` times their inverse ratio, at most 1.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    forget, retain : sequence of (inputs, labels)
        Batches.
    alpha, lam : float
        As in the paper.

    Returns
    -------
    torch.nn.Module

    References
    ----------
    Foster et al., "Fast machine unlearning without retraining through selective synaptic
    dampening", AAAI 2024, equations 4 to 6.

    Examples
    --------
    >>> X, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> net = nn.Linear(4, 2)
    >>> small = ssd_recipe(net, [(X[:1], y[:1])], [(X[1:], y[1:])], alpha=1.0)
    >>> bool((small.weight.abs() <= net.weight.abs()).all())
    True
    """
    twin = copy.deepcopy(model).eval()

    def importance(batches: Batches) -> list[torch.Tensor]:
        sums = [torch.zeros_like(w) for w in twin.parameters()]
        for x, y in batches:
            twin.zero_grad()
            cross_entropy(twin(x), y).backward()
            for total, w in zip(sums, twin.parameters(), strict=True):
                if w.grad is not None:
                    total += w.grad**2 / len(batches)
        return sums

    own, whole = importance(forget), importance([*retain, *forget])
    twin.zero_grad()
    with torch.no_grad():
        for w, f, d in zip(twin.parameters(), own, whole, strict=True):
            chosen = f > alpha * d
            w[chosen] *= (lam * d / f.clamp_min(1e-30)).clamp(max=1.0)[chosen]
    return twin


def scrub_recipe(
    model: nn.Module,
    forget: Batches,
    retain: Batches,
    *,
    epochs: int = 5,
    max_epochs: int = 2,
    lr: float = 5e-4,
    alpha: float = 0.5,
    gamma: float = 1.0,
) -> nn.Module:
    """Move a student away from its teacher on the forget samples and keep it near on the rest.

    For the first `max_epochs` epochs a pass over the forget samples that raises the divergence
    from the teacher, in every epoch a pass over the rest that lowers `alpha` times the divergence
    plus `gamma` times the loss.

    Parameters
    ----------
    model : torch.nn.Module
        The teacher; it is not changed.
    forget, retain : sequence of (inputs, labels)
        Batches.
    epochs, max_epochs, lr, alpha, gamma : number
        As in the paper.

    Returns
    -------
    torch.nn.Module

    References
    ----------
    Kurmanji et al., "Towards unbounded machine unlearning", NeurIPS 2023, algorithm 1.

    Examples
    --------
    >>> X, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> net = nn.Linear(4, 2)
    >>> student = scrub_recipe(net, [(X[:1], y[:1])], [(X[1:], y[1:])], epochs=1)
    >>> torch.equal(student.weight, net.weight)
    False
    """
    teacher, student = copy.deepcopy(model).eval(), copy.deepcopy(model)
    optimizer = torch.optim.Adam(student.parameters(), lr)

    def apart(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = softmax(teacher(x), dim=1)
        return kl_div(log_softmax(logits, dim=1), target, reduction="batchmean")

    student.train()
    for epoch in range(epochs):
        for x, _ in forget if epoch < max_epochs else ():
            optimizer.zero_grad()
            (-apart(x, student(x))).backward()
            optimizer.step()
        for x, y in retain:
            optimizer.zero_grad()
            logits = student(x)
            (alpha * apart(x, logits) + gamma * cross_entropy(logits, y)).backward()
            optimizer.step()
    return student.eval()
