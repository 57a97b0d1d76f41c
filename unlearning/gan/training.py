"""The loop of all methods that train a generator: budget, rewinding, early stop, checkpoints."""

from __future__ import annotations

__all__ = ["GanResult", "Loop", "sensitive_layers"]

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conceptlab.errors import InputError, unknown_name
from conceptlab.io.swap import remove_folder
from conceptlab.progress import Progress, track
from conceptlab.training.checkpoint import EVERY_SECONDS, read_checkpoint, write_checkpoint
from unlearning.gan.generators import Generator

Terms = dict[str, torch.Tensor]
_COLLAPSED = 0.35  # of the spread of images before


@dataclass
class GanResult:
    """A generator that was made to forget, and how.

    Attributes
    ----------
    generator : Generator
        The new one; its ``module`` is of the class of the user's. The user's own is
        untouched.
    history : list of dict
        Losses and, now and then, figures on held-out latents by the guide.
    stopped : str
        ``"done"``, ``"max_steps"``, ``"max_seconds"``, ``"early: ..."``, ``"nan:
        rewound"`` or ``"collapse: rewound"``.
    seed : int
    seconds : float
        CPU time.
    details : dict
        Anchors, separations, shares, trained layers, and what else the method tells.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> from unlearning.gan import LatentGuard
    >>> guard = LatentGuard(load_encoder("embedded"), "red", n_survey=128, random_state=0)
    >>> result = guard.unlearn(load_embedded_gan())
    >>> result.stopped, result.seed
    ('done', 0)
    """

    generator: Generator
    history: list[dict[str, Any]]
    stopped: str
    seed: int
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> nn.Module:
        """The new module."""
        return self.generator.module

    def to_frame(self) -> Any:
        """Give the history as a data frame, one row a step."""
        import pandas as pd

        return pd.DataFrame(self.history)


class Loop:
    """Adam on a generator's parameters, with everything that can go wrong.

    Parameters
    ----------
    generator : Generator
        Trained in evaluation mode: batch statistics stay.
    parameters : sequence of Parameter
    steps : int
    lr : float
    draws : torch.Generator
        All that the method draws from; its state is part of a checkpoint.
    average : float
        Decay of the running mean of the weights that is given back; 0 gives the last.
    check : callable, optional
        Gives figures on held-out latents; ``"spread"`` is the spread of the images as a
        share of that before, ``"reached"`` ends the training.
    check_every : int
    max_steps, max_seconds : optional
        Budget.
    progress : bool, callable or None
    checkpoint : path-like, optional
        Folder from which an interrupted run goes on.
    key : dict
        What a checkpoint must match.
    """

    def __init__(
        self,
        generator: Generator,
        parameters: Sequence[nn.Parameter],
        *,
        steps: int,
        lr: float,
        draws: torch.Generator,
        average: float = 0.0,
        check: Callable[[], dict[str, float]] | None = None,
        check_every: int = 25,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
        key: dict[str, Any] | None = None,
    ) -> None:
        self.generator, self.parameters = generator, list(parameters)
        self.steps, self.lr, self.draws, self.average = steps, lr, draws, average
        self.check, self.check_every = check, check_every
        self.max_steps, self.max_seconds, self.progress = max_steps, max_seconds, progress
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.key = dict(key or {})
        self.optimiser = torch.optim.Adam(self.parameters, lr=lr, betas=(0.5, 0.99))
        self.mean = [p.detach().clone() for p in self.parameters]
        self.history: list[dict[str, Any]] = []
        self.stopped, self.step = "done", 0
        self._begun: torch.Tensor = draws.get_state()
        self._whole = True

    def run(self, losses: Callable[[int], Terms], description: str = "unlearn") -> None:
        """Train: `losses` gives named terms, already weighted, for a step's number."""
        self._resume()
        good = self._state()
        started = written = time.monotonic()
        try:
            for _ in track(
                range(self.step, self.steps),
                description=description,
                progress=self.progress,
                unit="step",
            ):
                if self._spent(started):
                    break
                self._begun = self.draws.get_state()
                terms = losses(self.step)
                loss = torch.stack(list(terms.values())).sum()
                row = {"step": self.step, **{name: float(t.detach()) for name, t in terms.items()}}
                finite = bool(torch.isfinite(loss))
                if finite:
                    self._descend(loss)
                    finite = all(bool(torch.isfinite(p).all()) for p in self.parameters)
                if not finite:
                    self._load(good)
                    self.stopped = "nan: rewound"
                    break
                self.step += 1
                self.history.append(row)
                if self.step % self.check_every == 0 or self.step == self.steps:
                    if self._look(row):
                        if self.stopped == "collapse: rewound":
                            self._load(good)
                        break
                    good = self._state()
                if self.checkpoint is not None and time.monotonic() - written > EVERY_SECONDS:
                    self._begun = self.draws.get_state()
                    self._write()
                    written = time.monotonic()
        except KeyboardInterrupt:
            # Half a step cannot be gone on with: then the checkpoint before it stands.
            if self.checkpoint is not None and self._whole:
                self._write()
            raise
        if self.average:
            with torch.no_grad():
                for parameter, mean in zip(self.parameters, self.mean, strict=True):
                    parameter.copy_(mean)
        if self.checkpoint is not None and os.path.exists(self.checkpoint):
            remove_folder(self.checkpoint)

    def _descend(self, loss: torch.Tensor) -> None:
        at = self.step / max(self.steps, 1)
        self.optimiser.param_groups[0]["lr"] = self.lr * min(1.0, 2.5 * (1 - at) + 0.02)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self._whole = False
        self.optimiser.step()
        keep = min(self.average, (self.step + 1) / (self.step + 10)) if self.average else 0.0
        with torch.no_grad():
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - keep)
        self._whole = True

    def _look(self, row: dict[str, Any]) -> bool:
        if self.check is None:
            return False
        last = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.mean, strict=True):
                parameter.copy_(mean)
            found = self.check()
            for parameter, value in zip(self.parameters, last, strict=True):
                parameter.copy_(value)
        reached = found.pop("reached", 0.0)
        row.update({f"held-out {name}": value for name, value in found.items()})
        if found.get("spread", 1.0) < _COLLAPSED:
            self.stopped = "collapse: rewound"
            return True
        if reached:
            self.stopped = "early: reached on held-out latents"
            return True
        return False

    def _spent(self, started: float) -> bool:
        if self.max_steps is not None and self.step >= self.max_steps:
            self.stopped = "max_steps"
        elif self.max_seconds is not None and time.monotonic() - started >= self.max_seconds:
            self.stopped = "max_seconds"
        return self.stopped != "done"

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "parameters": [p.detach().clone() for p in self.parameters],
            "mean": [m.clone() for m in self.mean],
        }

    def _load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensors in (("parameters", self.parameters), ("mean", self.mean)):
                for tensor, value in zip(tensors, state[name], strict=True):
                    tensor.copy_(value.to(tensor.device))
        self.step = state["step"]

    def _write(self) -> None:
        if self.checkpoint is None:
            return
        state = {
            **self._state(),
            "optimiser": self.optimiser.state_dict(),
            "draws": self._begun,
            "history": self.history,
        }
        write_checkpoint(self.checkpoint, self.key, state)

    def _resume(self) -> None:
        state = None if self.checkpoint is None else read_checkpoint(self.checkpoint, self.key)
        if state is None:
            return
        self._load(state)
        self.optimiser.load_state_dict(state["optimiser"])
        self.draws.set_state(state["draws"])
        self.history = list(state["history"])


def sensitive_layers(
    module: nn.Module,
    loss: torch.Tensor,
    layers: str | Sequence[str],
    *,
    share: float = 0.98,
) -> dict[str, nn.Parameter]:
    """Choose the parameters to train.

    Parameters
    ----------
    module : torch.nn.Module
        The part of the generator that may change.
    loss : Tensor of shape ()
        Of a batch, still attached; its gradient tells how sensitive each layer is.
    layers : "auto", "all", or sequence of str
        "auto" takes the most sensitive layers (by norm of the gradient times norm of the
        weights) that hold `share` of the sum; names are of layers or of their parents.
    share : float

    Returns
    -------
    dict of str to Parameter

    Raises
    ------
    InputError
        An unknown layer (``CL-SPLIT-LAYER``), a loss that is not finite
        (``CL-INPUT-NONFINITE``), or one that no parameter changes.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if isinstance(layers, str) and layers == "all":
        return named
    if not isinstance(layers, str):
        chosen = {}
        for layer in layers:
            part = {n: p for n, p in named.items() if n == layer or n.startswith(f"{layer}.")}
            if not part:
                known = sorted({n.rpartition(".")[0] for n in named})
                raise unknown_name("layer", layer, known, code="CL-SPLIT-LAYER")
            chosen.update(part)
        return chosen
    if layers != "auto":
        raise unknown_name("choice of layers", layers, ["auto", "all"], hint="Or name layers.")
    if not bool(torch.isfinite(loss)):
        raise InputError(
            "The loss is not finite before the first step. Look at what the encoder, perceptual= "
            "and identity= give for images of this generator.",
            code="CL-INPUT-NONFINITE",
        )
    slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    felt: dict[str, float] = {}
    for (name, p), slope in zip(named.items(), slopes, strict=True):
        layer = name.rpartition(".")[0]
        if slope is not None:
            felt[layer] = felt.get(layer, 0.0) + float(slope.norm() * p.detach().norm())
    total = sum(felt.values())
    if not total > 0:
        raise InputError(
            "No parameter of the generator changes the loss. Is it detached inside the module?",
            code="CL-INPUT-TYPE",
        )
    kept, running = set(), 0.0
    for layer in sorted(felt, key=lambda name: -felt[name]):
        kept.add(layer)
        running += felt[layer]
        if running >= share * total:
            break
    return {n: p for n, p in named.items() if n.rpartition(".")[0] in kept}
