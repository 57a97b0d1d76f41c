"""What a head is fitted to: classes, several labels at once, or numbers."""

from __future__ import annotations

__all__ = ["LOSSES", "Classes", "Labels", "Loss", "Values"]

from abc import ABC, abstractmethod

import torch

_SMALL = 0.1  # changes of logits below which three terms of the exponential are enough


class Loss(ABC):
    """A convex loss of logits Z (c, K) and targets T, with mean ∂loss/∂Z + T = P.

    Targets are columns (c,) int64 of classes, or numbers (c, K).
    """

    @abstractmethod
    def mean(self, Z: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Give what the logits predict, P (c, K)."""

    @abstractmethod
    def logits_of(self, P: torch.Tensor) -> torch.Tensor:
        """Give logits that predict P, in a new tensor; any where there are several."""

    @abstractmethod
    def value(self, Z: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give the loss of every row, (c,)."""

    def value_and_mean(self, Z: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give both; Z may be written over."""
        return self.value(Z, T), self.mean(Z)

    @abstractmethod
    def divergence(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give what the loss is above its tangent at P after logits move by U, (c,).

        Exact to a part in a million, where a difference of two losses would be rounding. U is
        written over.
        """

    @abstractmethod
    def curvature(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give the second derivative along U at P, (c,)."""

    @abstractmethod
    def start(self, mean: torch.Tensor) -> torch.Tensor:
        """Give the best intercept (K,) of zero weights, from the mean target (K,)."""

    def residual(self, P: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give P less the targets, in a new tensor."""
        return P - T.to(P)


class Classes(Loss):
    """Cross-entropy of a softmax."""

    def mean(self, Z: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Give probabilities that sum to one."""
        return torch.softmax(Z, dim=1) if out is None else torch.softmax(Z, dim=1, out=out)

    def logits_of(self, P: torch.Tensor) -> torch.Tensor:
        """Give log P."""
        return P.clamp(min=torch.finfo(P.dtype).tiny).log_()

    def value(self, Z: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give log-sum-exp less the logit of the class."""
        return Z.logsumexp(dim=1) - Z.gather(1, T[:, None])[:, 0]

    def value_and_mean(self, Z: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give both from one sum of exponentials."""
        total = Z.logsumexp(dim=1, keepdim=True)
        value = (total - Z.gather(1, T[:, None]))[:, 0]
        return value, Z.sub_(total).exp_()

    def divergence(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give log Σ_c p_c exp(u_c), u less its mean under p.

        Written with exp(u) - 1 - u, whose rounding averages out over the classes; expm1 is
        seven times as slow.
        """
        PU = P * U
        U -= PU.sum(1, keepdim=True)
        if float(U.abs().max()) < _SMALL:
            # ½ u² (1 + u / 3) is exp(u) - 1 - u to a part in a thousand.
            square = torch.mul(P, U, out=PU).mul_(U)
            half = 0.5 * square.sum(1, dtype=torch.float64)
            return half + (square.mul_(U)).sum(1, dtype=torch.float64) / 6
        return torch.log1p(torch.exp(U).sub_(1).sub_(U).mul_(P).sum(1)).double()

    def curvature(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give the variance of U under P."""
        mean = (P * U).sum(1, keepdim=True)
        return (P * (U - mean).square()).sum(1)

    def start(self, mean: torch.Tensor) -> torch.Tensor:
        """Give the log of the frequencies."""
        return mean.log()

    def residual(self, P: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give P less one at the class."""
        found = P.clone()
        return found.scatter_add_(1, T[:, None], torch.full_like(found[:, :1], -1.0))


class Labels(Loss):
    """Sum over labels of the cross-entropy of a sigmoid; targets in [0, 1]."""

    def mean(self, Z: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Give a probability for each label."""
        return torch.sigmoid(Z) if out is None else torch.sigmoid(Z, out=out)

    def logits_of(self, P: torch.Tensor) -> torch.Tensor:
        """Give log(P / (1 - P))."""
        return torch.logit(P, eps=torch.finfo(P.dtype).eps)

    def value(self, Z: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give Σ log(1 + exp(z)) - t z."""
        return (torch.nn.functional.softplus(Z) - T.to(Z) * Z).sum(1)

    def divergence(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give Σ log(1 + p (exp(u) - 1)) - p u."""
        if float(U.abs().max()) < _SMALL:
            variance = P * (1 - P) * U.square()
            return (0.5 * variance * (1 + U * (1 - 2 * P) / 3)).sum(1, dtype=torch.float64)
        return (torch.log1p(P * torch.expm1(U)) - P * U).sum(1, dtype=torch.float64)

    def curvature(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give Σ p (1 - p) u²."""
        return (P * (1 - P) * U.square()).sum(1)

    def start(self, mean: torch.Tensor) -> torch.Tensor:
        """Give the log odds of the shares."""
        return torch.logit(mean)


class Values(Loss):
    """Half the squared error, summed over outputs."""

    def mean(self, Z: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Give the logits themselves."""
        return Z.clone() if out is None else out.copy_(Z)

    def logits_of(self, P: torch.Tensor) -> torch.Tensor:
        """Give P."""
        return P.clone()

    def value(self, Z: torch.Tensor, T: torch.Tensor) -> torch.Tensor:
        """Give ½ |z - t|²."""
        return 0.5 * (Z - T.to(Z)).square().sum(1)

    def divergence(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give ½ |u|²."""
        return 0.5 * U.square_().sum(1, dtype=torch.float64)

    def curvature(self, P: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Give |u|²."""
        return U.square().sum(1)

    def start(self, mean: torch.Tensor) -> torch.Tensor:
        """Give the mean."""
        return mean


LOSSES: dict[str, Loss] = {"classes": Classes(), "labels": Labels(), "values": Values()}
"""By kind of target."""
