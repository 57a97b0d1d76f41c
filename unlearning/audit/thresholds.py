"""Where the rules of the verdict draw their lines."""

from __future__ import annotations

__all__ = ["Thresholds"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Where the rules of :func:`unlearning.audit.judge` draw their lines.

    Attributes
    ----------
    known : float
        Forget accuracy of the original below which there is nothing to forget.
    forget : float
        Forget accuracy above the reference that is still "forgotten".
    damage : float
        Loss of test accuracy.
    unchanged : float
        R² of a linear map to the original's features from which, without a retrained model,
        they count as the same.
    kept : float
        Share of what that map leaves unexplained in a retrained model, below which features
        count as the original's.
    answers : float
        Share of a retrained model's JS to the logit mask below which answers count as masked.
    probe : float
        Excess of the probe's recall.
    concept : float
        Excess of the AUC of the class's own concept.
    relearn : float
        AIN below which relearning is told to be quick; it decides nothing.
    quantised, recovered : float
        Forget accuracy that may come back.
    js : float
        JS above the noise floor; with a single retrained model twice that plus 0.1, as the
        floor is not known.
    donor : float
        Excess of the mean donor probability.
    membership : float
        Distance of the confidence attack.
    attack : float
        Accuracy below which a membership attack says nothing.
    fidelity : float
        R² of the concept surrogate below which attributions are not spoken of.
    significance : float
        Standard errors that a difference of shares must exceed.

    Examples
    --------
    >>> from unlearning.audit import Thresholds
    >>> Thresholds(forget=0.02).forget
    0.02
    """

    known: float = 0.2
    forget: float = 0.05
    damage: float = 0.05
    unchanged: float = 0.995
    kept: float = 0.5
    answers: float = 0.3
    probe: float = 0.05
    concept: float = 0.06
    relearn: float = 0.6
    quantised: float = 0.05
    recovered: float = 0.1
    js: float = 0.1
    donor: float = 0.2
    membership: float = 0.2
    attack: float = 0.55
    fidelity: float = 0.5
    significance: float = 2.0
