"""What an audit is told: how models are run, attacked, and on how many samples."""

from __future__ import annotations

__all__ = ["Attacks", "Conditions", "Sizes", "Training"]

from collections.abc import Sequence
from dataclasses import dataclass

from conceptlab.errors import InputError
from conceptlab.progress import Progress


@dataclass(frozen=True)
class Sizes:
    """How many samples costly measures use at most.

    Attributes
    ----------
    attack : int
        Members, and as many non-members, of a membership attack.
    probe : int
        Training samples of the class probe.

    Examples
    --------
    >>> from unlearning.audit import Sizes
    >>> Sizes(attack=100).probe
    2000
    """

    attack: int = 300
    probe: int = 2000


@dataclass(frozen=True)
class Conditions:
    """What is the same for all models of an audit.

    Attributes
    ----------
    seed : int
        Of every draw.
    head : str or None
        Name of the last linear layer, where it is not found.
    batch_size : int
        Samples in a pass.
    sizes : Sizes
    progress : optional
        See :data:`conceptlab.progress.Progress`.
    """

    seed: int
    head: str | None = None
    batch_size: int = 256
    sizes: Sizes = Sizes()
    progress: Progress = None


@dataclass(frozen=True)
class Training:
    """How the attacker trains: SGD with momentum, cross-entropy, norm layers frozen.

    Gradients are clipped: the loss of a class that was pushed far down is so large that plain
    steps would ruin the model, and a margin alone would make relearning look hard.

    Attributes
    ----------
    lr : float
        Learning rate.
    momentum : float
        Momentum of SGD.
    batch_size : int
        Samples in a step.
    forget_share : float
        Share of each mixed batch that comes from the forget samples.
    clip : float or None
        Largest norm of the gradient.

    Examples
    --------
    >>> from unlearning.audit import Training
    >>> Training(lr=0.05).momentum
    0.9
    """

    lr: float = 0.01
    momentum: float = 0.9
    batch_size: int = 64
    forget_share: float = 0.25
    clip: float | None = 1.0


@dataclass(frozen=True)
class Attacks:
    """Which attacks are tried, and how hard.

    Attributes
    ----------
    relearn, recovery : bool
        Teach copies the class again; train copies on retained samples only.
    bits : sequence of int
        Widths at which weights are tried, out of 8 and 4.
    alpha : float
        A class counts as learned again at (1 - alpha) times the original's forget accuracy.
    max_steps : int
        Where relearning gives up.
    how : Training

    Raises
    ------
    InputError
        ``CL-INPUT-RANGE``, ``CL-INPUT-OPTION``: alpha or bits that do not exist.
    """

    relearn: bool = True
    recovery: bool = True
    bits: Sequence[int] = (8, 4)
    alpha: float = 0.1
    max_steps: int = 200
    how: Training = Training()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise InputError(f"alpha must be in [0, 1), got {self.alpha}.", code="CL-INPUT-RANGE")
        unknown = [b for b in self.bits if b not in (8, 4)]
        if unknown:
            raise InputError(f"bits may hold 8 and 4, got {unknown}.", code="CL-INPUT-OPTION")
