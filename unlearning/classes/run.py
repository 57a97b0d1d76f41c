"""The steps of a training stage: batches, losses, rewinding from NaN, stop rules."""

from __future__ import annotations

__all__ = ["Batch", "DeferredInterrupt", "Loss", "Run", "all_finite", "outside_tensors", "set_mode"]

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from conceptlab.errors import InputError

if TYPE_CHECKING:
    from unlearning.classes.job import Job

Batch = Any
Loss = Callable[[Batch], "torch.Tensor | tuple[torch.Tensor, dict[str, float]]"]
GOOD_EVERY = 100
"""Steps between two states that a NaN can rewind to (there is one at each epoch, too)."""


class Run:
    """One call of :meth:`Job.train`: its place, sums and last good state.

    Parameters
    ----------
    job : Job
        Whose model is trained.
    batches, loss, optimizer, epochs, steps, description
        As in :meth:`Job.train`.
    """

    def __init__(
        self,
        job: Job,
        batches: Callable[[int], Iterable[Batch]],
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        steps: int | None,
        description: str,
    ) -> None:
        self.job, self.batches, self.loss, self.optimizer = job, batches, loss, optimizer
        self.epochs, self.steps, self.description = epochs, steps, description
        self.after_step: Callable[[], Any] | None = None
        self.after_epoch: Callable[[int], bool | str | None] | None = None
        self.pending: dict[str, Any] | None = None
        self.epoch = self.batch = self.count = self.done = 0
        self.sums: dict[str, float] = {}
        self.clean = True
        self.drawn_from: dict[str, Any] | None = None
        self.good: dict[str, torch.Tensor] = {}

    def go(self, position: tuple[int, int], interrupt: DeferredInterrupt) -> Iterator[None]:
        """Train, and stop after each step for the bar."""
        job = self.job
        self.good = job.snapshot()
        epoch, skip = position
        while epoch < self.epochs if self.steps is None else self.done < self.steps:
            self.epoch, self.batch = epoch, 0
            if skip == 0:
                self._catch_up()
            job.start_epoch(epoch)
            for batch in self._drawn(epoch):
                if self.batch < skip:
                    self.batch += 1
                    self.done += 1
                    if self.batch == skip:  # before the next batch is drawn
                        self._catch_up()
                    continue
                reason = job.budget()
                if reason is not None:
                    job.halt(reason)
                    if self.drawn_from is not None:  # as if this batch had not been drawn
                        job.set_generators(self.drawn_from)
                    return
                if not self._step(batch):
                    return
                yield
                if interrupt.came:
                    raise KeyboardInterrupt
                if self.steps is not None and self.done >= self.steps:
                    break
            skip = 0
            if self.batch == 0:
                raise InputError("There are no batches to train on.", code="CL-INPUT-EMPTY")
            self.clean = False
            if not self._end_epoch(epoch):
                return
            epoch += 1
            self.epoch, self.batch, self.sums, self.count = epoch, 0, {}, 0
            self.clean = True
            if self.steps is not None and self.done >= self.steps:
                return

    def _drawn(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch; note the generators before each where it may be undone."""
        job = self.job
        noted = job.keeps_checkpoints and job.has_budget
        batches = iter(self.batches(epoch))
        while True:
            self.drawn_from = job.generators() if noted else None
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def _catch_up(self) -> None:
        if self.pending is not None:
            self.job.set_generators(self.pending)
            self.pending = None

    def _step(self, batch: Batch) -> bool:
        job = self.job
        self.clean = False
        self.optimizer.zero_grad(set_to_none=True)
        answer = self.loss(batch)
        value, numbers = answer if isinstance(answer, tuple) else (answer, {})
        if not bool(torch.isfinite(value.detach())):
            self._rewind()
            return False
        torch.autograd.backward(value)
        self.optimizer.step()
        self.batch += 1
        self.done += 1
        self.count += 1
        job.steps += 1
        if self.after_step is not None:
            self.after_step()
        for key, number in {"loss": float(value.detach()), **numbers}.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(number)
        if self.batch % GOOD_EVERY == 0:
            if not all_finite(job.model):
                self._rewind()
                return False
            self.good = job.snapshot()
        self.clean = True
        job.write_when_due(self)
        return True

    def _end_epoch(self, epoch: int) -> bool:
        job = self.job
        if not all_finite(job.model):
            self._rewind()
            return False
        means = {key: total / max(self.count, 1) for key, total in self.sums.items()}
        rate = float(self.optimizer.param_groups[0]["lr"])
        job.history.append(
            {
                "stage": self.description,
                "epoch": epoch + 1,
                "steps": job.steps,
                "lr": rate,
                "seconds": round(job.cpu_seconds, 3),
                **means,
            }
        )
        self.good = job.snapshot()
        if self.after_epoch is not None:
            training = {module: module.training for module in job.model.modules()}
            answer = self.after_epoch(epoch)
            for module, flag in training.items():
                module.training = flag
            if answer:
                job.stopped = f"early: {answer if isinstance(answer, str) else 'stop rule'}"
                return False
        return True

    def _rewind(self) -> None:
        job = self.job
        job.restore(self.good)
        job.halt("nan: rewound")
        job.warnings.append(
            f"The loss became NaN or infinite in epoch {self.epoch + 1}, batch {self.batch + 1} of "
            f"{self.description!r}. The run stopped, and the weights are those of the last good "
            f"state. Use a smaller lr (now {self.optimizer.param_groups[0]['lr']:g})."
        )


class DeferredInterrupt:
    """Let a step come to its end before Ctrl-C ends the run; a second Ctrl-C does at once.

    Parameters
    ----------
    active : bool
        Whether to do anything; signals belong to the main thread.

    Attributes
    ----------
    came : bool
        Whether Ctrl-C was pressed.
    """

    def __init__(self, active: bool) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.came = False
        self._before: Any = None

    def __enter__(self) -> DeferredInterrupt:
        if self.active:
            self._before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


def set_mode(model: nn.Module, norm: str) -> None:
    """Switch to training; normalisation layers keep their statistics when `norm` is "frozen"."""
    model.train()
    if norm == "update":
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            module.eval()


def all_finite(model: nn.Module) -> bool:
    """Tell whether every parameter is a finite number."""
    floats = (p for p in model.parameters() if p.is_floating_point())
    return all(bool(torch.isfinite(p.detach()).all()) for p in floats)


def outside_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Tensors of the optimiser that are not the model's, such as learnt noise."""
    own = {id(p) for p in model.parameters()}
    groups: Sequence[dict[str, Any]] = optimizer.param_groups
    return [p for group in groups for p in group["params"] if id(p) not in own]
