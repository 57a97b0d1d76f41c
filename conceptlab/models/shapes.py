"""What is known of each shape of a layer's activations: a sample, the layout, and h for it."""

from __future__ import annotations

__all__ = ["Shapes"]

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from conceptlab.errors import SplitError
from conceptlab.models.axes import OneSizeError, moved_axes, trace_axes
from conceptlab.models.capture import capture
from conceptlab.models.faults import BATCH, NOISE, SplitWarning, folded_error, runs_error
from conceptlab.models.layout import Layout, find_layout
from conceptlab.models.outputs import layer_tensor
from conceptlab.models.replay import Replay
from conceptlab.models.session import Inputs, Session

_MOST = 8


class Shapes:
    """Learns from the first pass, and from a sample of every other shape when it is wanted.

    Parameters
    ----------
    session : Session
        Of the user's model; borrowed by the caller where a method runs it.
    layer : torch.nn.Module
        Where the model is cut.
    name : str
        Name of the layer.
    select : callable
        Takes the logits (n, n_outputs) out of what the model returns.
    asked : dict
        What the user said of ``axes``, ``n_prefix`` and ``grid``.
    """

    def __init__(
        self,
        session: Session,
        layer: nn.Module,
        name: str,
        select: Callable[[Any], torch.Tensor],
        asked: dict[str, Any],
    ) -> None:
        self.session, self.layer, self.name = session, layer, name
        self._select, self._asked = select, asked
        self._first: Replay | None = None
        self._replays: OrderedDict[tuple[int, ...], Replay] = OrderedDict()
        self._layouts: OrderedDict[tuple[int, ...], Layout] = OrderedDict()
        self._samples: OrderedDict[tuple[int, ...], Inputs] = OrderedDict()
        self._waiting: list[Inputs] = []
        self._alone: tuple[list[tuple[int, int]], Inputs, Replay] | None = None

    @property
    def first(self) -> Replay:
        """What the first pass has shown."""
        if self._first is None and self._waiting:
            with self.session.borrowed():
                self.probe(self._waiting[0])
        if self._first is None:
            raise SplitError(
                "Layout, grid and sizes are known after the first pass: call g(x), f(x) or "
                "check(x) on a few inputs before.",
                code="CL-SPLIT-LAYOUT",
            )
        return self._first

    def probe(self, inputs: Inputs) -> Replay:
        """At the first pass, learn layout, runs and the rest of the model."""
        if self._first is not None:
            return self._first
        waiting, self._waiting = self._waiting, []
        sample = _one(inputs)
        first = Replay(self.session, self.layer, sample, self._select)
        if first.runs != 1:
            raise runs_error(self.session.model, self.name, first.runs)
        if not first.follows:
            raise folded_error(self.name, tuple(first.activations.shape))
        if first.noisy or not first.alone:
            model = type(self.session.model).__name__
            what = NOISE if first.noisy else BATCH
            warnings.warn(f"{model}: {what}.", SplitWarning, stacklevel=5)
        layout = self._find(first, sample)
        self._first = first
        self._keep(first, layout, sample)
        for other in waiting:
            self.remember(tuple(self._capture(other).shape), other)
        return first

    def remember(self, shape: tuple[int, ...], inputs: Inputs) -> None:
        """Keep one sample for each shape, from which h can be built when it is wanted."""
        key = self._key(shape)
        if key not in self._samples and inputs.batch_size:
            self._samples[key] = _one(inputs)
            _shorten(self._samples)

    def replay(self, shape: tuple[int, ...], inputs: Inputs | None) -> Replay:
        """Give h for activations of `shape`, of which an input was seen, or is given."""
        key = self._key(shape)
        if key in self._replays:
            return self._replays[key]
        sample = self._samples.get(key)
        if sample is None and inputs is not None:
            sample = _one(inputs)
        if sample is None:
            seen = [tuple(k) for k in self._samples]
            raise SplitError(
                f"h cannot take activations of shape {shape}: no input seen so far gives them. "
                f"Shapes seen, without the samples: {seen or 'none'}. Call g(x), f(x) or check(x) "
                "on such an input first, or reshape with from_positions.",
                code="CL-SPLIT-LAYOUT",
            )
        found = Replay(self.session, self.layer, sample, self._select)
        self._keep(found, self._find(found, sample), sample)
        return found

    def replay_of(self, inputs: Inputs) -> Replay:
        """Give h where what goes round the layer is that of one sample; the last one is kept."""
        sample = _one(inputs)
        weights = [(p.data_ptr(), p._version) for p in self.session.model.parameters()]
        kept = self._alone
        if kept is None or kept[0] != weights or not _same(kept[1], sample):
            replay = Replay(self.session, self.layer, sample, self._select)
            self._alone = kept = weights, sample, replay
        return kept[2]

    def layout(self, positions: tuple[int, ...] | None = None) -> Layout:
        """Give the layout of the first pass, or of tokens of another number."""
        first = self.first
        layout = self._layouts[self._key(tuple(first.activations.shape))]
        if positions is None or len(layout.axes) != 3 or len(positions) != 1:
            return layout
        # Images of another size have another number of tokens.
        place = next(i for i, letter in enumerate(layout.axes) if letter not in "nc")
        place -= layout.batch_axis < place
        with self.session.borrowed():
            for key in list(self._samples):
                if key[place] == positions[0] and layout.grid is not None:
                    self.replay((*key[: layout.batch_axis], 1, *key[layout.batch_axis :]), None)
        return next(
            (found for key, found in self._layouts.items() if key[place] == positions[0]), layout
        )

    def samples(self) -> list[Inputs]:
        """Give a sample of each shape, the first one's first, on the CPU."""
        kept = list(self._samples.values()) or self._waiting
        return [sample.map(lambda tensor: tensor.cpu()) for sample in kept]

    def wait(self, samples: Sequence[Inputs]) -> None:
        """Learn from `samples` when something is asked for."""
        self._waiting = list(samples)

    def _capture(self, inputs: Inputs) -> torch.Tensor:
        with torch.no_grad():
            return layer_tensor(capture(self.session, self.layer, inputs), self.name)

    def _find(self, replay: Replay, sample: Inputs) -> Layout:
        images = [t for t in sample.tensors() if t.ndim == 4]
        shape = tuple(replay.activations.shape)
        return find_layout(
            shape,
            replay.batch_axis,
            image_size=(int(images[0].shape[2]), int(images[0].shape[3])) if images else None,
            seen_grids=replay.grids,
            named=trace_axes(self.session, self.layer, sample),
            moved=lambda: self._moved(sample, shape),
            **self._asked,
        )

    def _moved(self, sample: Inputs, shape: tuple[int, ...]) -> dict[int, int] | None:
        try:
            return moved_axes(self.session, self.layer, sample, shape)
        except OneSizeError:
            return None

    def _key(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = 0 if self._first is None else self._first.batch_axis
        return shape[:axis] + shape[axis + 1 :]

    def _keep(self, replay: Replay, layout: Layout, sample: Inputs) -> None:
        key = self._key(tuple(replay.activations.shape))
        self._replays[key], self._layouts[key] = replay, layout
        self._samples.setdefault(key, sample)
        for kept in (self._replays, self._samples):
            _shorten(kept)


def _one(inputs: Inputs) -> Inputs:
    return inputs.rows(torch.tensor([0])).map(lambda tensor: tensor.detach().clone())


def _same(one: Inputs, other: Inputs) -> bool:
    pairs = list(zip(one.tensors(), other.tensors(), strict=False))
    alike = len(pairs) == len(one.tensors()) == len(other.tensors())
    return alike and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _shorten(kept: OrderedDict[tuple[int, ...], Any]) -> None:
    """Let go of the oldest but for the first, from which a copy begins."""
    while len(kept) > _MOST:
        del kept[list(kept)[1]]
