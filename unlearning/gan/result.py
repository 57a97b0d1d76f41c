"""What a method that makes a generator forget gives back."""

from __future__ import annotations

__all__ = ["GanResult"]

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unlearning.gan.generators import Generator
from unlearning.result import Outcome


@dataclass
class GanResult(Outcome):
    """A generator that was made to forget, and how.

    Attributes
    ----------
    generator : Generator
        The new one; its ``module`` is of the class of the user's. The user's own is
        untouched.
    history : list of dict
        Losses and, now and then, figures on held-out latents by the guide.
    stopped : str
        ``"done"``, ``"missed: ..."`` where the concept is not removed in 90 % of held-out
        latents or fewer than 97 % of the others are unchanged, by the guide,
        ``"max_steps"``, ``"max_seconds"``, ``"early: ..."``, ``"nan:
        rewound"`` or ``"collapse: rewound"``.
    seed : int
    seconds : float
        CPU time.
    details : dict
        Anchors, separations, shares, trained layers, and what else the method tells.
    warnings : list of str
        What the user of the run was told.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> from unlearning.gan import LatentGuard
    >>> guard = LatentGuard(load_encoder("embedded"), "red", n_survey=128, random_state=0)
    >>> result = guard.unlearn(load_embedded_gan())
    >>> result.stopped, result.seed
    ('done', 0)
    """

    generator: Generator
    history: list[dict[str, Any]]
    stopped: str
    seed: int
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        """The new module."""
        return self.generator.module
