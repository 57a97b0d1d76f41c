"""What methods with a teacher share: the divergence to it, its answers without a class, and a
teacher that knows nothing.
"""

from __future__ import annotations

__all__ = ["kl_to_teacher", "random_teacher", "soft_targets"]


import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.models.session import model_copy
from unlearning.classes.job import Job
from unlearning.data import Samples, quiet_randomness


def kl_to_teacher(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Compute the mean of KL(teacher ‖ student) over a batch.

    Parameters
    ----------
    student, teacher : Tensor of shape (n, C)
        Logits. Gradients flow where they are asked for.
    temperature : float
        Both are divided by it, above 0. The value is not scaled by its square;
        a loss that wants equal gradients at all temperatures does so itself.

    Returns
    -------
    Tensor, a scalar
        Mean over the n rows of the sum over the C classes, in nats. Some
        released code takes the mean over classes too, which makes the rate of
        learning depend on C; here it does not.

    Raises
    ------
    InputError
        Shapes differ, or a temperature that is not above 0.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> float(kl_to_teacher(logits, logits + 3))
    0.0
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise InputError(
            f"Student and teacher must give logits of one shape (n, C), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    if not temperature > 0:
        raise InputError(
            f"temperature must be above 0, got {temperature!r}.", code="CL-INPUT-RANGE"
        )
    log_p, log_q = ((v / temperature).log_softmax(dim=1) for v in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def random_teacher(model: nn.Module, seed: int) -> nn.Module:
    """Make a network of the same build whose weights are drawn anew.

    Every module that can draw its own weights does so, at any depth; entries
    of parameters whose module cannot are shuffled, which keeps their scale.

    Parameters
    ----------
    model : Module
        Untouched.
    seed : int
        Of the weights. The global random state comes back as it was.

    Returns
    -------
    Module
        A copy in eval mode without gradients.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> other = random_teacher(net, 0)
    >>> torch.equal(net[0].weight, other[0].weight), torch.equal(net[2].weight, other[2].weight)
    (False, False)
    """
    teacher = model_copy(model)
    generator = torch.Generator().manual_seed(seed)
    with quiet_randomness(seed), torch.no_grad():
        for module in teacher.modules():
            own = list(module.parameters(recurse=False))
            # MultiheadAttention hides the method that its parts do not have.
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(reset):
                reset()
                continue
            for parameter in own:
                order = torch.randperm(parameter.numel(), generator=generator)
                flat = parameter.detach().reshape(-1)
                parameter.copy_(flat[order.to(flat.device)].view_as(parameter))
    return teacher.eval().requires_grad_(False)


def soft_targets(job: Job, samples: Samples, temperature: float = 1.0) -> torch.Tensor:
    """Give the original model's probabilities with the forgotten classes left out.

    Parameters
    ----------
    job : Job
        The run.
    samples : Samples
        What to label.
    temperature : float
        Divides the logits.

    Returns
    -------
    torch.Tensor of shape (n, C)
        Rows sum to 1; 0 for every class that is not retained.
    """
    logits = job.predict(job.original, samples).float() / temperature
    left_out = torch.ones(job.n_classes, dtype=torch.bool)
    left_out[job.retained] = False
    return logits.masked_fill(left_out, -torch.inf).softmax(dim=1)
