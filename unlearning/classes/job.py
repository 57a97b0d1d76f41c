"""One training loop for all methods: budget, history, rewinding, checkpoints."""

from __future__ import annotations

__all__ = ["Job", "UnlearningWarning"]

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import InputError
from conceptlab.io.swap import remove_folder
from conceptlab.io.trees import clone_state
from conceptlab.models.session import model_copy
from conceptlab.progress import Progress, track
from conceptlab.seeds import numpy_generator, torch_generator
from conceptlab.training import checkpoint as checkpoints
from unlearning.classes.run import Batch, DeferredInterrupt, Loss, Run, outside_tensors, set_mode
from unlearning.data import Inputs, Samples, n_batches
from unlearning.heads import Head, features_and_logits, find_head, frozen, run_model


class UnlearningWarning(UserWarning):
    """Something about a run that its user should know."""


class Job:
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
    order : torch.Generator
        For the order of batches; starts anew at each epoch, so that a resumed
        epoch has the same batches.
    epoch : int
        The epoch that runs, from 0.
    steps : int
        Optimiser steps so far, over all calls of :meth:`train`.
    history : list of dict
        A row for each epoch.
    memory : dict
        Nested tensors and JSON values of the method that must outlive an
        interruption, such as the best state so far.
    stopped : str
        ``"done"``, ``"max_steps"``, ``"max_seconds"``, ``"nan: rewound"`` or
        ``"early: <why>"``.
    warnings : list of str
        Told to the user at the end, as :class:`UnlearningWarning`.
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
        self.model = model
        self.source = source
        self.forget, self.retain, self.valid = forget, retain, valid
        self.n_classes, self.device, self.seed = n_classes, device, seed
        self.settings = settings
        self.progress = progress
        self.classes = forget.classes
        self.retained = retain.classes
        self.generator = torch_generator(seed)
        self.numpy = numpy_generator(seed)
        self.order = torch_generator(seed)
        self.epoch = 0
        self.steps = 0
        self.history: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        self.stopped = "done"
        self.warnings: list[str] = []
        self.extra_seconds = 0.0
        self._head_name = head
        self._halted = False
        self._stage = -1
        self._started = time.monotonic()
        self._cpu_started = time.process_time()
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._key = dict(key or {})
        self._last_written = time.monotonic()
        self._extras: list[list[torch.Tensor]] = []
        self._base: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        if self._checkpoint is not None:
            self._resume = checkpoints.read_checkpoint(self._checkpoint, self._key)
        if self._resume is not None:
            self.extra_seconds = float(self._resume["cpu_seconds"])

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

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the run, with that before an interruption."""
        return time.process_time() - self._cpu_started + self.extra_seconds

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
        epochs: int = 1,
        steps: int | None = None,
        per_epoch: int | None = None,
        description: str = "unlearn",
        norm: str | None = None,
        after_step: Callable[[], Any] | None = None,
        after_epoch: Callable[[int], bool | str | None] | None = None,
    ) -> bool:
        """Train :attr:`model`.

        Parameters
        ----------
        batches : callable
            From the epoch's number to its batches, mostly made of
            :meth:`batches`. Draw from :attr:`order` (start of an epoch) or
            :attr:`generator` only.
        loss : callable
            From a batch to the loss, or to the loss and further numbers for
            the history.
        optimizer : torch.optim.Optimizer
            It may also hold tensors that are not the model's.
        epochs : int
            Passes over the batches.
        steps : int, optional
            Stop after so many steps; epochs go on until then.
        per_epoch : int, optional
            Batches in an epoch, for the progress bar; see :meth:`count`.
        description : str
            For the progress bar and the history.
        norm : {"frozen", "update"}, optional
            Whether normalisation layers keep their running statistics, and
            use them, or update them; by default the method's ``norm``, or
            ``"frozen"``. Dropout is active either way.
        after_step : callable, optional
            Called after each step, such as to undo changes of masked weights.
        after_epoch : callable, optional
            Gets the epoch's number; True or a reason ends the training.

        Returns
        -------
        bool
            Whether it ran to its end; False after a budget or a NaN, and then
            further calls do nothing.
        """
        self._stage += 1
        if self._halted:
            return False
        if self._skip_finished(optimizer):
            return True
        set_mode(self.model, norm or self.settings.get("norm") or "frozen")
        run = Run(self, batches, loss, optimizer, epochs, steps, description)
        run.after_step, run.after_epoch = after_step, after_epoch
        position = self._restore_position(run)
        total = steps if steps is not None else per_epoch and per_epoch * epochs
        try:
            with DeferredInterrupt(self._checkpoint is not None) as interrupt:
                for _ in track(
                    run.go(position, interrupt),
                    description=description,
                    total=total,
                    progress=self.progress,
                    unit="step",
                ):
                    pass
        except KeyboardInterrupt:
            if run.clean:  # else the last checkpoint stands: half a step cannot be gone on with
                self._write(run)
            raise
        finally:
            self.model.eval()
        if self._halted:
            self._write(run)
            return False
        if self._checkpoint is not None:
            self._extras.append(outside_tensors(self.model, optimizer))
            self._base = {"model": self.snapshot(), "generators": self.generators()}
        return True

    def finish(self) -> None:
        """Remove the checkpoint of a run that came to its end."""
        if self._checkpoint is None or self.stopped in {"max_steps", "max_seconds"}:
            return
        if os.path.isfile(self._checkpoint / "manifest.json"):
            remove_folder(self._checkpoint)

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

    def start_epoch(self, epoch: int) -> None:
        """Set the epoch and start its order anew."""
        self.epoch = epoch
        seed = np.random.SeedSequence([self.seed, self._stage, epoch]).generate_state(1)[0]
        self.order.manual_seed(int(seed))

    def budget(self) -> str | None:
        """Name the budget that is spent, if any."""
        most_steps, most_seconds = (self.settings.get(k) for k in ("max_steps", "max_seconds"))
        if most_steps is not None and self.steps >= most_steps:
            return "max_steps"
        if most_seconds is not None and time.monotonic() - self._started >= most_seconds:
            return "max_seconds"
        return None

    def halt(self, reason: str) -> None:
        """End this and all further training."""
        self.stopped, self._halted = reason, True

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether there is a folder to write to."""
        return self._checkpoint is not None

    @property
    def has_budget(self) -> bool:
        """Whether the run may end before it is done."""
        return any(self.settings.get(k) is not None for k in ("max_steps", "max_seconds"))

    def generators(self) -> dict[str, Any]:
        """Note the state of all generators."""
        state: dict[str, Any] = {
            "generator": self.generator.get_state(),
            "order": self.order.get_state(),
            "numpy": self.numpy.bit_generator.state,
            "torch": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def set_generators(self, state: dict[str, Any]) -> None:
        """Put all generators back."""
        self.generator.set_state(state["generator"])
        self.order.set_state(state["order"])
        self.numpy.bit_generator.state = state["numpy"]
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def _skip_finished(self, optimizer: torch.optim.Optimizer) -> bool:
        """Stand in for a stage that was complete before the interruption."""
        state = self._resume
        if state is None or self._stage >= state["stage"]:
            return False
        with torch.no_grad():
            kept = state["extras"][self._stage]
            for tensor, value in zip(outside_tensors(self.model, optimizer), kept, strict=True):
                tensor.copy_(value)
        self._extras.append(kept)
        if self._stage == state["stage"] - 1:
            self._base = state["base"]
            self.restore(state["base"]["model"])
            self.set_generators(state["base"]["generators"])
            self.memory = dict(state["memory"])
            self.steps = int(state["steps"])
        return True

    def _restore_position(self, run: Run) -> tuple[int, int]:
        state = self._resume
        if state is None or self._stage != state["stage"]:
            return 0, 0
        self._resume = None
        self.restore(state["model"])
        with torch.no_grad():
            beside = outside_tensors(self.model, run.optimizer)
            for tensor, value in zip(beside, state["outside"], strict=True):
                tensor.copy_(value)
        run.optimizer.load_state_dict(state["optimizer"])
        run.pending = state["generators"]
        run.sums, run.count = dict(state["sums"]), int(state["count"])
        run.done = int(state["done"]) - int(state["batch"])
        self.history = list(state["history"])
        self.memory = dict(state["memory"])
        self.steps = int(state["steps"])
        return int(state["epoch"]), int(state["batch"])

    def _write(self, run: Run) -> None:
        if self._checkpoint is None or self.stopped.startswith("nan"):
            return
        checkpoints.write_checkpoint(
            self._checkpoint,
            self._key,
            {
                "seed": self.seed,
                "stage": self._stage,
                "epoch": run.epoch,
                "batch": run.batch,
                "steps": self.steps,
                "cpu_seconds": self.cpu_seconds,
                "history": self.history,
                "memory": self.memory,
                "extras": self._extras,
                "base": self._base,
                "model": dict(self.model.state_dict()),
                "outside": outside_tensors(self.model, run.optimizer),
                "optimizer": run.optimizer.state_dict(),
                "generators": self.generators(),
                "sums": run.sums,
                "count": run.count,
                "done": run.done,
            },
        )
        self._last_written = time.monotonic()

    def write_when_due(self, run: Run) -> None:
        """Write a checkpoint when the last one is old enough."""
        if time.monotonic() - self._last_written >= checkpoints.EVERY_SECONDS:
            self._write(run)


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
