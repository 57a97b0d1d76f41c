"""Does the class come back when nobody teaches it?"""

from __future__ import annotations

__all__ = ["Recovery", "spontaneous_recovery"]

from dataclasses import dataclass

from torch import nn

from conceptlab.errors import InputError
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, torch_generator
from unlearning.audit.attacker import train_copy
from unlearning.audit.options import Training
from unlearning.audit.reading import accuracy_on
from unlearning.audit.standard import standard_copy
from unlearning.data import Samples


@dataclass(frozen=True)
class Recovery:
    """Accuracies after training on retained samples only.

    Attributes
    ----------
    forget : float
        Accuracy on the forget samples.
    test : float
        Accuracy on test samples of retained classes.
    healthy : bool
        False when the loss was no longer finite.
    """

    forget: float
    test: float
    healthy: bool = True


def spontaneous_recovery(
    model: nn.Module,
    forget: Samples,
    retain: Samples,
    test: Samples,
    *,
    epochs: int = 1,
    how: Training | None = None,
    random_state: RandomState = 0,
    label: str = "model",
    progress: Progress = None,
) -> Recovery:
    """Train a copy of a model on retained samples only, and look at the forgotten class.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    forget, retain : Samples
        Training samples; only `retain` is trained on.
    test : Samples
        Test samples of retained classes.
    epochs : int
        Passes over `retain`.
    how : Training, optional
        Learning rate, momentum, batch size.
    random_state : int, RandomState, Generator or None
        Order of batches.
    label : str
        What the model is, for the progress bar.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    Recovery

    References
    ----------
    The idea of looking after further training is that of Lucki et al., "An adversarial
    perspective on machine unlearning for AI safety", 2024.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import as_samples
    >>> X, y = torch.rand(24, 3, 4, 4), torch.arange(24) % 3
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    >>> forget, retain = as_samples((X[y == 0], y[y == 0])), as_samples((X[y > 0], y[y > 0]))
    >>> found = spontaneous_recovery(model, forget, retain, as_samples((X, y)))
    >>> 0 <= found.forget <= 1
    True
    """
    if epochs < 1:
        raise InputError(f"epochs must be >= 1, got {epochs}.", code="CL-INPUT-RANGE")
    how = how or Training(lr=0.02)
    generator = torch_generator(random_state)
    batches = (b for _ in range(epochs) for b in retain.batches(how.batch_size, generator))
    shown = track(
        batches,
        description=f"recover {label}",
        progress=progress,
        unit="step",
        total=epochs * -(-len(retain) // how.batch_size),
    )
    twin, healthy = train_copy(
        model,
        shown,
        how,
        lambda _twin, _step: False,
        copied=lambda m: standard_copy(m, forget, retain),
    )
    if not healthy:
        return Recovery(float("nan"), float("nan"), False)
    return Recovery(accuracy_on(twin, forget), accuracy_on(twin, test))
