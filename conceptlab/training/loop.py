"""The training engine: whole steps, budgets, rewinding, looks, averages, history, checkpoints."""

from __future__ import annotations

__all__ = ["Engine"]

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.swap import remove_folder
from conceptlab.progress import Progress, track
from conceptlab.seeds import torch_generator
from conceptlab.training import checkpoint as checkpoints
from conceptlab.training.average import Average
from conceptlab.training.interrupt import DeferredInterrupt
from conceptlab.training.parts import (
    Part,
    Tensors,
    all_finite,
    load_states,
    outside_tensors,
    states,
)
from conceptlab.training.schedules import Schedule
from conceptlab.training.terms import Batch, Look, Loss, Stop, loss_and_numbers

GOOD_EVERY = 100
"""Steps between two states that a NaN can rewind to (there is one at each epoch, too)."""
BUDGETS = ("max_steps", "max_seconds")
"""What :attr:`Engine.stopped` says of a run that may go on from its checkpoint."""


class Engine:
    """Trains whatever it is given, in stages, and can be interrupted anywhere.

    A run's state is one dict of named parts: weights, generators, optimiser,
    `memory` of its user. A step is whole or did not happen: Ctrl-C ends the
    step that runs, writes the checkpoint, and then ends the run; a second one
    ends it at once, and the checkpoint before stands. A run that was
    interrupted or spent its budget goes on from its checkpoint to the same
    bits as one that was not. NaN or infinity, in a loss or a weight, takes the
    weights back to the last state that was good, ends the run and adds to
    :attr:`warnings`.

    Parameters
    ----------
    weights : mapping of str to Part
        What is trained and rewound: modules, :class:`~conceptlab.training.Tensors`,
        or anything with ``state_dict`` and ``load_state_dict``.
    generators : mapping of str to Part, optional
        All that batches and losses draw from.
    seed : int
        Of :attr:`order`; part of a checkpoint.
    max_steps : int, optional
        Steps over all stages, those before an interruption included.
    max_seconds : float, optional
        Seconds by the clock from now.
    progress : bool, callable or None
        See ``conceptlab.progress``.
    checkpoint : path-like or None
        Folder for interrupted runs; see :meth:`finish`.
    key : dict, optional
        What a checkpoint must match: JSON values, with a dict under
        ``"parameters"``.

    Attributes
    ----------
    order : torch.Generator
        For the order of batches; starts anew at each epoch, so that a resumed
        epoch has the same batches.
    epoch : int
        The epoch that runs, from 0.
    steps : int
        Steps so far, over all stages.
    history : list of dict
        Rows with ``stage``, ``epoch``, ``steps``, ``lr``, ``seconds`` (of CPU),
        ``loss``, and the means of what the losses and looks tell.
    memory : dict
        Nested tensors and JSON values of the user that must outlive an
        interruption, such as the best state so far.
    stopped : str
        ``"done"``, ``"max_steps"``, ``"max_seconds"``, ``"nan: rewound"``,
        ``"early: <why>"`` or the reason of a :class:`Stop`.
    warnings : list of str
        What the user of the run should be told at its end.

    Raises
    ------
    CheckpointError
        ``CL-CHECKPOINT-KIND``: the folder holds the state of another run.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> engine = Engine({"layer": layer}, max_steps=30)
    >>> X, y = torch.eye(2), torch.tensor([[1.0], [-1.0]])
    >>> engine.train(
    ...     lambda epoch: [(X, y)],
    ...     lambda batch: (layer(batch[0]) - batch[1]).square().mean(),
    ...     torch.optim.SGD(layer.parameters(), lr=0.1),
    ...     epochs=20,
    ... )
    True
    >>> engine.stopped, engine.steps, engine.history[-1]["loss"] < engine.history[0]["loss"]
    ('done', 20, True)
    """

    def __init__(
        self,
        weights: Mapping[str, Part],
        *,
        generators: Mapping[str, Part] | None = None,
        seed: int = 0,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.weights: dict[str, Part] = dict(weights)
        self.seed, self.progress = seed, progress
        self.max_steps, self.max_seconds = max_steps, max_seconds
        self.order = torch_generator(seed)
        self.generators: dict[str, Part] = {**(generators or {}), "order": self.order}
        self.epoch = self.steps = 0
        self.history: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        self.stopped = "done"
        self.warnings: list[str] = []
        self._halted = False
        self._number = -1  # of the stage
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._key = dict(key or {})
        self._last_written = time.monotonic()
        self._extras: list[list[torch.Tensor]] = []
        self._base: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        self._cpu_before = 0.0
        if self._checkpoint is not None:
            self._resume = checkpoints.read_checkpoint(self._checkpoint, self._key)
        if self._resume is not None:
            if "stage" not in self._resume:
                raise CheckpointError(
                    f"The checkpoint {self._checkpoint} was written by an earlier version, whose "
                    "runs of this kind cannot be gone on with. Remove it, or give another folder.",
                    code="CL-CHECKPOINT-KIND",
                )
            self._cpu_before = float(self._resume["cpu_seconds"])

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the run, with that before an interruption."""
        return time.process_time() - self._cpu_started + self._cpu_before

    def train(
        self,
        batches: Callable[[int], Iterable[Batch]],
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        epochs: int = 1,
        steps: int | None = None,
        per_epoch: int | None = None,
        description: str = "train",
        schedule: Schedule | None = None,
        clip: float | None = None,
        average: float = 0.0,
        after_step: Callable[[], Any] | None = None,
        look: Look | None = None,
        look_every: int | None = None,
        row_every: int | None = None,
    ) -> bool:
        """Train one stage; a run may have several, one after the other.

        Parameters
        ----------
        batches : callable
            From the epoch's number to its batches. Draw from :attr:`order`
            (at the start of an epoch) or from the run's generators only.
        loss : callable
            See :data:`Loss`.
        optimizer : torch.optim.Optimizer
            It may also hold tensors that are not the run's weights.
        epochs : int
            Passes over the batches.
        steps : int, optional
            Stop after so many steps of this stage; epochs go on until then.
        per_epoch : int, optional
            Batches in an epoch, for the progress bar and `schedule`.
        description : str
            For the progress bar and the history.
        schedule : callable, optional
            See :mod:`conceptlab.training.schedules`; multiplies the rates that
            `optimizer` comes with. It needs `steps` or `per_epoch`.
        clip : float, optional
            Largest norm of the gradient.
        average : float
            Decay of a running mean of the optimiser's tensors, which looks see
            and which stands in their place at the end; 0 for none.
        after_step : callable, optional
            Called after each step, such as to undo changes of masked weights.
        look : callable, optional
            Gets the last row of the history, to add to it; a :class:`Stop`, a
            reason or True ends the stage.
        look_every : int, optional
            Steps between two looks; by default one at the end of each epoch.
        row_every : int, optional
            Steps that one row of the history is the mean of; by default an epoch.

        Returns
        -------
        bool
            Whether it ran to its end; False after a budget or a NaN, and then
            further calls do nothing.

        Raises
        ------
        InputError
            ``CL-INPUT-EMPTY``: an epoch without batches.
        """
        self._number += 1
        if self._halted:
            return False
        if self._skip_finished(optimizer):
            return True
        total = steps if steps is not None else per_epoch and per_epoch * epochs
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        stage = _Stage(
            self,
            batches,
            loss,
            optimizer,
            tensors,
            epochs=epochs,
            steps=steps,
            total=total,
            description=description,
            schedule=schedule,
            clip=clip,
            mean=Average(tensors, average) if average else None,
            after_step=after_step,
            look=look,
            look_every=look_every,
            row_every=row_every,
        )
        position = self._restore_position(stage)
        try:
            with DeferredInterrupt(self._checkpoint is not None) as interrupt:
                for _ in track(
                    stage.go(position, interrupt),
                    description=description,
                    total=total,
                    progress=self.progress,
                    unit="step",
                ):
                    pass
        except KeyboardInterrupt:
            if stage.clean:  # else the last checkpoint stands: half a step cannot be gone on with
                self._write(stage)
            raise
        if self._halted:
            self._write(stage)
        if stage.mean is not None:
            stage.mean.apply()
        if self._checkpoint is not None and not self._halted:
            self._extras.append(outside_tensors(self.weights.values(), optimizer))
            self._base = {**states(self.weights), "generators": states(self.generators)}
        return not self._halted

    def finish(self) -> None:
        """Remove the checkpoint of a run that came to its end; a spent budget keeps it."""
        if self._checkpoint is None or self.stopped in BUDGETS:
            return
        if os.path.isfile(self._checkpoint / "manifest.json"):
            remove_folder(self._checkpoint)

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
        return self.max_steps is not None or self.max_seconds is not None

    def budget(self) -> str | None:
        """Name the budget that is spent, if any."""
        if self.max_steps is not None and self.steps >= self.max_steps:
            return "max_steps"
        spent = time.monotonic() - self._started
        return "max_seconds" if self.max_seconds is not None and spent >= self.max_seconds else None

    def start_epoch(self, epoch: int) -> None:
        """Set the epoch and start its order anew."""
        self.epoch = epoch
        seed = np.random.SeedSequence([self.seed, self._number, epoch]).generate_state(1)[0]
        self.order.manual_seed(int(seed))

    def write_when_due(self, stage: _Stage) -> None:
        """Write a checkpoint when the last one is old enough."""
        if time.monotonic() - self._last_written >= checkpoints.EVERY_SECONDS:
            self._write(stage)

    def _skip_finished(self, optimizer: torch.optim.Optimizer) -> bool:
        """Stand in for a stage that was complete before the interruption."""
        state = self._resume
        if state is None or self._number >= state["stage"]:
            return False
        kept = state["extras"][self._number]
        Tensors(outside_tensors(self.weights.values(), optimizer)).load_state_dict(kept)
        self._extras.append(kept)
        if self._number == state["stage"] - 1:
            self._base = dict(state["base"])
            load_states(self.weights, self._base)
            load_states(self.generators, self._base["generators"])
            self.memory = dict(state["memory"])
            self.steps = int(state["steps"])
        return True

    def _restore_position(self, stage: _Stage) -> tuple[int, int]:
        state = self._resume
        if state is None or self._number != state["stage"]:
            return 0, 0
        self._resume = None
        load_states(stage.parts(), state)
        stage.pending = state["generators"]
        stage.sums, stage.count = dict(state["sums"]), int(state["count"])
        stage.done = int(state["done"]) - int(state["batch"])
        self.history = list(state["history"])
        self.memory = dict(state["memory"])
        self.steps = int(state["steps"])
        return int(state["epoch"]), int(state["batch"])

    def _write(self, stage: _Stage) -> None:
        if self._checkpoint is None or self.stopped.startswith("nan"):
            return
        state = {
            "seed": self.seed,
            "stage": self._number,
            "epoch": stage.epoch,
            "batch": stage.batch,
            "steps": self.steps,
            "cpu_seconds": self.cpu_seconds,
            "history": self.history,
            "memory": self.memory,
            "extras": self._extras,
            "base": self._base,
            "generators": states(self.generators),
            "sums": stage.sums,
            "count": stage.count,
            "done": stage.done,
            **states(stage.parts()),
        }
        checkpoints.write_checkpoint(self._checkpoint, self._key, state)
        self._last_written = time.monotonic()


@dataclass(eq=False)
class _Stage:
    """One call of :meth:`Engine.train`: its options, place, sums and last good state."""

    engine: Engine
    batches: Callable[[int], Iterable[Batch]]
    loss: Loss
    optimizer: torch.optim.Optimizer
    tensors: list[torch.Tensor]
    epochs: int
    steps: int | None
    total: int | None
    description: str
    schedule: Schedule | None
    clip: float | None
    mean: Average | None
    after_step: Callable[[], Any] | None
    look: Look | None
    look_every: int | None
    row_every: int | None
    epoch: int = 0
    batch: int = 0
    count: int = 0
    done: int = 0
    clean: bool = True
    pending: dict[str, Any] | None = None
    drawn_from: dict[str, Any] | None = None
    sums: dict[str, float] = field(default_factory=dict)
    good: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def parts(self) -> dict[str, Part]:
        """Name all that has a state beside the generators."""
        weights = self.engine.weights
        outside = outside_tensors(weights.values(), self.optimizer)
        parts = {**weights, "outside": Tensors(outside), "optimizer": self.optimizer}
        return parts if self.mean is None else {**parts, "mean": self.mean}

    def trained(self) -> dict[str, Part]:
        """Name what a rewinding takes back."""
        weights = self.engine.weights
        return weights if self.mean is None else {**weights, "mean": self.mean}

    def go(self, position: tuple[int, int], interrupt: DeferredInterrupt) -> Iterator[None]:
        """Train, and stop after each step for the bar."""
        engine = self.engine
        self.good = states(self.trained())
        epoch, skip = position
        while epoch < self.epochs if self.steps is None else self.done < self.steps:
            self.epoch, self.batch = epoch, 0
            if skip == 0:
                self._catch_up()
            engine.start_epoch(epoch)
            for batch in self._drawn(epoch):
                if self.batch < skip:
                    self.batch += 1
                    self.done += 1
                    if self.batch == skip:  # before the next batch is drawn
                        self._catch_up()
                    continue
                reason = engine.budget()
                if reason is not None:
                    engine.halt(reason)
                    if self.drawn_from is not None:  # as if this batch had not been drawn
                        load_states(engine.generators, self.drawn_from)
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
            if not self._end_epoch():
                return
            epoch += 1
            self.epoch, self.batch = epoch, 0
            self.clean = True

    def _drawn(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch; note the generators before each where it may be undone."""
        engine = self.engine
        noted = engine.keeps_checkpoints and engine.has_budget
        batches = iter(self.batches(epoch))
        while True:
            self.drawn_from = states(engine.generators) if noted else None
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def _catch_up(self) -> None:
        if self.pending is not None:
            load_states(self.engine.generators, self.pending)
            self.pending = None

    def _step(self, batch: Batch) -> bool:
        engine = self.engine
        self.clean = False
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        value, numbers = loss_and_numbers(self.loss(batch))
        if not bool(torch.isfinite(value.detach())):
            self._rewind_from_nan()
            return False
        torch.autograd.backward(value)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.tensors, self.clip)
        self.optimizer.step()
        if self.mean is not None:
            self.mean.update(self.done)
        self.batch += 1
        self.done += 1
        self.count += 1
        engine.steps += 1
        if self.after_step is not None:
            self.after_step()
        for key, number in {"loss": float(value.detach()), **numbers}.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(number)
        if self.row_every is not None and self.done % self.row_every == 0:
            self._add_row()
        if self._look_due():
            if not self._pass():
                return False
        elif self.look_every is None and self.batch % GOOD_EVERY == 0 and not self._keep_good():
            return False
        self.clean = True
        engine.write_when_due(self)
        return True

    def _set_rates(self) -> None:
        if self.schedule is None:
            return
        if self.total is None:
            raise InputError(
                "A schedule needs the number of steps: give steps= or per_epoch=.",
                code="CL-INPUT-TYPE",
            )
        factor = self.schedule(self.done, self.total)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _look_due(self) -> bool:
        if self.look_every is None:
            return False
        return self.done % self.look_every == 0 or self.done == self.steps

    def _end_epoch(self) -> bool:
        if self.row_every is None:
            self._add_row()
        return self._pass() if self.look_every is None else True

    def _add_row(self) -> None:
        engine = self.engine
        engine.history.append(
            {
                "stage": self.description,
                "epoch": self.epoch + 1,
                "steps": engine.steps,
                "lr": float(self.optimizer.param_groups[0]["lr"]),
                "seconds": round(engine.cpu_seconds, 3),
                **{key: total / max(self.count, 1) for key, total in self.sums.items()},
            }
        )
        self.sums, self.count = {}, 0

    def _keep_good(self) -> bool:
        if not all_finite(*self.trained().values()):
            self._rewind_from_nan()
            return False
        self.good = states(self.trained())
        return True

    def _pass(self) -> bool:
        """Look at finite weights; False where the look, or a NaN, ends the stage."""
        engine = self.engine
        if not all_finite(*self.trained().values()):
            self._rewind_from_nan()
            return False
        stop = self._seen() if self.look is not None else None
        if stop is not None:
            engine.stopped = stop.reason
            if stop.rewind:
                load_states(self.trained(), self.good)
            return False
        self.good = states(self.trained())
        return True

    def _seen(self) -> Stop | None:
        """Ask the look, which sees the mean where there is one and leaves modes as they are."""
        if self.look is None:
            return None
        modules = [part for part in self.engine.weights.values() if isinstance(part, nn.Module)]
        training = {inner: inner.training for part in modules for inner in part.modules()}
        row = self.engine.history[-1] if self.engine.history else {}
        if self.mean is None:
            answer = self.look(row)
        else:
            with self.mean.swapped():
                answer = self.look(row)
        for module, flag in training.items():
            module.training = flag
        if isinstance(answer, Stop):
            return answer
        reason = answer if isinstance(answer, str) else "stop rule"
        return Stop(f"early: {reason}") if answer else None

    def _rewind_from_nan(self) -> None:
        engine = self.engine
        load_states(self.trained(), self.good)
        engine.halt("nan: rewound")
        engine.warnings.append(
            f"The loss became NaN or infinite in epoch {self.epoch + 1}, batch {self.batch + 1} of "
            f"{self.description!r}. The run stopped, and the weights are those of the last good "
            f"state. Use a smaller lr (now {self.optimizer.param_groups[0]['lr']:g})."
        )
