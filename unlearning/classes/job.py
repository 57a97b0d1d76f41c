"""What a method of unlearning works with: a classifier, its samples, and the training engine."""

from __future__ import annotations

__all__ = ["Job", "set_mode"]

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.io.trees import clone_state
from conceptlab.models.session import model_copy
from conceptlab.progress import Progress
from conceptlab.seeds import numpy_generator, torch_generator
from conceptlab.training import Engine, GlobalRandomness
from conceptlab.training.terms import Batch, Loss
from unlearning.data import Inputs, Samples, n_batches
from unlearning.heads import Head, features_and_logits, find_head, frozen, run_model


class Job(Engine):
    """What a method gets to work with; made by :meth:`Unlearner.unlearn`.

    Parameters
    ----------
    model : torch.nn.Module
        The copy that is trained.
    source : torch.nn.Module
        The user's model; never changed.
    forget, retain : Samples
        What to forget and what to keep.
    valid : Samples or None
        Held-out samples of all classes.
    n_classes : int
        Number of logits.
    device : torch.device
        Where to compute.
    seed : int
        Start of all generators.
    settings : dict
        The method's parameters.
    head : str or None
        Name of the head, where the user gave one.
    progress : bool, callable or None
        See ``conceptlab.progress``.
    checkpoint : path-like or None
        Folder for interrupted runs.
    key : dict
        What a checkpoint must match.

    Attributes
    ----------
    classes : list of int
        The forgotten labels, sorted.
    retained : list of int
        The labels that occur in `retain`: not those of earlier requests.
    generator : torch.Generator
        On the CPU, for all draws of the method.
    numpy : numpy.random.Generator

    Notes
    -----
    Steps, budgets, history, memory and checkpoints are those of
    :class:`conceptlab.training.Engine`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        source: nn.Module,
        forget: Samples,
        retain: Samples,
        valid: Samples | None,
        n_classes: int,
        device: torch.device,
        seed: int,
        settings: dict[str, Any],
        head: str | None = None,
        progress: Progress = None,
        checkpoint: Any = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.generator = torch_generator(seed)
        self.numpy = numpy_generator(seed)
        shared = {"torch": GlobalRandomness()}
        if device.type == "cuda":
            shared["cuda"] = GlobalRandomness(device)
        super().__init__(
            {"model": model},
            generators={"generator": self.generator, "numpy": self.numpy, **shared},
            seed=seed,
            max_steps=settings.get("max_steps"),
            max_seconds=settings.get("max_seconds"),
            progress=progress,
            checkpoint=checkpoint,
            key=key,
        )
        self.source = source
        self.forget, self.retain, self.valid = forget, retain, valid
        self.n_classes, self.device, self.settings = n_classes, device, settings
        self.classes = forget.classes
        self.retained = retain.classes
        self._head_name = head

    @property
    def model(self) -> nn.Module:
        """The copy that is trained; another one may be put in its place."""
        return cast(nn.Module, self.weights["model"])

    @model.setter
    def model(self, model: nn.Module) -> None:
        self.weights["model"] = model

    @functools.cached_property
    def original(self) -> nn.Module:
        """A frozen copy of the user's model in evaluation mode, on the device."""
        model = model_copy(self.source).to(self.device).eval()
        return model.requires_grad_(False)

    @property
    def head(self) -> Head:
        """The head of :attr:`model`; an error when there is none."""
        if self._head_name is None:
            inputs = self.to_device(next(iter(self.forget.batches(2)))[0])
            with frozen(self.model), torch.no_grad():
                self._head_name = find_head(self.model, inputs).name
        return find_head(self.model, head=self._head_name)

    def to_device(self, inputs: Inputs) -> Inputs:
        """Move inputs to the device; floats take the dtype of the weights."""
        if isinstance(inputs, dict):
            return {key: self._move(value) for key, value in inputs.items()}
        return self._move(inputs)

    def logits(self, model: nn.Module, inputs: Inputs) -> torch.Tensor:
        """Run `model` (in its present mode) on a batch from anywhere."""
        return run_model(model, self.to_device(inputs))

    def features_and_logits(
        self, model: nn.Module, inputs: Inputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run `model` and keep what enters its head."""
        return features_and_logits(model, self.to_device(inputs), self.head.name)

    def predict(
        self, model: nn.Module, samples: Samples, *, features: bool = False
    ) -> torch.Tensor:
        """Logits (n, C), or features (n, d), of all samples in evaluation mode, on the CPU."""
        found = []
        with frozen(model), torch.no_grad():
            for inputs, _ in samples.batches(max(self.batch_size, 256)):
                if features:
                    found.append(self.features_and_logits(model, inputs)[0].cpu())
                else:
                    found.append(self.logits(model, inputs).cpu())
        return torch.cat(found)

    def accuracy(self, model: nn.Module, samples: Samples) -> float:
        """Share of samples whose largest logit is the label's."""
        return float((self.predict(model, samples).argmax(1) == samples.y).float().mean())

    @property
    def batch_size(self) -> int:
        """The method's ``batch_size``."""
        return int(self.settings.get("batch_size") or 64)

    def batches(
        self,
        samples: Samples,
        batch_size: int | None = None,
        *,
        augment: bool = True,
        drop_last: bool = False,
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Go through `samples` once in a new order, augmented, on the device."""
        function = self.settings.get("augment") if augment else None
        for inputs, y in samples.batches(
            batch_size or self.batch_size, self.order, drop_last=drop_last
        ):
            moved = self.to_device(inputs)
            if function is not None:
                moved = self.to_device(_augmented(function, moved, self.generator))
            yield moved, y.to(self.device)

    def cycle(
        self, samples: Samples, batch_size: int | None = None, *, augment: bool = True
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Go through `samples` again and again, in a new order each time; never ends."""
        while True:
            yield from self.batches(samples, batch_size, augment=augment)

    def count(self, samples: Samples, batch_size: int | None = None) -> int:
        """Number of batches that :meth:`batches` makes."""
        return n_batches(len(samples), batch_size or self.batch_size)

    def trainable(self) -> list[nn.Parameter]:
        """Give the parameters that learn."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def sgd(
        self, parameters: Iterable[torch.Tensor] | None = None, *, lr: float | None = None
    ) -> torch.optim.Optimizer:
        """Make SGD with the method's ``lr``, ``momentum`` and ``weight_decay``."""
        return torch.optim.SGD(
            self.trainable() if parameters is None else list(parameters),
            lr=float(self.settings["lr"] if lr is None else lr),
            momentum=float(self.settings.get("momentum", 0.0)),
            weight_decay=float(self.settings.get("weight_decay", 0.0)),
        )

    def adam(
        self, parameters: Iterable[torch.Tensor] | None = None, *, lr: float | None = None
    ) -> torch.optim.Optimizer:
        """Make Adam with the method's ``lr`` and ``weight_decay``."""
        return torch.optim.Adam(
            self.trainable() if parameters is None else list(parameters),
            lr=float(self.settings["lr"] if lr is None else lr),
            weight_decay=float(self.settings.get("weight_decay", 0.0)),
        )

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Copy the state of the model."""
        return dict(clone_state(dict(self.model.state_dict())))

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put a state of :meth:`snapshot` back."""
        self.model.load_state_dict(state)

    def train(
        self,
        batches: Callable[[int], Iterable[Batch]],
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        norm: str | None = None,
        **options: Any,
    ) -> bool:
        """Train :attr:`model` in training mode, and leave it in evaluation mode.

        Parameters
        ----------
        batches, loss, optimizer, **options
            As in :meth:`conceptlab.training.Engine.train`; batches are mostly
            made of :meth:`batches`.
        norm : {"frozen", "update"}, optional
            Whether normalisation layers keep their running statistics, and
            use them, or update them; by default the method's ``norm``, or
            ``"frozen"``. Dropout is active either way.

        Returns
        -------
        bool
            As there.
        """
        set_mode(self.model, norm or self.settings.get("norm") or "frozen")
        try:
            return super().train(batches, loss, optimizer, **options)
        finally:
            self.model.eval()

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor.to(self.device)
        return tensor.to(self.device, self._dtype)

    @functools.cached_property
    def _dtype(self) -> torch.dtype:
        for parameter in self.source.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
        return torch.float32


def set_mode(model: nn.Module, norm: str) -> None:
    """Switch to training; normalisation layers keep their statistics when `norm` is "frozen"."""
    model.train()
    if norm == "update":
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            module.eval()


def _augmented(function: Callable[..., Any], inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Call the user's augmentation, and refuse what is no batch of as many inputs."""
    found: Inputs = function(inputs, generator)
    given, got = (x if isinstance(x, dict) else {"": x} for x in (inputs, found))
    fits = got.keys() == given.keys() and all(
        isinstance(v, torch.Tensor) and v.shape[:1] == given[k].shape[:1] for k, v in got.items()
    )
    if not fits:
        kind = type(found).__name__
        kind += f" of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else ""
        raise InputError(
            f"augment must give a batch of as many inputs as it got, got {kind}. It is called as "
            "augment(images, generator) and returns images.",
            code="CL-INPUT-SHAPE",
        )
    return found
