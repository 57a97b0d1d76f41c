"""How quickly a forgotten class is learned again."""

from __future__ import annotations

__all__ = ["RelearnCurve", "anamnesis_index", "relearn"]

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from conceptlab.errors import InputError, unknown_name
from conceptlab.progress import Progress, track
from conceptlab.seeds import RandomState, draw_seed, torch_generator
from unlearning.audit.attacker import mixed_batches, train_copy
from unlearning.audit.options import Training
from unlearning.audit.reading import accuracy_on, borrowed, borrowed_copy, device_of, moved
from unlearning.audit.standard import standard_copy
from unlearning.data import Samples
from unlearning.heads import find_head

STARTS = ("as it is", "head reset")


@dataclass(frozen=True, eq=False)
class RelearnCurve:
    """Accuracies while a model is taught the forgotten class again.

    Attributes
    ----------
    steps : ndarray of shape (m,), int64
        Mini-batches done, from 0.
    forget : ndarray of shape (m,)
        Accuracy on forget samples.
    test : ndarray of shape (m,)
        Accuracy on test samples of retained classes; NaN at steps where it was not looked at.
    target : float
        Forget accuracy to be reached.
    reached : int or None
        The first step at which it was, with `test` within the tolerance of its start.
    max_steps : int
        Where the attempt ended.
    broken : bool
        Whether the class was learned only at the price of retained ones, or the loss was NaN.
    start : {"as it is", "head reset"}
        From where this, the quicker one, began.

    Examples
    --------
    >>> steps, forget, test = np.array([0, 10]), np.array([0.0, 0.9]), np.array([0.8, 0.8])
    >>> curve = RelearnCurve(steps, forget, test, target=0.9, reached=10, max_steps=200)
    >>> curve.reached
    10
    """

    steps: np.ndarray
    forget: np.ndarray
    test: np.ndarray
    target: float
    reached: int | None
    max_steps: int
    broken: bool = False
    start: str = "as it is"

    @property
    def count(self) -> float:
        """Steps that were needed; `max_steps` where they did not do; NaN when broken."""
        if self.broken and self.reached is None:
            return float("nan")
        return float(self.max_steps if self.reached is None else self.reached)


@dataclass
class _Log:
    steps: list[int] = field(default_factory=list)
    forget: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)


def relearn(
    model: nn.Module,
    forget: Samples,
    retain: Samples,
    test: Samples,
    *,
    target: float,
    tolerance: float = 0.05,
    max_steps: int = 200,
    how: Training | None = None,
    max_samples: int = 200,
    starts: Sequence[str] = STARTS,
    head: str | None = None,
    random_state: RandomState = 0,
    label: str = "model",
    progress: Progress = None,
) -> RelearnCurve:
    """Teach a copy of a model the forgotten class again, and count the steps.

    Parameters
    ----------
    model : torch.nn.Module
        It is not changed.
    forget, retain : Samples
        Training samples; each step takes a mixed batch of both.
    test : Samples
        Test samples of retained classes.
    target : float
        Forget accuracy to be reached, such as 0.9 of the original's.
    tolerance : float
        A step counts only while accuracy on `test` is within this of where it started: an
        attack that ruins the model proves nothing.
    max_steps : int
        Give up after so many steps.
    how : Training, optional
        Learning rate, momentum, batches.
    max_samples : int
        Accuracies along the way are taken of at most so many samples.
    starts : sequence of {"as it is", "head reset"}
        What the attacker begins with; the quicker one counts. ``"head reset"`` first puts
        the class's row of the last layer at the mean of the retained rows.
    head : str, optional
        Name of the last layer, where it is not found.
    random_state : int, RandomState, Generator or None
        Order of batches; the same for models that are compared.
    label : str
        What the model is, for the progress bar.
    progress : optional
        See :data:`conceptlab.progress.Progress`.

    Returns
    -------
    RelearnCurve

    Notes
    -----
    Accuracy is looked at after every step up to 20, then at steps that grow by 5 %. A model
    whose class was only pushed down by a large margin looks hard to teach for no other reason
    than the margin; an attacker who resets the row is not held up by it. The copy is trained in
    standard form (:mod:`unlearning.audit.standard`), so that units of hidden layers have no
    part in the count.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import as_samples
    >>> X, y = torch.rand(24, 3, 4, 4), torch.arange(24) % 3
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    >>> forget, retain = as_samples((X[y == 0], y[y == 0])), as_samples((X[y > 0], y[y > 0]))
    >>> curves = relearn(model, forget, retain, as_samples((X, y)), target=0.9, max_steps=2)
    >>> curves.max_steps
    2
    """
    if max_steps < 1 or not 0 < target <= 1:
        raise InputError(
            f"max_steps must be >= 1 and target in (0, 1], got {max_steps} and {target}.",
            code="CL-INPUT-RANGE",
        )
    unknown = [s for s in starts if s not in STARTS]
    if unknown or not starts:
        raise unknown_name("start", unknown[0] if unknown else "", STARTS)
    how, seed = how or Training(), draw_seed(random_state)
    best: RelearnCurve | None = None
    for start in starts:
        twin = model
        if start == "head reset":
            with borrowed(model):
                twin = _reset(model, forget, head)
        limit = max_steps if best is None or best.reached is None else max(best.reached, 1)
        curve = _attempt(
            twin,
            forget,
            retain,
            test,
            target=target,
            tolerance=tolerance,
            max_steps=limit,
            how=how,
            max_samples=max_samples,
            seed=seed,
            label=label,
            progress=progress,
        )
        curve = replace(curve, max_steps=max_steps, start=start)
        if best is None or _better(curve, best):
            best = curve
        if best.reached == 0:
            break
    return best or curve


def _better(first: RelearnCurve, second: RelearnCurve) -> bool:
    if first.reached is None or second.reached is None:
        return first.reached is not None or (
            second.reached is None and second.broken and not first.broken
        )
    return first.reached < second.reached


def _reset(model: nn.Module, forget: Samples, name: str | None) -> nn.Module:
    """Copy a model with the rows of the forgotten classes at the mean of the others."""
    twin = borrowed_copy(model)
    example = forget.select(torch.arange(min(2, len(forget))))
    head = find_head(twin, moved(example.inputs, device_of(twin)), head=name)
    gone = forget.classes
    kept = [c for c in range(head.n_classes) if c not in set(gone)]
    with torch.no_grad():
        head.weight[gone] = head.weight[kept].mean(dim=0)
        if head.bias is not None:
            head.bias[gone] = head.bias[kept].mean()
    return twin


def _attempt(
    model: nn.Module,
    forget: Samples,
    retain: Samples,
    test: Samples,
    *,
    target: float,
    tolerance: float,
    max_steps: int,
    how: Training,
    max_samples: int,
    seed: int,
    label: str,
    progress: Progress,
) -> RelearnCurve:
    generator = torch_generator(seed)
    seen = forget.select(torch.randperm(len(forget), generator=generator)[:max_samples])
    kept = test.select(torch.randperm(len(test), generator=generator)[:max_samples])
    log = _Log()
    reached: list[int] = []

    def look(twin: nn.Module, step: int) -> bool:
        log.steps.append(step)
        log.forget.append(accuracy_on(twin, seen))
        needed = step in (0, max_steps) or log.forget[-1] >= target
        log.test.append(accuracy_on(twin, kept) if needed else float("nan"))
        if log.forget[-1] >= target and log.test[-1] >= log.test[0] - tolerance:
            reached.append(step)
        return bool(reached)

    due = 20.0

    def after(twin: nn.Module, step: int) -> bool:
        nonlocal due
        if 20 < step < due and step < max_steps:
            return False
        due = max(due, 1.05 * step)
        return look(twin, step) or step >= max_steps

    with borrowed(model):
        done = look(model, 0)
    healthy = True
    if not done:
        batches = mixed_batches(forget, retain, how, generator)
        limited = (batch for batch, _ in zip(batches, range(max_steps), strict=False))
        shown = track(
            limited,
            description=f"relearn {label}",
            total=max_steps,
            progress=progress,
            unit="step",
        )
        _, healthy = train_copy(
            model, shown, how, after, copied=lambda m: standard_copy(m, forget, retain)
        )
    # Ruined: the class is known, but at the price of others; or the loss was NaN.
    broken = not healthy or (not reached and max(log.forget) >= target)
    return RelearnCurve(
        np.array(log.steps),
        np.array(log.forget),
        np.array(log.test),
        target,
        reached[0] if reached else None,
        max_steps,
        broken,
    )


def anamnesis_index(unlearned: RelearnCurve, reference: RelearnCurve) -> float:
    """Compute AIN: relearn steps of the unlearned model over those of a retrained one.

    Parameters
    ----------
    unlearned, reference : RelearnCurve
        By :func:`relearn` with the same settings.

    Returns
    -------
    float
        1 is ideal, 0 means that the class is still known. Where the unlearned model did
        not get there in `max_steps` it is a lower bound, where the reference did not, an
        upper one. NaN when relearning broke either model.

    References
    ----------
    Chundawat et al., "Zero-shot machine unlearning", IEEE TIFS 2023 (Anamnesis index).

    Examples
    --------
    >>> def curve(steps):
    ...     return RelearnCurve(np.arange(2), np.zeros(2), np.zeros(2), 0.9, steps, 100)
    >>> anamnesis_index(curve(10), curve(40))
    0.25
    """
    below = reference.count
    return unlearned.count / below if below > 0 else float("nan")
