"""Do concepts carry a model's decision: are they enough for its answers, and are they needed?

Two questions of one factorisation A = U W + R that an index of importance answers neither of:

- *sufficient*: in how many images h(U W), the concepts alone, gives the model's answer;
- *necessary*: how far the probability of that answer falls when the concepts are taken out
  and the rest R stays, from f to h(R).

A ranking of concepts is about the model only where both hold: where h(U W) is another
function, the ranking is of that one; where h(R) decides as f does, nothing hangs on them.
"""

from __future__ import annotations

__all__ = ["Decision", "decision"]

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.arrays import ArrayLike, as_numpy, as_tensor
from conceptlab.batching import AutoInt
from conceptlab.errors import InputError
from conceptlab.importance.evaluate import Evaluator, check_coefficients
from conceptlab.importance.intervals import mean_interval, wilson
from conceptlab.importance.remainder import rest_of

SUFFICIENT = 0.8  # share of the images in which the concepts alone must give the answer
NECESSARY = 0.5  # share of its probability that the answer must lose without them


@dataclass(frozen=True)
class Decision:
    """How far concepts carry a model's decision on some images.

    Attributes
    ----------
    sufficient : float
        Share of the images in which the concepts alone, h(U W), give the model's answer.
    sufficient_low, sufficient_high : float
        Wilson's 95 % interval of it.
    commonest : float
        What always giving the model's commonest answer reaches; 1 where it has one answer
        only, so that there is no base rate.
    mean_activation : float
        What h of the mean activation reaches.
    probability, probability_rest : float
        Mean probability of the model's answer by f, and by the rest alone, h(A - U W).
    necessary : float
        The fall from the one to the other.
    necessary_low, necessary_high : float
        95 % interval of the fall, over images.
    rest_agrees : float
        Share of the images in which the rest alone still gives the answer.
    error : float
        Frobenius norm of what is left, A - U W (and an offset), over that of A.
    n_images, n_answers : int
        Number of images, and of different answers of the model on them.

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [2.0, 1.0]])
    >>> found = Decision.of(logits, logits, -logits, logits[:1], error=0.1)
    >>> found.sufficient, found.commonest, found.rest_agrees, found.carries
    (1.0, 0.75, 0.0, True)
    """

    sufficient: float
    sufficient_low: float
    sufficient_high: float
    commonest: float
    mean_activation: float
    probability: float
    probability_rest: float
    necessary: float
    necessary_low: float
    necessary_high: float
    rest_agrees: float
    error: float
    n_images: int
    n_answers: int

    @classmethod
    def of(
        cls, logits: ArrayLike, by_concepts: Any, by_rest: Any, by_mean: Any, error: float
    ) -> Decision:
        """Compare outputs; where there is one only, its sign is the answer.

        Parameters
        ----------
        logits : array-like of shape (n, n_outputs)
            The model's own, f.
        by_concepts, by_rest : array-like of shape (n, n_outputs)
            h(U W) and h(A - U W).
        by_mean : array-like of shape (1, n_outputs), or (n, n_outputs)
            h of the mean activation, for each image where more than it counts.
        error : float
            Passed on.

        Returns
        -------
        Decision
        """
        f, concepts, rest, mean = (
            _two(as_tensor(part).detach().to("cpu", torch.float64))
            for part in (logits, by_concepts, by_rest, by_mean)
        )
        answer, n = f.argmax(1), len(f)
        counts = answer.bincount()

        def agrees(outputs: torch.Tensor) -> float:
            return float((outputs.argmax(1) == answer).double().mean())

        def probability(outputs: torch.Tensor) -> np.ndarray:
            return as_numpy(outputs.softmax(1).gather(1, answer[:, None])[:, 0])

        before, after = probability(f), probability(rest)
        fall = (before - after)[:, None]
        generator = np.random.default_rng([n, 2])
        low, high = mean_interval(fall, 0.95, 400, generator, span=(-1.0, 1.0))[0]
        sufficient = agrees(concepts)
        interval = wilson(sufficient, n)
        return cls(
            sufficient=sufficient,
            sufficient_low=interval[0],
            sufficient_high=interval[1],
            commonest=float(counts.max()) / n,
            mean_activation=agrees(mean.expand(n, -1)),
            probability=float(before.mean()),
            probability_rest=float(after.mean()),
            necessary=float(fall.mean()),
            necessary_low=float(low),
            necessary_high=float(high),
            rest_agrees=agrees(rest),
            error=float(error),
            n_images=n,
            n_answers=int((counts > 0).sum()),
        )

    @property
    def is_sufficient(self) -> bool:
        """Whether the concepts alone give the answer in four of five images."""
        return self.sufficient >= SUFFICIENT

    @property
    def is_necessary(self) -> bool:
        """Whether the answer loses half of its probability without the concepts."""
        return self.necessary >= NECESSARY * self.probability

    @property
    def carries(self) -> bool:
        """Whether both hold, so that a ranking of the concepts is about the model."""
        return self.is_sufficient and self.is_necessary

    def figures(self) -> str:
        """Say both figures in one line, each beside its baseline.

        Examples
        --------
        >>> logits = np.array([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [2.0, 1.0]])
        >>> print(Decision.of(logits, logits, -logits, logits[:1], error=0.1).figures())
        Sufficient: 100% (51 to 100%) of 4 images get the model's answer from the concepts alone \
(always the commonest answer: 75%; the mean activation: 75%). Necessary: without the concepts \
its probability falls from 0.86 to 0.14, and 0% of the images keep it.
        """
        commonest = f"always the commonest answer: {self.commonest:.0%}"
        if self.n_answers == 1:
            commonest = "the model has one answer for all of them, so there is no base rate"
        way = "falls" if self.necessary >= 0 else "rises"
        return (
            f"Sufficient: {self.sufficient:.0%} ({100 * self.sufficient_low:.0f} to "
            f"{self.sufficient_high:.0%}) of {self.n_images} images get the model's answer from "
            f"the concepts alone ({commonest}; the mean activation: {self.mean_activation:.0%}). "
            f"Necessary: without the concepts its probability {way} from {self.probability:.2f} to "
            f"{self.probability_rest:.2f}, and {self.rest_agrees:.0%} of the images keep it."
        )

    def short(self) -> str:
        """Say both figures in a few words."""
        return (
            f"sufficient {self.sufficient:.0%} (commonest answer {self.commonest:.0%}), "
            f"necessary {self.probability:.2f} to {self.probability_rest:.2f}"
        )

    def warning(self) -> str:
        """Say in words what is below its bar; empty where both figures are above."""
        if self.carries:
            return ""
        if self.is_sufficient:
            return (
                f"The answer does not hang on these concepts: without them {self.rest_agrees:.0%} "
                "of the images keep it, so no ranking of them tells why the model answers so."
            )
        others = "" if self.is_necessary else f", and without them {self.rest_agrees:.0%} keep it"
        return (
            f"These concepts are not the model: alone they give its answer in "
            f"{self.sufficient:.0%} of the images{others}. The ranking is of another function; "
            "do not trust it."
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as JSON values."""
        return {**asdict(self), "carries": self.carries}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Decision:
        """Build from what :meth:`to_dict` gave.

        Parameters
        ----------
        data : dict
            The figures.

        Returns
        -------
        Decision
        """
        return cls(**{name: value for name, value in data.items() if name != "carries"})


def decision(
    fn: Any, U: ArrayLike, activations: ArrayLike, *, batch_size: AutoInt = "auto"
) -> Decision:
    """Measure how far concepts carry the decision.

    Parameters
    ----------
    fn : HeadOnCoefficients
        h on coefficients.
    U : array-like of shape (n, k) or (n, *positions, k)
        Coefficients.
    activations : array-like of shape (n, *positions, p)
        What they code, channels last.
    batch_size : int or "auto"
        Rows of coefficients in one call of `fn`.

    Returns
    -------
    Decision

    Raises
    ------
    InputError
        Arrays that do not fit, or a function that does not know its bank.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab.importance import HeadOnCoefficients
    >>> from conceptlab.models import SplitModel
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    ...                       nn.Flatten(), nn.Linear(4, 2))
    >>> split = SplitModel(model, at="1")
    >>> A = split.to_positions(split.g(torch.rand(5, 3, 8, 8)))
    >>> decision(HeadOnCoefficients(split, torch.eye(4)), A, A).sufficient
    1.0
    """
    U = check_coefficients(U)
    rest = rest_of(fn, U, activations, "hold")
    if rest is None:  # never: it is held
        raise InputError("No rest.", code="CL-INPUT-OPTION")
    evaluate = Evaluator(fn, batch_size)
    A = as_tensor(activations).detach().to(rest)
    nothing = torch.zeros_like(U)
    offset = fn.decode(nothing[:1])
    return Decision.of(
        evaluate(U, rest),
        evaluate(U),
        evaluate(nothing, rest),
        evaluate(nothing[:1], A.mean(0, keepdim=True)),
        error=float((rest - offset).norm() / A.norm().clamp_min(1e-30)),
    )


def _two(outputs: torch.Tensor) -> torch.Tensor:
    """Give a single output z the two columns (0, z)."""
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    return torch.cat([torch.zeros_like(outputs), outputs], 1) if outputs.shape[1] == 1 else outputs
