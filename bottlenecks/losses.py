"""Losses of the concept layer: those of the paper as released, and a contrastive one that means it.

The released losses (Sparse-CBM, arXiv 2404.03323) act on the outputs a (B, M) of a linear map of
the concept logits. Measured on planted data, none does what its name says; see each. They are
kept for comparison by ``SparseCBM(mode="reference")``.
"""

from __future__ import annotations

__all__ = ["positives_loss", "reference_contrastive", "reference_gumbel", "reference_l1"]

import torch

from bottlenecks.gates import gumbel


def reference_l1(weight: torch.Tensor, lam: float = 1e-3) -> torch.Tensor:
    """Penalise the weights of the concept layer: ``lam sum |W| / M``.

    Parameters
    ----------
    weight : Tensor of shape (M, M)
    lam : float

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    A penalty on weights, not on activations; by the gradient steps of Adam, without a proximal
    step, no weight and no activation becomes exactly zero.

    Examples
    --------
    >>> float(reference_l1(torch.eye(4), 1.0))
    1.0
    """
    return lam * weight.abs().sum() / len(weight)


def reference_contrastive(a: torch.Tensor) -> torch.Tensor:
    """Contrast row i of the batch with column i: ``-1/2 (mean log p0_ii + mean log p1_ii)``.

    p0 is the softmax over the batch, p1 over the concepts, i from 1 to min(B, M).

    Parameters
    ----------
    a : Tensor of shape (B, M)

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The rows are a shuffled batch and the columns a list of concepts, so that position i of the
    one has nothing to do with position i of the other: the value changes when concepts are
    listed in another order, and concepts beyond the batch size never have a positive.

    Examples
    --------
    >>> float(reference_contrastive(20 * torch.eye(4))) < 1e-6
    True
    """
    over_rows = torch.log_softmax(a, dim=0).diagonal().mean()
    over_concepts = torch.log_softmax(a, dim=1).diagonal().mean()
    return -(over_rows + over_concepts) / 2


def reference_gumbel(
    a: torch.Tensor,
    temperature: float,
    generator: torch.Generator,
    *,
    hard: bool = False,
) -> torch.Tensor:
    """Take the mean of -log over all entries of two Gumbel-Softmax samples.

    Parameters
    ----------
    a : Tensor of shape (B, M)
    temperature : float
    generator : torch.Generator
    hard : bool
        One-hot samples, of which the logarithm is -inf: the loss is +inf.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    It has no positives: the mean of -log p over *all* entries is least where all activations are
    equal, so it flattens them, and makes none of them zero.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> float(reference_gumbel(torch.zeros(4, 3), 1.0, generator)) > 1
    True
    """
    terms = []
    for dim in (0, 1):
        log_p = torch.log_softmax((a + gumbel(a.shape, generator, a)) / temperature, dim=dim)
        if hard:
            one_hot = torch.zeros_like(a).scatter_(dim, log_p.argmax(dim=dim, keepdim=True), 1.0)
            log_p = (one_hot + log_p.exp() - log_p.exp().detach()).log()
        terms.append(-log_p.mean())
    return (terms[0] + terms[1]) / 2


def positives_loss(
    logits: torch.Tensor,
    positives: torch.Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Contrast images and concepts by which concepts their classes have.

    With P (B, M) the table row of each image's class,
    ``1/2 [ mean_i -log sum_{j in P_i} p1_ij + mean_j -log sum_{i: j in P_i} p0_ij ]``, p1 the
    softmax over concepts and p0 over images, on Gumbel-Softmax samples where `generator` is
    given. Rows without positives, and columns without, are left out.

    Parameters
    ----------
    logits : Tensor of shape (B, M)
    positives : Tensor of shape (B, M), bool
    temperature : float
    generator : torch.Generator, optional
        Adds Gumbel noise.

    Returns
    -------
    Tensor, a scalar
        Finite for finite logits at any temperature: the logarithm is taken of the relaxed
        sample, never of a one-hot one.

    Notes
    -----
    The supervised contrastive loss with all positives inside the logarithm (L_in of Khosla et
    al., Supervised Contrastive Learning, NeurIPS 2020, equation 3), in both directions. It does
    not change when concepts, with their columns of the table, are listed in another order.

    Examples
    --------
    >>> table = torch.tensor([[True, False], [False, True]])
    >>> right = positives_loss(torch.tensor([[5.0, 0.0], [0.0, 5.0]]), table)
    >>> wrong = positives_loss(torch.tensor([[0.0, 5.0], [5.0, 0.0]]), table)
    >>> bool(right < 0.01), bool(wrong > 4.9)
    (True, True)
    """
    terms = []
    for dim in (0, 1):
        noisy = logits if generator is None else logits + gumbel(logits.shape, generator, logits)
        log_p = torch.log_softmax(noisy / temperature, dim=dim)
        counted = positives.any(dim=dim)
        masked = log_p.masked_fill(~positives, -torch.inf)
        terms.append(-torch.logsumexp(masked, dim=dim)[counted].sum() / counted.sum().clamp_min(1))
    return (terms[0] + terms[1]) / 2
