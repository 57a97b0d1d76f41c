"""The interface of all methods, and what they share: checks, copies, proofs."""

from __future__ import annotations

__all__ = ["Unlearner", "only_images"]

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.errors import InputError, SplitError
from conceptlab.models.session import model_copy
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import Progress
from conceptlab.provenance import fingerprint
from conceptlab.training import DeferredInterrupt
from conceptlab.training.checkpoint import resumed_seed
from conceptlab.training.parts import all_finite
from unlearning.certificate import describe_parameters, make_certificate
from unlearning.classes.job import Job
from unlearning.classes.outcome import outcome_warnings
from unlearning.data import (
    Samples,
    as_samples,
    check_disjoint_samples,
    check_same_kind,
    quiet_randomness,
)
from unlearning.heads import frozen, run_model, unused_columns
from unlearning.notices import UnlearningWarning
from unlearning.result import UnlearnResult

_NOT_IN_KEY = {"max_steps", "max_seconds", "random_state", "device"}
_SHARED = Rules(
    epochs=Whole(1),
    batch_size=Whole(1) | None,
    max_steps=Whole(1) | None,
    lr=Real(above=0),
    max_seconds=Real(above=0) | None,
    momentum=Real(least=0),
    weight_decay=Real(least=0),
    norm=OneOf("frozen", "update") | None,
)


class Unlearner(BaseEstimator):
    """Base of the methods that make a classifier forget classes.

    A method writes :meth:`_unlearn`, which changes ``job.model``, a copy. The
    user's model is hashed before and after and never touched; parameters that
    the user froze stay frozen, unless all are.

    Attributes
    ----------
    batch_size : int
        Samples in a batch; a parameter of every method.
    device : str or torch.device
        Where to compute; a parameter of every method. "auto" is where the model is.
    random_state : int, Generator or None
        Of all draws; a parameter of every method.

    Examples
    --------
    >>> from torch import nn
    >>> from unlearning import LogitMask
    >>> isinstance(LogitMask(), Unlearner)
    True
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> X, y = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> parts = {"forget": (X[y == 0], y[y == 0]), "retain": (X[y > 0], y[y > 0])}
    >>> result = LogitMask().unlearn(model, **parts)
    >>> bool((result.model(X).argmax(1) == 0).any())
    False
    """

    batch_size: int
    device: str | torch.device
    random_state: Any

    def unlearn(
        self,
        model: nn.Module,
        *,
        forget: Any,
        retain: Any,
        valid: Any = None,
        inplace: bool = False,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> UnlearnResult:
        """Make a copy of `model` forget the classes of `forget`.

        Parameters
        ----------
        model : torch.nn.Module
            A classifier that returns logits (n, C), an object or mapping with
            ``logits``, or a tuple that holds them.
        forget, retain : object
            Labelled training data of the classes to forget, and of all others:
            ``(X, y)``, a ``Dataset``, a ``DataLoader``, or tokenised texts; see
            :func:`unlearning.as_samples`.
        valid : object, optional
            Held-out data of all classes, for methods with a stop rule.
        inplace : bool
            At the very end, load the new weights into `model` itself.
        progress : bool, callable or None
            See ``conceptlab.progress``.
        checkpoint : path-like, optional
            A folder. The run's state is written there each minute, at an
            interruption (Ctrl-C) and at a budget's end; the same call goes on
            from it to the same bits. Removed when the run is done.

        Returns
        -------
        UnlearnResult

        Raises
        ------
        InputError
            Data that overlap or do not fit the model or each other, a class that
            is absent, fewer than two classes left, a model with weights that are
            NaN or infinite.
        SplitError
            The model does not return logits.
        """
        self._check_parameters()
        given, model = model, _eager(model)
        samples = self._check_data(model, forget, retain, valid)
        folder = None if checkpoint is None else Path(checkpoint)
        seed = resumed_seed(self.random_state, folder)
        _check_weights(model)
        before = fingerprint(model)
        flags = [m.training for m in model.modules()]
        copied = _copy(model)
        half = _float16_names(model)
        source = model if not half else _copy(model).float()
        copied = copied.float() if half else copied
        device = resolve_device(getattr(self, "device", "auto"), like=_first(model))
        if not any(p.requires_grad for p in copied.parameters()):
            copied.requires_grad_(True)
        copied.to(device)
        head = getattr(self, "head", None)
        parameters = describe_parameters(self.get_params(deep=False))
        with quiet_randomness(seed):
            n_classes = _count_classes(copied, samples[0], device)
            for data in samples:
                if data is not None:
                    as_samples(data, name=data.name, n_classes=n_classes)
            job = Job(
                model=copied,
                source=source,
                forget=samples[0],
                retain=samples[1],
                valid=samples[2],
                n_classes=n_classes,
                device=device,
                seed=seed,
                settings=self.get_params(deep=False),
                head=head.removeprefix("_orig_mod.") if given is not model and head else head,
                progress=progress,
                checkpoint=folder,
                key={
                    "method": type(self).__name__,
                    "parameters": {k: v for k, v in parameters.items() if k not in _NOT_IN_KEY},
                    "seed": seed,
                    "model": before,
                    "forget": samples[0].digest,
                    "retain": samples[1].digest,
                },
            )
            left_out = unused_columns(copied, samples[0].inputs)
            if left_out:
                job.warnings.append(
                    f"{type(model).__name__}.forward has no argument for the columns "
                    f"{', '.join(left_out)}; they are left out."
                )
            details = self._unlearn(job) or {}
            _round(job.model, half)
            if not all_finite(job.model):  # of methods that compute weights in one go
                job.model = _copy(model)
                job.halt("nan: rewound")
                job.warnings.append(
                    f"{type(self).__name__} made weights NaN or infinite. The weights are those "
                    "of the original again. Use a smaller strength (alpha, lr)."
                )
            cpu_seconds = job.cpu_seconds
            job.warnings += outcome_warnings(job)
        finished = job.model.to(_device(model))
        _restore_flags(finished, model, flags)
        if fingerprint(model) != before:
            raise InputError(
                "The model that was given changed while a copy was trained: something outside "
                "writes to its weights, or the copy shares tensors with it. Give a model whose "
                "tensors are its own.",
                code="CL-INPUT-TYPE",
            )
        after = fingerprint(finished)
        if inplace:
            _load_into(model, finished)
            finished = given
        job.finish()
        for message in job.warnings:
            warnings.warn(message, UnlearningWarning, stacklevel=2)
        certificate = make_certificate(
            method=type(self).__name__,
            parameters=parameters,
            seed=seed,
            before=before,
            after=after,
            forget=samples[0],
            retain=samples[1],
            steps=job.steps,
            cpu_seconds=cpu_seconds,
            stopped=job.stopped,
            device=str(device),
        )
        return UnlearnResult(finished, job.history, certificate, details, job.warnings)

    def _unlearn(self, job: Job) -> dict[str, Any] | None:
        """Change ``job.model``; give facts for ``UnlearnResult.details``."""
        raise NotImplementedError

    def _check_data(
        self, model: nn.Module, forget: Any, retain: Any, valid: Any
    ) -> tuple[Samples, Samples, Samples | None]:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model must be a torch.nn.Module, got {type(model).__name__}.",
                code="CL-INPUT-TYPE",
            )
        gone = as_samples(forget, name="forget")
        kept = as_samples(retain, name="retain")
        held = None if valid is None else as_samples(valid, name="valid")
        check_same_kind(gone, kept)
        if held is not None:
            check_same_kind(gone, held, joined=False)
        still = sorted(set(gone.classes) & set(kept.classes))
        check_disjoint_samples(gone, kept)
        if still:
            count = int(torch.isin(kept.y, torch.tensor(still)).sum())
            raise InputError(
                f"`retain` holds {count} samples of class {', '.join(map(str, still))}, which is "
                "to be forgotten as a whole class: divide the data with split_classes(data, "
                "classes). To forget single samples of a class use ShardedEnsemble.delete.",
                code="CL-INPUT-LABELS",
            )
        if len(kept.classes) < 2:
            raise InputError(
                f"`retain` holds one class ({kept.classes[0]}); at least two must be left to tell "
                "apart. Forget fewer classes, or give data of the other classes.",
                code="CL-INPUT-FEW",
            )
        return gone, kept, held

    def _check_parameters(self) -> None:
        """Check the parameters that methods share, where it has them, and its own."""
        tables = [vars(cls).get("_rules") for cls in type(self).__mro__]
        own = [rules for rules in tables if isinstance(rules, Rules)]
        named = {name for rules in own for name in rules.rules}
        Rules(**{k: v for k, v in _SHARED.rules.items() if k not in named}).check(self, absent=True)
        for rules in own:
            rules.check(self)
        augment = getattr(self, "augment", None)
        if augment is not None and not callable(augment):
            raise InputError(
                "augment must be a callable (images, generator) -> images, got "
                f"{type(augment).__name__}.",
                code="CL-INPUT-TYPE",
            )


def _check_weights(model: nn.Module) -> None:
    if next(model.parameters(), None) is None:
        raise InputError(
            f"{type(model).__name__} has no parameters, so nothing in it could forget. Give "
            "the classifier itself.",
            code="CL-INPUT-TYPE",
        )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter.detach()).all()):
            raise InputError(
                f"The model's weights {name!r} hold NaN or infinity, so it answers nothing that "
                "could be forgotten. Load good weights; to switch an output off use LogitMask.",
                code="CL-INPUT-NONFINITE",
            )


def _eager(model: Any) -> Any:
    """Take the module that was compiled; refuse a scripted one."""
    if type(model).__name__ == "OptimizedModule":  # torch.compile: its layers run no hooks
        return dict(model.named_children()).get("_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "The model is a TorchScript module, whose layers can be neither watched nor trained "
            "in a copy. Give the module that it was made from.",
            code="CL-INPUT-TYPE",
        )
    return model


def _float16_names(model: nn.Module) -> set[str]:
    """Name the weights of 16 bits whose smallest step Adam's eps and small rates fall below."""
    return {n for n, t in model.state_dict().items() if t.dtype == torch.float16}


def _round(model: nn.Module, names: set[str]) -> None:
    """Round weights that were trained in float32 back to float16."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in names:
            tensor.data = tensor.data.half()


def _first(model: nn.Module) -> torch.Tensor:
    return next(iter(model.parameters()), torch.zeros(0))


def _device(model: nn.Module) -> torch.device:
    return _first(model).device


def _copy(model: nn.Module) -> nn.Module:
    try:
        return model_copy(model)
    except Exception as error:
        raise InputError(
            f"The model cannot be copied ({type(error).__name__}: {error}), and it must not be "
            "changed. Remove what copy.deepcopy cannot copy, such as stored activations, open "
            "files or old-style weight_norm hooks.",
            code="CL-INPUT-TYPE",
        ) from error


def _count_classes(model: nn.Module, samples: Samples, device: torch.device) -> int:
    inputs, y = next(iter(samples.batches(2)))  # a third sample comes along, where it is the last
    dtype = _first(model).dtype

    def move(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    moved: Any = (
        {key: move(value) for key, value in inputs.items()}
        if isinstance(inputs, dict)
        else move(inputs)
    )
    with frozen(model), torch.no_grad():
        logits = run_model(model, moved)
    if logits.shape[0] != len(y):
        raise InputError(
            f"The model returned {logits.shape[0]} rows for {len(y)} inputs; expected "
            "logits (n, C), one row for each input.",
            code="CL-INPUT-SHAPE",
        )
    if logits.shape[1] > 1 and bool((logits >= 0).all()):
        sums = logits.float().sum(dim=1)
        if torch.allclose(sums, torch.ones_like(sums), atol=1e-2 if dtype.itemsize < 4 else 1e-4):
            raise SplitError(
                "The model returns probabilities (rows of numbers >= 0 that sum to 1), and logits "
                "are needed. Take the softmax off its end.",
                code="CL-SPLIT-OUTPUT",
            )
    return int(logits.shape[1])


def _restore_flags(finished: nn.Module, model: nn.Module, flags: list[bool]) -> None:
    """Give the finished copy the modes and gradient flags of the user's model."""
    modules = list(finished.modules())
    if len(modules) == len(flags):
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
    else:
        finished.train(flags[0])
    given = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in finished.named_parameters(remove_duplicate=False):
        parameter.grad = None
        if name in given:
            parameter.requires_grad_(given[name].requires_grad)


def _load_into(model: nn.Module, finished: nn.Module) -> None:
    old, new = model.state_dict(), finished.state_dict()
    if {k: v.shape for k, v in old.items()} != {k: v.shape for k, v in new.items()}:
        raise InputError(
            "inplace=True needs a finished model with the same weights by name and shape, and this "
            "method made another architecture. Use inplace=False and take result.model.",
            code="CL-INPUT-SHAPE",
        )
    with DeferredInterrupt(True) as interrupt:  # Ctrl-C must not leave half of each
        model.load_state_dict(new)
    if interrupt.came:
        raise KeyboardInterrupt


def only_images(job: Job, method: str) -> torch.Tensor:
    """Give the forget inputs, or an error where they cannot be perturbed."""
    inputs = job.forget.inputs
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        return inputs
    kind = "a mapping" if isinstance(inputs, dict) else str(inputs.dtype).removeprefix("torch.")
    raise InputError(
        f"{method} changes the numbers of its inputs and needs one float tensor, got {kind}. For "
        "texts use ConceptPoisoning, SalUn, BadTeacher, SCRUB, SSD or FisherForgetting.",
        code="CL-INPUT-TYPE",
    )
