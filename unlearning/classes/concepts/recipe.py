"""How ConceptPoisoning trains, as values."""

from __future__ import annotations

__all__ = ["Recipe"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Options of the training that follows poisoning and relabelling.

    Attributes
    ----------
    beta : float
        Weight of the feature pull; 0 without.
    distil : float
        Weight of the divergence from the original on retained data.
    forget_weight : float or "joint"
        Weight of the loss on forgotten samples; "joint" mixes all in one batch.
    epochs : int
        Passes over the retained data.
    min_steps : int
        Epochs are raised until they make so many steps.
    lr : float
        Peak learning rate.
    optimizer : {"adam", "sgd"}
    schedule : {"cosine", "constant"}
    stop : bool
        Whether held-out samples are looked at after each epoch.
    holdout : float
        Share of the data held out for that.
    batch_size : int
        Retained samples in a batch.
    """

    beta: float
    distil: float
    forget_weight: float | str
    epochs: int
    min_steps: int
    lr: float
    optimizer: str
    schedule: str
    stop: bool
    holdout: float
    batch_size: int
