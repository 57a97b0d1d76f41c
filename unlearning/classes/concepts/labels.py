"""What a sample of the forgotten class is taught instead: rows of probabilities."""

from __future__ import annotations

__all__ = [
    "DONOR_RULES",
    "LABELS",
    "donor_class",
    "hard_targets",
    "most_confused",
    "random_targets",
    "soft_probabilities",
    "targeted_per_sample",
]

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from conceptlab.errors import InputError, unknown_name

LABELS = ("retained_head", "soft", "targeted", "targeted_per_sample", "random", "keep")
DONOR_RULES = ("confusion", "shared")


def soft_probabilities(
    logits: torch.Tensor, retained: Sequence[int], temperature: float = 1.0
) -> torch.Tensor:
    """Give what the model says with the forgotten classes left out.

    Parameters
    ----------
    logits : torch.Tensor of shape (n, C)
        Of the original model.
    retained : sequence of int
        The classes that are kept.
    temperature : float
        Divides the logits, above 0.

    Returns
    -------
    torch.Tensor of shape (n, C)
        ``t_j = f_j / (1 - sum of f over forgotten classes)`` for retained j;
        rows sum to 1, and every other class has 0.

    Examples
    --------
    >>> soft_probabilities(torch.log(torch.tensor([[0.5, 0.3, 0.2]])), [1, 2])
    tensor([[0.0000, 0.6000, 0.4000]])
    """
    if not len(retained):
        raise InputError("No class is retained.", code="CL-INPUT-FEW")
    left_out = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    left_out[torch.as_tensor(list(retained), device=logits.device)] = False
    return (logits / temperature).masked_fill(left_out, -torch.inf).softmax(dim=1)


def hard_targets(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Turn class indices (n,) into one-hot rows (n, C), float32."""
    return functional.one_hot(labels.long(), n_classes).float()


def random_targets(
    n: int, n_classes: int, retained: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Draw one retained class for each sample, never a forgotten one.

    Parameters
    ----------
    n : int
        Number of samples.
    n_classes : int
        Number of logits C.
    retained : sequence of int
        The classes to draw from, all with the same probability.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    torch.Tensor of shape (n, C), float32

    Notes
    -----
    Released code draws among all classes, so that some samples keep the label
    that is to be forgotten.

    Examples
    --------
    >>> random_targets(4, 3, [0, 2], torch.Generator().manual_seed(0))[:, 1].sum()
    tensor(0.)
    """
    classes = torch.as_tensor(list(retained))
    drawn = classes[torch.randint(len(classes), (n,), generator=generator)]
    return hard_targets(drawn, n_classes)


def targeted_per_sample(logits: torch.Tensor, retained: Sequence[int]) -> torch.Tensor:
    """Label each sample with its strongest retained class, one-hot (n, C)."""
    return hard_targets(soft_probabilities(logits, retained).argmax(dim=1), logits.shape[1])


def most_confused(probabilities: torch.Tensor) -> int:
    """Give the class with the largest mean probability, for when concepts cannot choose."""
    return int(probabilities.mean(dim=0).argmax())


def donor_class(
    weights: np.ndarray,
    forgotten: int,
    retained: Sequence[int],
    *,
    rule: str = "confusion",
    top: int = 5,
) -> tuple[int, int, str]:
    """Choose the class that shares a concept with the forgotten one.

    Parameters
    ----------
    weights : array of shape (C, k)
        How much each concept speaks for each class: weights of the bottleneck,
        or attributions of each class on its own logit.
    forgotten : int
        The class to forget.
    retained : sequence of int
        Classes that may be chosen.
    rule : {"confusion", "shared"}
        - ``"confusion"``: go through the `top` concepts of the forgotten class,
          the strongest first; the first one that is another class's own
          strongest names the donor, the heaviest where it is of several. Where
          there is none, ``"shared"``.
        - ``"shared"``: the retained class with the largest weight of the
          forgotten class's strongest concept.
    top : int
        How many concepts to go through.

    Returns
    -------
    donor : int
        The class.
    concept : int
        The concept that named it.
    rule : str
        The rule that decided.

    References
    ----------
    Chang et al., "Class Machine Unlearning for Complex Data via Concepts
    Inference and Data Poisoning", 2024 (arXiv 2405.15662), and its released
    code; rules as found there.

    Examples
    --------
    >>> weights = np.array([[3.0, 2.0, 0.0], [1.0, 5.0, 0.0], [2.0, 0.0, 9.0]])
    >>> donor_class(weights, 0, [1, 2]), donor_class(weights, 0, [1, 2], rule="shared")
    ((1, 1, 'confusion'), (2, 0, 'shared'))
    """
    if rule not in DONOR_RULES:
        raise unknown_name("donor rule", rule, DONOR_RULES)
    others = [int(j) for j in retained if j != forgotten]
    if not others:
        raise InputError("There is no other class to choose a donor from.", code="CL-INPUT-FEW")
    order = np.argsort(-weights[forgotten], kind="stable")
    if rule == "confusion":
        strongest = {j: int(np.argmax(weights[j])) for j in others}
        for concept in order[:top]:
            owners = [j for j in others if strongest[j] == concept]
            if weights[forgotten, concept] > 0 and owners:
                return max(owners, key=lambda j: weights[j, concept]), int(concept), "confusion"
    concept = int(order[0])
    return max(others, key=lambda j: float(weights[j, concept])), concept, "shared"
